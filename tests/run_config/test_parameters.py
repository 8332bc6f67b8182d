"""What a person may set, and what is said when it is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_config.errors import ConfigError
from run_config.job.keys import value_of
from run_config.job.preset_files import preset_names
from run_config.job.presets import config_keys, load_job_config
from run_config.locations import key_below_store, local_path, resolve, store_url
from run_config.parameter_forms import form_json, markdown
from run_config.parameters import (
    BRIDGE_TEMPLATES,
    BY_NAME,
    PARAMETERS,
    TEMPLATES,
    WEIGHTS_TEMPLATE,
    Parameter,
    Role,
    Type,
    Visibility,
    lines,
    overrides_of,
    parse,
    parse_value,
    split_overrides,
)

GIVEN = {"cvat-annotation-path": "annotation-dump/cells", "store": "s3://bucket/project"}
DOCS = Path(__file__).parents[2] / "docs"


def test_defaults_fill_in_what_is_not_given():
    values = parse(GIVEN)
    assert list(values) == [parameter.name for parameter in PARAMETERS]
    assert values["model"] == values["cvat-finetune-checkpoint"] == "auto"
    assert values["device"] == "cuda"
    assert values["val-fraction"] == 0.15
    assert values["seed"] == 42
    assert values["epochs"] is None
    assert values["cvat-output-path"] == "workflow-data/output"


def test_every_default_passes_its_own_check():
    for parameter in BY_NAME.values():
        if parameter.default is not None:
            parse_value(parameter, parameter.default)


def test_the_models_on_offer_are_the_presets():
    assert sorted(BY_NAME["model"].choices) == sorted(("auto", *preset_names()))


SETTING = [one for one in BY_NAME.values() if one.sets]


@pytest.mark.parametrize("parameter", SETTING, ids=lambda one: one.name)
def test_a_parameter_sets_a_key_that_takes_every_value_of_it(parameter: Parameter):
    assert parameter.sets in config_keys()
    limits = parameter.limits
    texts = [*parameter.choices, *([parameter.default] if parameter.default else [])]
    texts += [f"{bound:.17g}" for bound in (limits.minimum, limits.maximum) if bound is not None]
    if limits.above_minimum:
        texts.remove(f"{limits.minimum:.17g}")
    assert texts
    for text in texts:
        value = parse_value(parameter, text)
        config = load_job_config("detr-r50", overrides_of({parameter.name: text}))
        assert value_of(config, parameter.sets) == value
        assert isinstance(value_of(config, parameter.sets), type(value))


def test_two_parameters_never_set_the_same_key():
    assert len({one.sets for one in SETTING}) == len(SETTING)


def made_up(**fields: Any) -> Parameter:
    return Parameter(name="made-up", title="", help="", group="", **fields)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (made_up(type=Type.NUMBER, sets="optimizer.weight_decay"), "from 0 to 1"),
        (made_up(type=Type.NUMBER, sets="optimizer.lr"), "above 0 and at most 1"),
        (made_up(type=Type.NUMBER, sets="optimizer.lr", minimum=0.001), "from 0.001 to 1"),
        (made_up(type=Type.NUMBER, sets="training.ema_decay", maximum=0.999), "from 0 to 0.999"),
        (made_up(type=Type.INTEGER, sets="training.log_interval"), "from 1 to 1000000000"),
        (made_up(type=Type.INTEGER, sets="training.log_interval", maximum=50), "from 1 to 50"),
        (made_up(type=Type.INTEGER, sets="training.seed"), "from 0 to 2147483647"),
        (made_up(type=Type.INTEGER, sets="data.workers"), "from 0 to 64"),
    ],
)
def test_bounds_are_those_of_the_key_unless_the_parameter_has_its_own(parameter: Parameter, words: str):
    assert parameter.limits.words() == words


def test_a_bound_that_a_parameter_cannot_express_wants_a_maximum():
    with pytest.raises(ValueError, match=r"made-up: training.ema_decay must be below 1; give the parameter a maximum"):
        _ = made_up(type=Type.NUMBER, sets="training.ema_decay").limits


def test_what_sets_one_key_comes_before_the_overrides():
    texts = {"epochs": "3", "minutes": "", "overrides": "optimizer.lr=1e-3 schedule.epochs=5", "seed": "7"}
    assert overrides_of(texts) == [
        "schedule.epochs=3",
        "training.seed=7",
        "optimizer.lr=1e-3",
        "schedule.epochs=5",
    ]
    assert overrides_of({}) == []


def test_each_role_belongs_to_one_parameter():
    roles = [parameter.role for parameter in BY_NAME.values() if parameter.role]
    assert sorted(roles) == sorted(Role)


def test_each_template_takes_known_parameters_and_says_where_its_runs_lie():
    assert TEMPLATES["detr-train"] == PARAMETERS
    for name, taken in TEMPLATES.items():
        roles = {parameter.role for parameter in taken}
        assert Role.STORE in roles, name
        assert (Role.OUTPUT in roles) is (name != WEIGHTS_TEMPLATE), name
        names = [one.name for one in taken]
        assert [one for one in BY_NAME if one in names] == names, name
    assert {one.name for taken in TEMPLATES.values() for one in taken} == set(BY_NAME)


def test_the_templates_of_the_bridge_are_those_that_need_its_permission():
    needy = [name for name, taken in TEMPLATES.items() if Role.GRANT in {parameter.role for parameter in taken}]
    assert tuple(needy) == BRIDGE_TEMPLATES
    for name in needy:
        assert Role.SUBJECT in {parameter.role for parameter in TEMPLATES[name]}
    of_cvat = {one.name for one in TEMPLATES["cvat-train"]} - {one.name for one in PARAMETERS}
    assert of_cvat == {"cvat-subject", "cvat-grant"}
    assert {one.name for one in PARAMETERS} - {one.name for one in TEMPLATES["cvat-train"]} == {"cvat-annotation-path"}


@pytest.mark.parametrize("text", ["task:8", "task:8,task:19", "project:3"])
def test_a_run_is_about_tasks_or_a_project(text: str):
    assert parse_value(BY_NAME["cvat-subject"], text) == text


@pytest.mark.parametrize("text", ["8", "task:0", "task:8,project:3", "project:3,project:4", "task:8,", "tasks:8"])
def test_what_is_no_subject_is_refused(text: str):
    said = refused(BY_NAME["cvat-subject"], text)
    assert said == (
        f"cvat-subject must be tasks or one project of CVAT, such as task:8,task:9 or project:3, not {text!r}."
    )


def test_a_missing_permission_says_where_it_comes_from():
    said = refused(BY_NAME["cvat-grant"], "")
    assert said == "cvat-grant is missing: the permission from the form in CVAT; start the run from CVAT."


@pytest.mark.parametrize("text", ["d-fine-nano", "rf-detr-small,d-fine-nano", "rf-detr-small\nd-fine-nano"])
def test_weights_are_names_of_the_catalogue(text: str):
    assert parse_value(BY_NAME["weights"], text) == text
    said = refused(BY_NAME["weights"], f"{text} rf-detr-smal")
    assert said.startswith(
        "weights: there are no published weights named 'rf-detr-smal' in the catalogue; did you mean"
    )


def test_a_template_takes_its_own_parameters_alone():
    values = parse(
        {"trained-model": "runs/a/model", "prepared-set": "0123456789abcdef", "store": "s3://bucket"},
        TEMPLATES["detr-evaluate"],
    )
    assert values["split"] == "test"
    assert values["gpu-count"] == 1
    with pytest.raises(ConfigError, match="'epochs' is not a parameter"):
        parse({"epochs": "3"}, TEMPLATES["detr-evaluate"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("epochs", "ten", "epochs must be a whole number from 1 to 10000, not 'ten'."),
        ("epochs", "0", "epochs must be a whole number from 1 to 10000, not '0'."),
        ("epochs", "1_000", "epochs must be a whole number from 1 to 10000, not '1_000'."),
        ("epochs", "2.5", "epochs must be a whole number from 1 to 10000, not '2.5'."),
        ("epochs", "\u0661", "epochs must be a whole number from 1 to 10000, not '\u0661'."),
        ("epochs", "9" * 5000, "epochs must be a whole number from 1 to 10000, not '999"),
        ("batch-size", "-1", "batch-size must be a whole number from 1 to 1024, not '-1'."),
        ("minutes", "0", "minutes must be a number above 0 and at most 10080, not '0'."),
        ("minutes", "nan", "minutes must be a number above 0 and at most 10080, not 'nan'."),
        ("learning-rate", "1e999", "learning-rate must be a number above 0 and at most 1, not '1e999'."),
        ("val-fraction", "0.95", "val-fraction must be a number from 0 to 0.9, not '0.95'."),
        ("val-fraction", "", "val-fraction is missing: a number from 0 to 0.9."),
        ("model", "detr-50", "Did you mean detr-r50?"),
        ("model", "yolo", "model must be one of auto, detr-r50, detr-r50-dc5"),
        ("device", "gpu", "device must be one of cuda, auto, cpu, not 'gpu'."),
        ("device", "box.yaml", "device must be one of cuda, auto, cpu, not 'box.yaml'."),
        ("cvat-annotation-path", " ", "cvat-annotation-path is missing: an s3:// or file:// URL, or a key"),
        ("cvat-annotation-path", "a\n../b", "cvat-annotation-path: '../b' must be a key below the store"),
        ("cvat-annotation-path", "gs://b/x", "cvat-annotation-path: 'gs://b/x': the scheme must be one of"),
        ("cvat-finetune-checkpoint", "a\nb", "cvat-finetune-checkpoint: 'a\\nb' has more than one line"),
        ("cvat-output-path", "/abs", "cvat-output-path: '/abs' must be a key below the store"),
        ("cvat-output-path", "a/../b", "cvat-output-path: 'a/../b' must be a key below the store"),
        ("cvat-output-path", "a/", "cvat-output-path: 'a/' must not end with a slash."),
        ("cvat-output-path", "weights/x", "cvat-output-path: 'weights/x': only `detr-workflows weights` and the"),
        ("cvat-output-path", "{{workflow.name}}", "cvat-output-path: a value must not contain '{{'."),
        ("overrides", "seed=1\x00", "overrides: 'seed=1\\x00' has a control character"),
        ("store", "bucket", "store must be s3://bucket/prefix or file:///folder, not 'bucket'."),
        ("store", "s3://", "store: 's3://' names no bucket"),
    ],
)
def test_a_wrong_value_gets_one_sentence_that_names_the_parameter(name: str, text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse(GIVEN | {name: text})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def refused(parameter: Parameter, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_value(parameter, text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["GPU", "gpu_a", "-gpu", "gpu-", "a b", "a" * 64, "gpu\n- x", "{a: b}", "gpu'"])
def test_a_pool_is_named_as_the_chart_lets_it(text: str):
    assert "sys-node-pool must be the name of a node pool" in refused(BY_NAME["sys-node-pool"], text)
    assert parse_value(BY_NAME["sys-node-pool"], "gpu-a") == "gpu-a"


@pytest.mark.parametrize("text", ["17", "-1", "1.5", "one", "1\nhostNetwork: true"])
def test_the_count_of_gpus_is_a_number(text: str):
    assert "gpu-count must be a whole number from 0 to 16" in refused(BY_NAME["gpu-count"], text)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("prepared-set", "latest", "prepared-set must be the id of a prepared set, not 'latest'."),
        ("prepared-set", "", "prepared-set is missing: the id of a prepared set."),
        ("split", "train", "split must be one of test, val, not 'train'."),
        ("trained-model", "", "trained-model is missing: an s3:// or file:// URL, or a key below the store."),
        ("trained-model", "a\nb", "trained-model: 'a\\nb' has more than one line; give one."),
    ],
)
def test_a_wrong_value_of_evaluate_names_its_parameter(name: str, text: str, said: str):
    assert refused(BY_NAME[name], text) == said


def test_every_mistake_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        parse({"store": "s3://bucket", "epochs": "many", "modle": "tiny"})
    assert str(caught.value).splitlines() == [
        "'modle' is not a parameter; did you mean model?",
        "cvat-annotation-path is missing: an s3:// or file:// URL, or a key below the store.",
        "epochs must be a whole number from 1 to 10000, not 'many'.",
    ]


def test_two_lengths_of_training_contradict_each_other():
    with pytest.raises(ConfigError, match=r"epochs and minutes: set one of them and leave"):
        parse(GIVEN | {"epochs": "3", "minutes": "10"})


@pytest.mark.parametrize(
    "override",
    [
        "schedule.epochs=50",
        "schedule.steps=9",
        "optimizer.lr=0.5 schedule.minutes=2",
        "'schedule={warmup_steps: 9, minutes: 2}'",
    ],
)
def test_a_length_in_the_overrides_contradicts_one_in_the_parameters(override: str):
    parse(GIVEN | {"overrides": override})
    for name in ("epochs", "minutes"):
        with pytest.raises(ConfigError, match=f"{name} and overrides: 'schedule.* sets the length of training too"):
            parse(GIVEN | {name: "3", "overrides": override})


def test_the_help_names_the_minutes_of_the_small_model():
    assert f"{load_job_config('tiny').schedule.minutes:g} for `tiny`" in BY_NAME["minutes"].help


def test_several_datasets_come_one_a_line():
    values = parse(GIVEN | {"cvat-annotation-path": " s3://a/one.zip\r\n\r\n  dumps/two \n"})
    assert lines(values["cvat-annotation-path"]) == ("s3://a/one.zip", "dumps/two")


def test_a_model_may_be_a_configuration_file():
    assert parse(GIVEN | {"model": "/configs/mine.yaml"})["model"] == "/configs/mine.yaml"


def test_overrides_keep_quoted_blanks_together():
    assert split_overrides("model.queries=300\n data.min_sizes='[192, 224]' ") == (
        "model.queries=300",
        "data.min_sizes=[192, 224]",
    )


@pytest.mark.parametrize(("text", "said"), [("a='1", "a quote that is not closed"), ("queries 300", "not of the form")])
def test_overrides_that_cannot_be_read_are_refused(text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        split_overrides(text)


@given(st.sampled_from(list(BY_NAME.values())), st.text(max_size=60))
def test_any_text_is_either_taken_or_refused_in_one_sentence(parameter, text: str):
    said = parameter.name
    try:
        value = parse_value(parameter, text)
    except ConfigError as error:
        said, value = str(error), None
    assert said.startswith(parameter.name)
    assert "\n" not in said
    assert value is None or str(value) == str(value).strip() != ""


@given(st.sampled_from([p for p in BY_NAME.values() if p.type in (Type.INTEGER, Type.NUMBER)]), st.data())
def test_numbers_within_their_bounds_are_taken_as_they_are(parameter, data):
    low, high = parameter.limits.minimum, parameter.limits.maximum
    if parameter.type is Type.INTEGER:
        number = data.draw(st.integers(int(low), int(high)))
    else:
        number = data.draw(st.floats(low, high, exclude_min=parameter.limits.above_minimum))
    assert parse_value(parameter, repr(number)) == number


def test_locations_are_urls_paths_or_keys_below_the_store():
    store = "s3://bucket/project"
    assert resolve("s3://other/export.zip", store) == "s3://other/export.zip"
    assert resolve("/data/my export.zip", store) == "file:///data/my%20export.zip"
    assert resolve("annotation-dump/cells/", store) == "s3://bucket/project/annotation-dump/cells"
    assert resolve("my cells", "file:///runs/store") == "file:///runs/store/my%20cells"
    assert local_path("file:///data/my%20export.zip") == Path("/data/my export.zip")
    assert local_path(store) is None


def test_a_plain_path_names_a_store_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert store_url("runs/my store/") == (tmp_path / "runs" / "my store").as_uri()
    assert store_url("s3://bucket/") == "s3://bucket"


@given(st.text(alphabet="ab./", min_size=1, max_size=12))
def test_a_key_never_leaves_the_store(text: str):
    try:
        key = key_below_store(text)
    except ConfigError:
        return
    assert not {"", ".", ".."} & set(key.split("/"))


def test_the_form_holds_what_the_table_holds():
    for taken in TEMPLATES.values():
        fields = json.loads(form_json(taken))["parameters"]
        assert [field["name"] for field in fields] == [parameter.name for parameter in taken]
    form = json.loads(form_json())
    assert form["version"] == 1
    assert [field["name"] for field in form["parameters"]] == [parameter.name for parameter in PARAMETERS]
    store = form["parameters"][-1]
    assert store["visibility"] == Visibility.HIDDEN
    assert store["required"]
    assert "default" not in store
    minutes = next(field for field in form["parameters"] if field["name"] == "minutes")
    assert minutes["exclusiveMinimum"] == 0
    assert minutes["maximum"] == 10_080


def test_the_docs_hold_the_table():
    text = (DOCS / "parameters.md").read_text(encoding="utf-8")
    assert text == markdown(), "run: detr-workflows parameters --markdown > docs/parameters.md"


def test_the_parameters_import_without_heavy_libraries():
    code = (
        "import sys, run_config.parameters\n"
        "print([m for m in ('pydantic', 'yaml', 'typer', 'numpy', 'torch') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
