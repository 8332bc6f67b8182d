"""What the chart says about itself is what it does: schema, table, examples, notes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.parameters import BRIDGE_TEMPLATES, BY_NAME, TEMPLATES
from tests.charts.chart import CHART, KUBERNETES, helm, rendered
from workflows.chart import values_schema, values_table
from workflows.templates.images import VERSION

VALUES_TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(VALUES_TEXT)
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))


def leaves(tree: dict[str, Any], path: str = "") -> list[str]:
    """Paths of all values, where an empty mapping is one."""
    found = []
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        found += leaves(value, here) if isinstance(value, dict) and value else [here]
    return found


def test_every_value_is_described_in_the_line_above_it():
    paths = [value.path for value in values_table.described(VALUES_TEXT)]
    undescribed = [
        leaf for leaf in leaves(VALUES) if not any(leaf == path or leaf.startswith(f"{path}.") for path in paths)
    ]
    assert undescribed == []
    assert len(paths) == len(set(paths))


def test_the_readmes_table_is_that_of_the_values():
    readme = (CHART / "README.md").read_text()
    assert readme == values_table.with_table(readme, VALUES_TEXT), "run: detr-workflows render"
    assert '| `store.bucket` | `""` | Bucket that runs read from and write to. Required. |' in readme


def test_the_schema_is_what_the_code_says():
    assert (CHART / "values.schema.json").read_text() == values_schema.text(), "run: detr-workflows render"


def test_the_schema_knows_every_value_and_values_know_every_key_of_the_schema():
    def keys(schema: dict[str, Any], path: str = "") -> set[str]:
        found = set()
        for key, below in schema.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            found |= keys(below, here) or {here}
        return found

    known = keys(values_schema.schema())
    for leaf in leaves(VALUES):
        assert any(leaf == one or leaf.startswith(f"{one}.") or one.startswith(f"{leaf}.") for one in known), leaf
    optional = re.compile(r"parameters\.|test\.parameters\.|workflow\.ttl\.|roles\.\w+\.|\S*\.(requests|limits)")
    for one in known:
        assert optional.match(one) or any(leaf == one or leaf.startswith(f"{one}.") for leaf in leaves(VALUES)), one


def test_the_schema_has_every_parameter_but_the_store():
    assert set(values_schema.schema()["properties"]["parameters"]["properties"]) == set(BY_NAME) - {
        "store",
        "cvat-subject",
        "cvat-grant",
    }


def test_the_chart_takes_every_default_of_a_parameter():
    without_bridge = {one.name for name, taken in TEMPLATES.items() if name not in BRIDGE_TEMPLATES for one in taken}
    defaults = {name: BY_NAME[name].default for name in without_bridge if BY_NAME[name].default and name != "store"}
    release = rendered({"parameters": {name: {"default": default} for name, default in defaults.items()}})
    for name, default in defaults.items():
        template = next(one for one, taken in TEMPLATES.items() if BY_NAME[name] in taken)
        assert release.parameter(name, template)["value"] == default


def test_the_version_is_that_of_the_images():
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == VERSION
    assert about["apiVersion"] == "v2"
    named = {one["image"] for one in yaml.safe_load(about["annotations"]["artifacthub.io/images"])}
    example = yaml.safe_load((CHART / "ci" / "bridge-values.yaml").read_text())
    assert named == {step["container"]["image"] for _, step in rendered(example).steps()}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_installs(path: Path):
    values = yaml.safe_load(path.read_text())
    release = rendered(values)
    assert len(release.templates) == (6 if "cvatBridge" in values else 4)
    assert release.settings["store"].startswith(f"s3://{values['store']['bucket']}")


def test_helm_finds_nothing_to_complain_about():
    command = [helm(), "lint", str(CHART), "--strict", "--kube-version", KUBERNETES]
    for path in EXAMPLES:
        result = subprocess.run(
            [*command, "--set", "argo.required=false", "--values", path],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        assert "[ERROR]" not in result.stdout
        assert "[WARNING]" not in result.stdout


def test_a_packed_chart_has_the_templates_in_it(tmp_path: Path):
    subprocess.run([helm(), "package", CHART, "--destination", tmp_path], check=True, capture_output=True, timeout=60)
    (packed,) = tmp_path.glob("*.tgz")
    command = [helm(), "template", "release", packed, "--kube-version", KUBERNETES]
    command += ["--set", "store.bucket=parts", "--set", "argo.required=false"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.count("kind: WorkflowTemplate") == 4


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """The notes for some values. Helm shows them only in a cluster; a copy of the chart has them as YAML."""
    copied = shutil.copytree(CHART, tmp_path / "chart")
    (copied / "templates" / "NOTES.txt").rename(copied / "files" / "notes.txt")
    (copied / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "files/notes.txt") . | toJson }}')

    def of(values: dict[str, Any]) -> str:
        command = [helm(), "template", "release", copied, "--namespace", "ns", "--kube-version", KUBERNETES]
        command += ["--show-only", "templates/notes.yaml", "--values", "-"]
        given = json.dumps({"argo": {"required": False}, **values})
        result = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60)
        return yaml.safe_load(result.stdout)["notes"]

    return of


def test_the_notes_begin_with_what_to_do_next(notes: Callable[[dict[str, Any]], str]):
    text = notes({"nodePools": [{"name": "t4", "labelValue": "x"}], "store": {"bucket": "parts", "prefix": "team"}})
    commands = [line.strip() for line in text.splitlines() if line.startswith("     ")]
    assert commands[0] == "detr-workflows preflight --namespace ns"
    assert commands[1].startswith("helm test release --namespace ns")
    assert "detr-workflows submit detr-train --namespace ns --watch" in text
    assert "-p cvat-annotation-path=uploads/parts.zip -p sys-node-pool=t4" in text
    assert "s3://parts/team/uploads/parts.zip" in text
    assert "WARNING" not in text


def test_the_notes_warn_of_keys_in_values_and_do_not_show_them(notes: Callable[[dict[str, Any]], str]):
    keys = {"accessKeyId": "AKIATRIAL", "secretAccessKey": "very-secret"}
    text = notes({"store": {"bucket": "parts", "trialCredentials": keys}})
    assert "WARNING: secrets came from values." in text
    assert "very-secret" not in text


def test_the_notes_tell_how_the_button_comes_into_cvat(notes: Callable[[dict[str, Any]], str]):
    cvat = {"url": "http://cvat-backend-service.cvat:8080", "publicOrigin": "https://cvat.example.org"}
    beside = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cvat"}}}
    models = {"enabled": True, "allowFrom": beside}
    bridge = {"enabled": True, "cvat": cvat, "nginx": {"namespace": "cvat"}, "models": models}
    text = notes({"store": {"bucket": "parts"}, "cvatBridge": bridge})
    assert "kubectl create secret generic detr-workflows-cvat --namespace ns" in text
    start = text.index("     cvat:\n")
    values = yaml.safe_load(text[start : text.index("\n\n", start)])
    (volume,) = values["cvat"]["frontend"]["additionalVolumes"]
    (mount,) = values["cvat"]["frontend"]["additionalVolumeMounts"]
    assert volume == {"name": mount["name"], "configMap": {"name": "detr-workflows-cvat-nginx"}}
    assert (mount["mountPath"], mount["subPath"]) == (
        "/etc/nginx/conf.d/training-bridge.conf",
        "training-bridge.conf",
    )
    assert "kubectl get configmap detr-workflows-cvat-nginx --namespace cvat" in text
    assert "https://cvat.example.org/training-bridge/?task=1." in text
    assert "CVAT_NUCLIO_HOST=detr-workflows-models.ns.svc.cluster.local" in text
    assert "WARNING" not in text
    without = notes({"store": {"bucket": "parts"}, "cvatBridge": {**bridge, "enabled": False}})
    assert "CVAT's" not in without
    trial = {"accessToken": "abc.def", "signingKey": "not-to-be-shown-here"}
    text = notes({"store": {"bucket": "parts"}, "cvatBridge": {**bridge, "trialSecret": trial}})
    assert "WARNING: secrets came from values." in text
    assert "not-to-be-shown-here" not in text


def test_the_notes_say_which_weights_are_brought_and_how_the_others_are(notes: Callable[[dict[str, Any]], str]):
    store = {"store": {"bucket": "parts"}}
    text = notes(store)
    assert "does not name rf-detr-small, d-fine-nano," in text
    assert 'detr-workflows submit detr-weights --namespace ns -p weights="rf-detr-small d-fine-nano"' in text
    text = notes({**store, "weights": {"pull": ["d-fine-nano"]}})
    assert "the workflow detr-workflows-weights brings d-fine-nano into the store" in text
    assert "kubectl get workflow detr-workflows-weights --namespace ns" in text
    assert 'submit detr-weights --namespace ns -p weights="rf-detr-small"' in text
    text = notes({**store, "weights": {"pull": ["rf-detr-small", "d-fine-nano"]}})
    assert "submit detr-weights" not in text
    chosen = {"parameters": {"weights": {"default": "rf-detr-large, d-fine-small"}}}
    assert 'weights="rf-detr-large d-fine-small"' in notes({**store, **chosen})


PAGE = Path(__file__).parents[2] / "docs" / "chart.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_page_is_a_values_file_that_installs(number: int):
    values = yaml.safe_load(BLOCKS[number])
    assert values["store"]["bucket"] == "parts"
    assert len(rendered(values).templates) == (6 if "cvatBridge" in values else 4)


def test_the_page_has_a_block_for_every_task():
    assert len(BLOCKS) >= 9
