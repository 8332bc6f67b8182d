"""What the platform engineer has set, and what is said when a run wants more."""

from pathlib import Path

import pytest
import yaml

from run_config import installation as module
from run_config.errors import ConfigError
from run_config.installation import Installation, load_installation, parse_installation, permitted
from run_config.parameters import BY_NAME, Role, Type

SETTINGS = """\
version: 1
store: s3://bucket/project
readable: [s3://exports, s3://shared/weights]
writable: [runs, team-a/output]
storeSecret: detr-workflows-store
nodePoolLabel: node.kubernetes.io/instance-type
nodePools:
- {name: gpu-a, title: One A10, labelValue: g5.xlarge, gpuResource: nvidia.com/gpu, gpuCount: 4, limit: 2,
   tolerations: [{key: nvidia.com/gpu, operator: Exists}]}
- {name: cpu-a, labelValue: m5.large, gpuCount: 0}
"""


@pytest.fixture
def ours() -> Installation:
    return parse_installation(SETTINGS, "settings.yaml")


def test_the_file_is_read_as_the_chart_writes_it(ours: Installation):
    assert ours.store == "s3://bucket/project"
    assert ours.store_secret == "detr-workflows-store"
    gpu, cpu = ours.node_pools
    assert (gpu.name, gpu.label_value, gpu.gpu_count, gpu.limit) == ("gpu-a", "g5.xlarge", 4, 2)
    assert (cpu.gpu_resource, cpu.gpu_count, cpu.limit) == ("nvidia.com/gpu", 0, None)


def test_the_example_of_the_docs_is_one():
    page = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    assert parse_installation(example, "docs").pool("gpu-a").limit == 4
    assert set(yaml.safe_load(example)) == {str(field.alias) for field in Installation.model_fields.values()}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "settings.yaml: version: Input should be 1"),
        ("store: s3", "stor: s3", "settings.yaml: store: Field required"),
        ("storeSecret", "storeSecrt", "settings.yaml: storeSecrt: Extra inputs are not permitted"),
        ("name: gpu-a", "name: GPU", "settings.yaml: nodePools.0.name: String should match"),
        ("labelValue: m5.large", 'labelValue: "a b"', "settings.yaml: nodePools.1.labelValue: String should match"),
        ("nvidia.com/gpu, gpuC", '"x: y", gpuC', "settings.yaml: nodePools.0.gpuResource: String should match"),
        ("gpuCount: 0", "gpuCount: many", "settings.yaml: nodePools.1.gpuCount: Input should be a valid integer"),
        ("version: 1", "version: [", "settings.yaml is not valid YAML"),
    ],
)
def test_a_file_that_is_not_right_is_one_sentence(old: str, new: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse_installation(SETTINGS.replace(old, new), "settings.yaml")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "text", "[1]"])
def test_another_document_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        parse_installation(text, "settings.yaml")


def test_a_process_is_part_of_an_installation_when_its_environment_says_so(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    assert load_installation({}) is None
    assert load_installation({module.VARIABLE: ""}) is None
    found = load_installation({module.VARIABLE: str(path)})
    assert found is not None
    assert found.store == "s3://bucket/project"


def test_where_the_bridge_keeps_exports_stands_beside_the_settings(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    found = load_installation({module.VARIABLE: str(path), module.EXPORTS_VARIABLE: "cvat-exports/"})
    assert found is not None
    assert found.exports == "cvat-exports"
    with pytest.raises(ConfigError, match=f"{module.EXPORTS_VARIABLE}: 'a/../b' must be a key below the store"):
        load_installation({module.VARIABLE: str(path), module.EXPORTS_VARIABLE: "a/../b"})


def test_settings_that_are_named_and_not_there_are_said(tmp_path: Path):
    # An optional volume leaves an empty folder: without this, a missing ConfigMap would allow everything.
    with pytest.raises(ConfigError, match="the ConfigMap of the chart is not in this namespace"):
        load_installation({module.VARIABLE: str(tmp_path / "settings.yaml")})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_installation({module.VARIABLE: str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "sys-node-pool is missing: one of gpu-a, cpu-a."),
        ("gpu-b", "sys-node-pool must be one of gpu-a, cpu-a, not 'gpu-b'. Did you mean gpu-a?"),
    ],
)
def test_a_pool_is_one_of_the_installations(ours: Installation, name: str, said: str):
    assert ours.pool("cpu-a").label_value == "m5.large"
    with pytest.raises(ConfigError) as caught:
        ours.pool(name)
    assert str(caught.value) == said


def test_a_pool_where_there_are_none_is_refused():
    with pytest.raises(ConfigError, match="this installation has no node pools; leave it empty, not 'gpu-a'"):
        Installation(store="s3://bucket").pool("gpu-a")


@pytest.mark.parametrize(
    "text",
    ["dumps/a.zip", "s3://bucket/project", "s3://bucket/project/x", "s3://exports/2026/a.zip", "s3://shared/weights/r50.pth"],
)  # fmt: skip
def test_the_store_and_the_prefixes_that_are_named_may_be_read(ours: Installation, text: str):
    assert ours.require_readable("cvat-annotation-path", text).startswith("s3://")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/projects/x", "s3://bucket/projects/x may not be read here; allowed are s3://bucket/project, "),
        ("s3://bucket", "may not be read here"),
        ("s3://exports-of-others/a.zip", "may not be read here"),
        ("s3://shared/weights-secret", "may not be read here"),
        ("file:///etc/passwd", "may not be read here"),
        ("/etc/passwd", "file:///etc/passwd may not be read here"),
        ("s3://bucket/project/../other", "must not have a part '..'"),
        ("s3://bucket/project/%2e%2e/other", "must not have a part '..'"),
        ("../other", "must be a key below the store"),
        ("./a", "must be a key below the store"),
        ("gs://bucket/project", "the scheme must be one of s3:// and file://"),
    ],
)
def test_other_places_may_not(ours: Installation, text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        ours.require_readable("cvat-test-path", text)
    assert str(caught.value).startswith("cvat-test-path: ")
    assert said in str(caught.value)


def test_runs_are_written_below_the_prefixes_that_are_named(ours: Installation):
    for prefix in ("runs", "runs/mine", "team-a/output"):
        ours.require_writable("cvat-output-path", prefix)
    for prefix in ("runs2", "team-a", "datasets"):
        with pytest.raises(ConfigError, match="may not be written here; allowed are runs, team-a/output and what"):
            ours.require_writable("cvat-output-path", prefix)
    with pytest.raises(ConfigError, match=r"cvat-output-path: 'runs/../datasets' must be a key below the store"):
        ours.require_writable("cvat-output-path", "runs/../datasets")


def test_without_prefixes_every_key_of_the_store_may_be_written():
    free = Installation(store="s3://bucket")
    free.require_writable("cvat-output-path", "anywhere")
    free.require_writable("cvat-output-path", "weights-of-mine")
    for prefix in ("weights", "weights/rf-detr-small", "%77eights/a"):
        with pytest.raises(ConfigError, match="template detr-weights write to weights/"):
            free.require_writable("cvat-output-path", prefix)
    with pytest.raises(ConfigError, match="must be a key below the store"):
        free.require_writable("cvat-output-path", "../elsewhere")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "settings.yaml"))


TYPES = {"a": Type.LOCATIONS, "b": Type.LOCATION, "c": Type.KEY, "d": Type.NODE_POOL}
"""What texts of other names than the parameters' are."""


@pytest.mark.usefixtures("inside")
def test_what_a_command_may_read_comes_back_as_urls():
    texts = {
        "store": "s3://bucket/project/",
        "a": "dumps/one\n\n s3://exports/two ",
        "b": "",
        "c": "runs",
        "d": "gpu-a",
    }
    assert permitted(texts, TYPES) == texts | {"a": "s3://bucket/project/dumps/one\ns3://exports/two"}


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"store": "s3://bucket"}, "store must be s3://bucket/project here, not 's3://bucket'"),
        ({"a": "x\n/etc/passwd"}, "a: file:///etc/passwd may not be read here"),
        ({"c": "datasets"}, "c: 'datasets' may not be written here"),
        ({"c": ""}, "c: '' must be a key below the store"),
        ({"d": ""}, "sys-node-pool is missing: one of gpu-a, cpu-a."),
        ({"d": "gpu-b"}, "sys-node-pool must be one of gpu-a, cpu-a, not 'gpu-b'. Did you mean gpu-a?"),
    ],
)
def test_a_command_is_refused_what_is_not_allowed(texts: dict[str, str], said: str):
    with pytest.raises(ConfigError) as caught:
        permitted({"store": "s3://bucket/project"} | texts, TYPES)
    assert str(caught.value).startswith(said)


def test_every_text_that_is_not_allowed_gets_a_line(ours: Installation):
    texts = {
        "store": "s3://other",
        "cvat-annotation-path": "/etc/a\ndumps/b\n/etc/c",
        "trained-model": "/etc/d",
        "cvat-output-path": "datasets",
        "sys-node-pool": "gpu-b",
    }
    with pytest.raises(ConfigError) as caught:
        ours.allowed(texts)
    names = [line.replace(":", "").split()[0] for line in str(caught.value).splitlines()]
    assert names == ["store", "cvat-annotation-path", *list(texts)[1:]]


def test_what_is_no_place_and_no_pool_is_always_allowed(ours: Installation):
    texts = {"model": "/configs/mine.yaml", "overrides": "optimizer.lr=1", "not-of-ours": "/etc/passwd", "epochs": ""}
    assert ours.allowed(texts) == texts


@pytest.mark.parametrize("name", [one.name for one in BY_NAME.values() if one.role is not Role.STORE])
def test_the_type_of_a_parameter_decides_what_is_allowed(ours: Installation, name: str):
    refused = {
        Type.LOCATION: "/etc/passwd",
        Type.LOCATIONS: "dumps/a\n/etc/passwd",
        Type.KEY: "datasets",
        Type.NODE_POOL: "gpu-b",
    }
    kind = BY_NAME[name].type
    if kind not in refused:
        assert ours.allowed({name: "/etc/passwd"}) == {name: "/etc/passwd"}
        return
    with pytest.raises(ConfigError) as caught:
        ours.allowed({name: refused[kind]})
    assert name in str(caught.value)


def test_elsewhere_everything_is_as_it_was_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    texts = {"store": "anything", "a": "../here", "c": "../there"}
    assert permitted(texts, TYPES) == texts
