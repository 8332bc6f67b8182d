"""Presets, files and overrides become one checked configuration, or one sentence that says what is wrong."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_config.errors import ConfigError
from run_config.families.detr import DetrModel
from run_config.families.registry import FAMILIES
from run_config.families.tiny import TinyModel
from run_config.job.config import JobConfig
from run_config.job.keys import keys, value_of
from run_config.job.preset_files import preset_names
from run_config.job.presets import checked, config_keys, is_chosen, load_job_config


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def complaint(*arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_job_config(*arguments)
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_every_preset_loads_and_is_what_its_name_says():
    loaded = {name: load_job_config(name).model for name in preset_names()}
    ours = {name for name, model in loaded.items() if isinstance(model, DetrModel | TinyModel)}
    assert ours == {"detr-r50", "detr-r50-dc5", "detr-r101", "detr-r101-dc5", "detr-r18", "tiny"}
    assert isinstance(loaded["tiny"], TinyModel)
    for name, model in loaded.items():
        if isinstance(model, DetrModel):
            assert model.backbone == f"resnet{name.split('-')[1][1:]}"
            assert model.dilation == name.endswith("dc5")


def test_the_published_schedule_and_rates_are_the_default():
    config = load_job_config("detr-r50")
    assert (config.optimizer.lr, config.optimizer.lr_backbone, config.optimizer.weight_decay) == (1e-4, 1e-5, 1e-4)
    assert config.optimizer.decay_vectors
    assert config.optimizer.clip_norm == 0.1
    assert (config.schedule.epochs, config.schedule.kind) == (300, "step")
    assert config.schedule.drop_at == (200 / 300,)
    assert (config.loss.classification, config.loss.bbox, config.loss.giou, config.loss.no_object) == (1, 5, 2, 0.1)
    assert (config.loss.cost_class, config.loss.cost_bbox, config.loss.cost_giou) == (1, 5, 2)
    assert config.data.min_sizes == tuple(range(480, 801, 32))
    assert (config.data.max_size, config.data.eval_size) == (1333, 800)


# What people who train DETR turn, each with a value other than its default
TURNED = {
    "optimizer.lr": ("3e-4", 3e-4),
    "optimizer.lr_backbone": ("0", 0),
    "schedule.kind": ("constant", "constant"),
    "schedule.drop_at": ("[0.5, 0.75]", (0.5, 0.75)),
    "schedule.drop_factor": ("0.5", 0.5),
    "schedule.warmup": ("0.05", 0.05),
    "schedule.final_lr": ("0.1", 0.1),
    "optimizer.weight_decay": ("0.05", 0.05),
    "optimizer.decay_vectors": ("false", False),
    "optimizer.betas": ("[0.8, 0.95]", (0.8, 0.95)),
    "optimizer.clip_norm": ("0.5", 0.5),
    "data.batch_size": ("6", 6),
    "data.accumulate": ("4", 4),
    "data.workers": ("3", 3),
    "schedule.epochs": ("12", 12),
    "schedule.steps": ("900", 900),
    "schedule.minutes": ("1.5", 1.5),
    "data.min_sizes": ("[320, 352]", (320, 352)),
    "data.max_size": ("640", 640),
    "data.eval_size": ("352", 352),
    "data.augmentation.recipe": ("none", "none"),
    "data.augmentation.flip": ("0", 0),
    "data.augmentation.crop": ("1", 1),
    "model.queries": ("300", 300),
    "model.encoder_layers": ("3", 3),
    "model.decoder_layers": ("2", 2),
    "model.dropout": ("0", 0),
    "model.pre_norm": ("true", True),
    "loss.classification": ("2", 2),
    "loss.bbox": ("4", 4),
    "loss.giou": ("1", 1),
    "loss.no_object": ("0.2", 0.2),
    "loss.cost_class": ("2", 2),
    "training.ema_decay": ("0.999", 0.999),
    "training.precision": ("fp32", "fp32"),
    "training.seed": ("7", 7),
    "training.log_interval": ("5", 5),
    "evaluation.patience": ("3", 3),
    "evaluation.min_delta": ("0.01", 0.01),
    "evaluation.interval": ("50", 50),
    "evaluation.batch_size": ("2", 2),
    "checkpoints.interval": ("25", 25),
    "checkpoints.keep": ("5", 5),
}


@pytest.mark.parametrize("key", TURNED)
def test_what_the_authors_turn_can_be_turned(key: str):
    text, wanted = TURNED[key]
    assert value_of(load_job_config("detr-r50"), key) != wanted
    turned = load_job_config("detr-r50", [f"{key}={text}"])
    assert value_of(turned, key) == wanted
    others = {each.name for each in keys() if each.family in ("", "detr")} - {key}
    if key.startswith("schedule."):
        others -= {"schedule.epochs", "schedule.steps", "schedule.minutes"}
    before = load_job_config("detr-r50")
    assert all(value_of(turned, each) == value_of(before, each) for each in others)


def test_an_override_wins_over_the_file_and_the_file_over_its_base(tmp_path):
    write(tmp_path, "lower.yaml", "base: detr-r18\noptimizer: {lr: 2e-4, lr_backbone: 3e-5}\ndata: {batch_size: 3}\n")
    upper = write(tmp_path, "upper.yaml", "base: lower.yaml\noptimizer: {lr: 5e-4}\n")
    config = load_job_config(upper, ["data.batch_size=9"])
    assert config.model.backbone == "resnet18"  # type: ignore[union-attr]
    assert (config.optimizer.lr, config.optimizer.lr_backbone, config.data.batch_size) == (5e-4, 3e-5, 9)


def test_a_file_without_a_base_starts_from_the_defaults(tmp_path):
    path = write(tmp_path, "mine.yml", "model: {queries: 50}\n")
    assert load_job_config(path).model == DetrModel(queries=50)
    assert load_job_config(write(tmp_path, "empty.yaml", "# nothing\n")) == JobConfig()


def test_an_empty_section_changes_nothing(tmp_path):
    path = write(tmp_path, "mine.yaml", "base: tiny\nmodel:\noptimizer:\n")
    assert load_job_config(path) == load_job_config("tiny")


def test_another_family_takes_none_of_the_keys_of_the_base(tmp_path):
    path = write(tmp_path, "mine.yaml", "base: detr-r50-dc5\nmodel: {family: tiny, queries: 80}\n")
    assert load_job_config(path).model == TinyModel(queries=80)


@pytest.mark.parametrize(
    ("overrides", "length"),
    [
        (["schedule.steps=10"], {"steps": 10}),
        (["schedule.epochs=2", "schedule.minutes=3"], {"minutes": 3}),
        (["schedule={epochs: 4}"], {"epochs": 4}),
    ],
)
def test_one_length_of_a_run_replaces_another(overrides: list[str], length: dict[str, float]):
    schedule = load_job_config("tiny", overrides).schedule
    assert {key: value for key in ("epochs", "steps", "minutes") if (value := getattr(schedule, key))} == length
    assert schedule.kind == "cosine"


def test_two_lengths_in_one_file_are_refused(tmp_path):
    path = write(tmp_path, "mine.yaml", "schedule: {epochs: 3, minutes: 4}\n")
    assert "set exactly one of epochs, steps and minutes" in complaint(path)
    assert "set exactly one of epochs, steps and minutes" in complaint("tiny", ["schedule.minutes=null"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.learning=1", "unknown key optimizer.learning"),
        ("optimizer.lr_backbon=1", "unknown key optimizer.lr_backbon; did you mean optimizer.lr_backbone?"),
        ("lr=1e-3", "unknown key lr; did you mean optimizer.lr?"),
        ("epochs=5", "unknown key epochs; did you mean schedule.epochs?"),
        ("model.prior_box=0.1", "model.prior_box belongs to models of the family tiny, and this one is detr"),
        ("data.augmentation.flop=1", "did you mean data.augmentation.flip?"),
        ("x=1", "unknown key x; see docs/configuration.md"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, not 'fast'"),
        ("optimizer.lr=0", "optimizer.lr must be above 0, not 0"),
        ("optimizer.lr=true", "optimizer: lr must not be true or false"),
        ("optimizer.lr=", "optimizer.lr must be a number, not empty"),
        ("optimizer.lr=.inf", "optimizer.lr must be a finite number, not inf"),
        ("optimizer.lr.x=1", "optimizer.lr must be a number, not {'x': 1}"),
        ("optimizer.betas=[0.9]", "optimizer.betas has too few items: [0.9]"),
        ("optimizer.betas=[0.9, 0.99, 1]", "optimizer.betas must be a list of 2, not"),
        ("optimizer.betas=[0.9, 1]", "optimizer.betas must be below 1, not 1"),
        ("optimizer=3", "optimizer must be a group of keys, not 3"),
        ("data.batch_size=2.5", "data.batch_size must be a whole number, not 2.5"),
        ("data.batch_size=on", "data: batch_size must not be true or false"),
        ("data.workers=many", "data.workers must be 'auto' or a whole number, not 'many'"),
        ("data.cache=perhaps", "data.cache must be true or false, not 'perhaps'"),
        ("data.min_sizes=[]", "data.min_sizes must be a list of 1 or more, not []"),
        ("data.min_sizes=[400, 0]", "data.min_sizes must be above 0, not 0"),
        ("data.min_sizes=400", "data.min_sizes must be a list, such as [1, 2], not 400"),
        ("data.augmentation.scale=[2, 1]", "scale must be two numbers, 0.01 <= low <= high <= 10, not 2.0, 1.0"),
        ("schedule.kind=linear", "schedule.kind must be 'step', 'cosine' or 'constant', not 'linear'"),
        ("model.family=yolo", f"model.family must be {', '.join(map(repr, FAMILIES))}, not 'yolo'"),
        ("model.heads=7", "hidden_dim 256 must be a multiple of 2 x heads (7)"),
        ("training.seed=" + "9" * 5000, "is not valid YAML"),
        ("optimizer.lr=[1", "is not valid YAML"),
        ("optimizer.lr=2020-13-45", "is not valid YAML"),
        ("no-equals-sign", "override 'no-equals-sign' is not of the form key=value"),
        ("=3", "override '=3' is not of the form key=value"),
    ],
)
def test_a_wrong_override_gets_one_sentence_without_the_librarys_jargon(override: str, said: str):
    text = complaint("detr-r50", [override])
    assert said in text
    assert len(text) < 400 or "9999" in text
    assert not any(
        word in text.lower() for word in ("pydantic", "input should", "literal[", "constrained", "validation")
    )


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("TINY", "", "did you mean tiny?"),
        ("tiny", "schedul=1", "unknown key schedul; did you mean schedule?"),
        ("tiny", "training.seed=9999999999", "training.seed must be below 2147483648, not 9999999999"),
    ],
)
def test_near_names_and_bounds_are_said_in_full(name: str, override: str, said: str):
    assert said in complaint(name, [override] if override else [])


def test_dotted_keys_of_a_file_are_shown_nested(tmp_path: Path):
    path = write(tmp_path, "mine.yaml", "base: tiny\nschedule.steps: 2\n")
    assert "schedule.steps is one word: in a file write `schedule: {steps: …}`" in complaint(path)


def test_several_mistakes_are_said_at_once():
    text = complaint("detr-r50", ["optimizer.lr=fast", "data.batch_size=0", "model.nope=1"])
    assert text.count(";") == 3
    assert "optimizer.lr must be" in text
    assert "data.batch_size must be" in text
    assert "unknown key model.nope" in text


def test_resnet18_has_no_dilated_form():
    assert "dilation needs a backbone with bottleneck blocks" in complaint("detr-r18", ["model.dilation=true"])


def test_learned_positions_must_reach_to_the_end_of_the_image():
    assert load_job_config("detr-r50", ["model.position_embedding=learned"])
    said = complaint("detr-r50-dc5", ["model.position_embedding=learned"])
    assert "set data.max_size to 800 or less" in said


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.e-5", 2e-5), ("5e-3", 0.005)])
def test_numbers_with_an_exponent_are_numbers_in_files_and_overrides(tmp_path, text: str, value: float):
    assert load_job_config("detr-r50", [f"optimizer.lr={text}"]).optimizer.lr == value
    path = write(tmp_path, "mine.yaml", f"optimizer: {{lr: {text}}}")
    assert load_job_config(path).optimizer.lr == value


@pytest.mark.parametrize(
    ("text", "seed"), [("010", 10), ("+010", 10), ("0", 0), ("007", 7), ("08", 8), ("1_000", 1000)]
)
def test_a_whole_number_with_leading_zeros_is_decimal(tmp_path, text: str, seed: int):
    assert load_job_config("tiny", [f"training.seed={text}"]).training.seed == seed
    assert load_job_config(write(tmp_path, "mine.yaml", f"training: {{seed: {text}}}")).training.seed == seed
    assert load_job_config("tiny", [f"data.min_sizes=[{text},64]"] if seed else []).data.min_sizes[0] in (seed, 240)


@pytest.mark.parametrize("text", ["1:30", "1:30.5", "190:20:30"])
def test_a_time_is_not_a_number(text: str):
    assert f"schedule.minutes must be a number, not '{text}'" in complaint("tiny", [f"schedule.minutes={text}"])


def test_a_text_that_only_looks_like_a_number_stays_text():
    assert load_job_config("detr-r50", ["model.backbone_weights=nan"]).model.backbone_weights == "nan"  # type: ignore[union-attr]
    assert "model.backbone_weights must be text, not 7" in complaint("detr-r50", ["model.backbone_weights=007"])


def test_a_text_may_be_empty():
    assert load_job_config("detr-r50", ["model.backbone_weights="]).model.backbone_weights == ""  # type: ignore[union-attr]


# Names and files ----------------------------------------------------------------------------------


def test_an_unknown_preset_is_refused_with_the_nearest_known_one():
    assert "there is no preset 'detr-r5'; did you mean detr-r50?" in complaint("detr-r5")
    assert "tiny" in complaint("yolo")


def test_files_that_are_not_there_or_not_readable_are_named(tmp_path):
    assert "does not exist" in complaint(str(tmp_path / "none.yaml"))
    assert "does not exist" in complaint("a\x00b.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"model: {family: \xe9}")
    assert "cannot be read" in complaint(str(path))
    large = write(tmp_path, "large.yaml", "#" * 1_000_001)
    assert "larger than 1000000 bytes" in complaint(large)
    assert "must be a mapping of keys to values, not a list" in complaint(write(tmp_path, "list.yaml", "- 1\n- 2\n"))
    assert "base must be the name" in complaint(write(tmp_path, "base.yaml", "base: [tiny]\n"))
    said = complaint(write(tmp_path, "far.yaml", "base: other.yaml\n"))
    assert "far.yaml: base: configuration file" in said
    assert "did you mean tiny?" in complaint(write(tmp_path, "typo.yaml", "base: tinny\n"))


@pytest.mark.parametrize("base", ["one.yaml", "./one.yaml", "sub/../one.yaml"])
def test_a_file_cannot_be_its_own_base(tmp_path, base: str):
    (tmp_path / "sub").mkdir()
    one = write(tmp_path, "one.yaml", f"base: {base}\n")
    assert "is its own base" in complaint(one)
    write(tmp_path, "two.yaml", "base: one.yaml\n")
    write(tmp_path, "one.yaml", "base: sub/../two.yaml\n")
    assert "is its own base" in complaint(one)


def test_a_base_is_found_beside_the_file_that_names_it(tmp_path, monkeypatch):
    write(tmp_path, "other/common.yaml", "base: tiny\ndata: {batch_size: 5}\n")
    path = write(tmp_path, "runs/mine.yaml", "base: ../other/common.yaml\n")
    monkeypatch.chdir(tmp_path / "other")
    assert load_job_config(path).data.batch_size == 5


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "anchors and aliases are not supported in line 1"),
        ("model: &m {family: *m}\n", "anchors and aliases are not supported"),
        ("data: {batch_size: 1}\nloss: {}\ndata: {cache: true}\n", "data is given twice in line 3"),
        ("model: !!python/object/apply:os.system ['touch exploded']\n", "could not determine a constructor"),
        ("model: !!python/name:os.system\n", "could not determine a constructor"),
        ("!!python/object/new:os.system [touch exploded]\n", "could not determine a constructor"),
        ("model: {family: tiny}\n---\nmodel: {}\n", "is not valid YAML"),
        ("model:\n\tfamily: tiny\n", "in line 2"),
        ("[" * 100_000, "nested too deeply"),
        ("data: {batch_size: !!int no}\n", "is not valid YAML"),
        ("? [1, 2]\n: 3\n", "is not valid YAML"),
        ("\x07", "is not valid YAML"),
    ],
)
def test_hostile_yaml_is_refused_in_words_and_does_nothing(tmp_path, monkeypatch, text: str, said: str):
    monkeypatch.chdir(tmp_path)
    assert said in complaint(write(tmp_path, "hostile.yaml", text))
    assert not (tmp_path / "exploded").exists()


@given(st.text(max_size=60))
def test_any_text_as_a_value_is_taken_or_refused_as_a_wrong_configuration(text: str):
    for key in ("optimizer.lr", "model", "data.min_sizes", "model.backbone_weights"):
        with contextlib.suppress(ConfigError):
            load_job_config("detr-r50", [f"{key}={text}"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=5) | st.sampled_from(["model", "family", "lr", "optimizer"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_any_tree_is_taken_or_refused_as_a_wrong_configuration(value: object):
    for tree in ({"model": value}, {"data": value}, {"schedule": value}, {"schedule": {"epochs": value}}):
        with contextlib.suppress(ConfigError):
            checked(tree, "tree")


# What it costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["parameters", "job.presets", "command_line", "job.reference"])
def test_importing_the_configuration_brings_nothing_heavy(module: str):
    heavy = ("torch", "torchvision", "numpy", "PIL", "scipy", "boto3", "hera")
    code = f"import sys, run_config.{module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parameters_do_not_even_need_pydantic():
    code = "import sys, run_config.parameters; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_config_keys_are_all_that_a_file_may_set():
    for key in keys():
        value_of(checked({"model": {"family": key.family or "detr"}}, "test"), key.name)
    assert set(config_keys()) == {key.name for key in keys()}
    assert "model.prior_box" in config_keys()
    assert "model.dilation" in config_keys()


@pytest.mark.parametrize(
    ("text", "overrides", "chosen"),
    [
        (None, [], False),
        (None, ["data.workers=2"], False),
        (None, ["data.batch_size=4"], True),
        (None, ["data={batch_size: 4}"], True),
        ("base: tiny\ndata: {workers: 2}\n", [], False),
        ("base: tiny\ndata: {batch_size: 4}\n", [], True),
    ],
)
def test_what_a_person_chose_is_told_from_a_presets_value(
    tmp_path, text: str | None, overrides: list[str], chosen: bool
):
    name = "tiny" if text is None else write(tmp_path, "mine.yaml", text)
    assert is_chosen("data.batch_size", name, overrides) is chosen
    upper = write(tmp_path, "upper.yaml", f"base: {name}\n")
    assert is_chosen("data.batch_size", upper, overrides) is chosen


@pytest.mark.parametrize("kind", [("classification", "bbox", "giou"), ("cost_class", "cost_bbox", "cost_giou")])
def test_a_loss_from_which_nothing_can_be_learnt_is_refused(kind: tuple[str, ...]):
    with pytest.raises(ConfigError, match="cannot all be 0: nothing would be learnt"):
        load_job_config("tiny", [f"loss.{name}=0" for name in kind])
