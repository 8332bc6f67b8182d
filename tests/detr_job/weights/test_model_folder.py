"""The model/ folder: what is written is read back, and what is damaged is named."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors import safe_open

from detr_job.errors import JobError
from detr_job.family import build_family
from detr_job.weights.model_folder import (
    CARD,
    CONFIG,
    WEIGHTS,
    ModelFolderConfig,
    Preprocessing,
    load_model,
    model_card,
    write_model,
)
from evaluation.operating_point import OperatingPoint
from object_store import StoreError
from run_config.errors import ConfigError
from run_config.families.registry import FAMILIES
from tests.detr_job.pictures import small_config

CPU = torch.device("cpu")
CLASSES = ("disc", "square")


def info(family: str = "tiny", classes: tuple[str, ...] = CLASSES, **more: Any) -> ModelFolderConfig:
    config = small_config(family)
    values: dict[str, Any] = {
        "classes": classes,
        "preset": family,
        "job": config.model_dump(mode="json"),
        "preprocessing": Preprocessing(config.data.eval_size, config.data.max_size),
        "prepared_set": "0123abcd",
        "metrics": {"val_ap": 0.512},
    }
    return ModelFolderConfig(**{**values, **more})


def written(folder: Path, family: str = "tiny") -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(1)
    network = build_family(small_config(family), len(CLASSES)).network.to(memory_format=torch.channels_last)
    write_model(folder, network.state_dict(), info(family))
    return folder, network


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_was_written_is_read_back_and_predicts_the_same(tmp_path, family: str):
    folder, network = written(tmp_path / "model", family)
    assert sorted(path.name for path in folder.iterdir()) == sorted((WEIGHTS, CONFIG, CARD))
    model = load_model(str(folder), CPU)
    assert model.config == small_config(family)
    assert model.info == info(family)
    assert not model.family.network.training
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before, after = network.eval()(images), model.family.network(images)
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(before.logits, after.logits)
    with safe_open(folder / WEIGHTS, "pt") as file:
        assert set(file.keys()) == set(network.state_dict())


def edited(folder: Path, **changes: Any) -> None:
    config = msgspec.json.decode((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_bytes(msgspec.json.encode(config | changes))


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("detr", "queries", 10**9),
        ("tiny", "hidden_dim", 4 * 10**8),
        ("detr", "hidden_dim", 2**62),
        ("tiny", "feedforward_dim", 10**9),
        ("detr", "encoder_layers", 10**9),
        ("tiny", "decoder_layers", 10**9),
        ("tiny", "stage_blocks", [1, 1, 1, 10**9]),
    ],
)
def test_a_configuration_does_not_claim_the_machines_memory(tmp_path, family: str, key: str, value: object):
    folder, _ = written(tmp_path / "model", family)
    config = msgspec.json.decode((folder / CONFIG).read_bytes())
    config["job"]["model"][key] = value
    (folder / CONFIG).write_bytes(msgspec.json.encode(config))
    assert CONFIG in complaint(folder)


def complaint(folder: Path) -> str:
    with pytest.raises((JobError, StoreError, ConfigError)) as caught:
        load_model(str(folder), CPU)
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "\n" not in said
    assert "pydantic" not in said
    assert len(said) < 800
    return said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": "1"}',
        b'{"format": 1}',
        b'{"classes": ["a"]}',
        b"\xff\xfe{}",
        b"[" * 100_000,
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, content: bytes):
    folder, _ = written(tmp_path / "model")
    (folder / CONFIG).write_bytes(content)
    assert f"{CONFIG} is not a model's configuration: " in complaint(folder)


def test_a_newer_format_is_said_before_anything_else(tmp_path):
    folder, _ = written(tmp_path / "model")
    (folder / CONFIG).write_bytes(b'{"format": 2, "labels": {}}')
    assert "has format 2, this version reads 1" in complaint(folder)


def test_a_configuration_with_unknown_keys_names_them(tmp_path):
    folder, _ = written(tmp_path / "model")
    job = small_config("tiny").model_dump(mode="json")
    edited(folder, job=job | {"optimizer": {"lr": "fast", "momentum": 1}})
    said = complaint(folder)
    assert "optimizer.lr must be a number, not 'fast'" in said
    assert "unknown key optimizer.momentum" in said
    edited(folder, job={"model": 3})
    assert "model must be a group of keys, not 3" in complaint(folder)


def test_weights_of_other_classes_are_refused(tmp_path):
    folder, _ = written(tmp_path / "model")
    edited(folder, classes=["disc", "square", "triangle"])
    assert f"{WEIGHTS} and {CONFIG} do not belong together: " in complaint(folder)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("classes", [], "classes is empty, or names one twice"),
        ("classes", ["disc", "disc"], "classes is empty, or names one twice"),
        ("classes", ["disc"], "rows, and 1 classes need"),
        ("preprocessing", {"eval_size": 0, "max_size": 96}, "Expected `int` >= 1"),
        ("preprocessing", {"eval_size": 64, "max_size": 96, "std": [0, 0, 0]}, "another mean or std than all models"),
    ],
)
def test_a_configuration_that_was_edited_wrongly_is_refused(tmp_path, key: str, value: object, reason: str):
    folder, _ = written(tmp_path / "model")
    content = msgspec.json.decode((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_bytes(msgspec.json.encode(content | {key: value}))
    with pytest.raises(JobError, match=reason):
        load_model(str(folder), CPU)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder, network = written(tmp_path / "model")
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name][0] = float("nan")
    write_model(folder, weights, info())
    with pytest.raises(JobError, match=f"not finite in {name}"):
        load_model(str(folder), CPU)


def test_a_configuration_of_another_family_is_refused(tmp_path):
    folder, _ = written(tmp_path / "model")
    edited(folder, job=small_config("detr").model_dump(mode="json"))
    assert "do not belong together: Missing key(s) in state_dict: " in complaint(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(tmp_path, name: str):
    folder, _ = written(tmp_path / "model")
    (folder / name).unlink()
    assert name in complaint(folder)


def test_damaged_weights_are_named(tmp_path):
    folder, _ = written(tmp_path / "model")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    assert f"{WEIGHTS} is damaged: " in complaint(folder)


def test_the_folder_of_a_run_will_do(tmp_path):
    written(tmp_path / "run" / "model")
    assert load_model(str(tmp_path / "run"), CPU).description.endswith("/run/model")
    with pytest.raises(JobError, match=rf"there is no model at {tmp_path} \(no config\.json\): give the model/ folder"):
        load_model(str(tmp_path), CPU)


POINT = OperatingPoint(threshold=0.33, classes={"square": 0.4}, split="val", boxes={"disc": 3, "square": 30})


def test_the_operating_point_is_stored_and_read_back(tmp_path):
    network = build_family(small_config("tiny"), len(CLASSES)).network
    write_model(tmp_path, network.state_dict(), info(operating_point=POINT))
    stored = msgspec.json.decode((tmp_path / CONFIG).read_bytes())
    assert stored["operating_point"] == {
        "threshold": 0.33,
        "classes": {"square": 0.4},
        "split": "val",
        "iou": 0.5,
        "boxes": {"disc": 3, "square": 30},
    }
    assert load_model(str(tmp_path), CPU).info.operating_point == POINT
    assert "- Threshold: 0.33 (square 0.4), chosen by the F1 at IoU 0.5 on val." in (tmp_path / CARD).read_text()


def test_a_model_of_an_older_release_is_read_and_has_no_operating_point(tmp_path):
    folder, _ = written(tmp_path / "model")
    config = msgspec.json.decode((folder / CONFIG).read_bytes())
    del config["operating_point"]
    (folder / CONFIG).write_bytes(msgspec.json.encode(config))
    assert load_model(str(folder), CPU).info == info()


def test_an_older_release_reads_what_this_one_writes(tmp_path):
    """It knows the format's other keys and passes over those it does not know."""
    write_model(tmp_path, build_family(small_config("tiny"), 2).network.state_dict(), info(operating_point=POINT))

    class OlderConfig(msgspec.Struct, frozen=True, kw_only=True):
        format: int = 1
        classes: tuple[str, ...]
        preset: str
        job: dict[str, Any]
        preprocessing: Preprocessing
        prepared_set: str
        metrics: dict[str, float]

    assert msgspec.json.decode((tmp_path / CONFIG).read_bytes(), type=OlderConfig).classes == CLASSES


@pytest.mark.parametrize(
    "point", [{"threshold": 1.5, "classes": {}, "split": "val"}, {"threshold": 0.5, "classes": {"a": -1}}, 0.5]
)
def test_thresholds_that_are_none_are_refused(tmp_path, point: object):
    folder, _ = written(tmp_path / "model")
    edited(folder, operating_point=point)
    assert f"{CONFIG} is not a model's configuration: " in complaint(folder)


def test_the_card_names_the_limit_of_each_ap():
    dense = {"val_ap": 0.31, "val_ap_max_dets": 0.512, "val_max_dets": 412.0}
    card = model_card(info(metrics=dense))
    assert "split: AP 0.512 at maxDets 412, AP 0.310, as COCO counts, at maxDets 100." in card


HOSTILE = (
    "a|b",
    "**bold**",
    "<script>alert(1)</script>",
    "line\nbreak",
    "[x](javascript:1)",
    "`code`",
    "\u202ertl",
    "",
)


def test_class_names_cannot_leave_their_cell_of_the_card():
    card = model_card(info(classes=HOSTILE))
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(HOSTILE)
    for index, row in enumerate(rows[1:]):
        assert row.startswith(f"| {index} |")
        assert row.replace("\\|", "").count("|") == 3
    assert "<script" not in card.replace("\\<", "")
    assert "\\*\\*bold\\*\\*" in card


def test_the_card_says_what_one_needs_to_use_the_model():
    card = model_card(info())
    for part in ("# tiny: a detector of 2 classes", "`0123abcd`", ": AP 0.512", "short side 64", "detr-job predict"):
        assert part in card
    assert "not measured" in model_card(info(metrics={}))
    assert model_card(info(classes=("gear",))).startswith("# tiny: a detector of 1 class\n")
