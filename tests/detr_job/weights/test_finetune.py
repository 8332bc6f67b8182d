"""Starting from other weights: what is report, what is made new, and that nothing goes wrong in silence."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detr_job.errors import JobError
from detr_job.family import Family, build_family
from detr_job.weights.finetune import LoadReport, WeightsSource, load_weights, read_source
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from object_store import StoreError
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.weights.coco_classes import COCO_CLASSES
from tests.detr_job.pictures import small_config

COCO_ROWS = 92


def fresh(family: str, classes: tuple[str, ...], seed: int = 9, **more: object) -> Family:
    torch.manual_seed(seed)
    return build_family(small_config(family, **more), len(classes))


def copied(family: Family) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in family.network.state_dict().items()}


def model_folder(folder: Path, family: Family, classes: tuple[str, ...], config: JobConfig) -> Path:
    info = ModelFolderConfig(
        classes=classes,
        preset="test",
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(64, 96),
        prepared_set="set",
        metrics={},
    )
    write_model(folder, family.network.state_dict(), info)
    return folder


def public(weights: dict[str, Tensor]) -> dict[str, object]:
    """As facebookresearch/detr saves a training checkpoint."""
    return {
        "model": weights,
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-4, backbone="resnet18", masks=False),
    }


def coco_weights() -> dict[str, Tensor]:
    return copied(fresh("detr", tuple(map(str, range(COCO_ROWS - 1))), seed=1))


# COCO's heads -------------------------------------------------------------------------------------


def test_cocos_rows_are_its_ids():
    assert len(COCO_CLASSES) == 91
    assert [COCO_CLASSES[row] for row in (0, 1, 12, 17, 44, 90)] == [
        None,
        "person",
        None,
        "cat",
        "bottle",
        "toothbrush",
    ]
    assert sum(name is not None for name in COCO_CLASSES) == 80


def test_a_public_checkpoint_gives_all_but_the_head_and_the_rows_of_known_names(tmp_path):
    weights = coco_weights()
    torch.save(public(weights), tmp_path / "detr-test.pth")
    classes = ("bottle", "screw", "Traffic_Light", "zebra")
    family = fresh("detr", classes)
    before = copied(family)
    report = load_weights(family, read_source(f"file://{tmp_path}/detr-test.pth"), classes)
    after = family.network.state_dict()
    for name, value in after.items():
        if not name.startswith("class_embed"):
            assert torch.equal(value, weights[name]), name
    for name in ("class_embed.weight", "class_embed.bias"):
        head, given = after[name], weights[name]
        assert torch.equal(head[0], given[44]), "bottle is COCO's 44"
        assert torch.equal(head[1], before[name][1]), "a screw is not in COCO: a fresh row"
        assert torch.equal(head[2], given[10]), "traffic light, however it is written"
        assert torch.equal(head[3], given[24])
        assert torch.equal(head[4], given[91]), "no object"
    assert report.kept_classes == ("bottle", "Traffic_Light", "zebra")
    said = "\n".join(report.sentences("detr-test.pth"))
    assert f"starting from detr-test.pth: {len(after) - 2} tensors loaded unchanged" in said
    assert "heads initialised for the classes of this set: class_embed.weight, class_embed.bias" in said
    assert "rows kept of bottle, Traffic_Light, zebra" in said
    assert "initialised:" not in said
    assert "ignored" not in said


def test_a_segmentation_checkpoint_gives_its_detection_part(tmp_path):
    weights = copied(fresh("detr", tuple(map(str, range(250))), seed=1))
    masks = {"bbox_attention.q_linear.weight": torch.ones(2, 2), "mask_head.lay1.weight": torch.ones(2)}
    torch.save({"model": {f"detr.{name}": value for name, value in weights.items()} | masks}, tmp_path / "panoptic.pth")
    family = fresh("detr", ("person", "screw"))
    before = copied(family)
    report = load_weights(family, read_source(str(tmp_path / "panoptic.pth")), ("person", "screw"))
    after = family.network.state_dict()
    assert torch.equal(after["query_embed.weight"], weights["query_embed.weight"])
    assert torch.equal(after["class_embed.bias"][:2], before["class_embed.bias"][:2]), "its rows are not COCO's ids"
    assert torch.equal(after["class_embed.bias"][2], weights["class_embed.bias"][-1])
    said = "\n".join(report.sentences("panoptic.pth"))
    assert "the file does not say which classes its rows are" in said
    assert (
        "ignored, because this model has no such tensors: bbox_attention.q_linear.weight, mask_head.lay1.weight" in said
    )


WRAPPERS = {
    "DistributedDataParallel": "module.{}",
    "Lightning": "model.{}",
    "torch.compile": "_orig_mod.{}",
    "compiled in Lightning": "model._orig_mod.{}",
    "compiled in DistributedDataParallel": "module._orig_mod.{}",
}


@pytest.mark.parametrize("ending", ["pth", "ckpt", "safetensors"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_prefixes_that_training_tools_add_are_understood(tmp_path, wrapper: str, ending: str):
    weights = {WRAPPERS[wrapper].format(name): value for name, value in coco_weights().items()}
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3}, path)
    family = fresh("detr", ("a", "b"))
    report = load_weights(family, read_source(str(path)), ("a", "b"))
    assert len(report.same) == len(weights) - 2
    assert not report.fresh
    assert not report.ignored


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prefixes_of_files_of_any_family_are_understood(tmp_path, family: str):
    weights = {f"model._orig_mod.{name}": value for name, value in copied(fresh(family, ("a", "b", "c"))).items()}
    torch.save({"state_dict": weights}, tmp_path / "last.ckpt")
    second = fresh(family, ("a", "b"))
    report = load_weights(second, read_source(f"{tmp_path}/last.ckpt"), ("a", "b"))
    assert len(report.same) + len(report.rows) == len(weights)
    assert list(report.rows) == list(second.class_heads)
    assert report.fresh == report.ignored == []


def test_names_that_would_collide_without_their_prefixes_stay(tmp_path):
    torch.save({"model.w": torch.ones(1), "w": torch.zeros(1)}, tmp_path / "both.pth")
    assert read_source(f"{tmp_path}/both.pth").weights.keys() == {"model.w", "w"}


def test_a_checkpoint_of_hugging_face_is_named(tmp_path):
    names = ("class_labels_classifier.weight", "model.query_position_embeddings.weight")
    torch.save({name: torch.ones(2, 2) for name in names}, tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin is a checkpoint of Hugging Face Transformers" in complaint(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
    ],
)
def test_a_file_that_was_saved_by_mistake_is_named(tmp_path, content: bytes, reason: str, ending: str):
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    assert f"({reason}" in complaint(path)


def test_a_published_file_without_its_head_is_welcome(tmp_path):
    weights = {name: value for name, value in coco_weights().items() if not name.startswith("class_embed")}
    save_file(weights, tmp_path / "headless.safetensors")
    family = fresh("detr", ("a", "b"))
    before = copied(family)
    report = load_weights(family, read_source(f"{tmp_path}/headless.safetensors"), ("a", "b"))
    assert torch.equal(family.network.state_dict()["class_embed.bias"], before["class_embed.bias"])
    assert "initialised: class_embed.weight, class_embed.bias" in "\n".join(report.sentences("x"))


def test_batch_norms_counters_and_profilers_leftovers_are_ignored(tmp_path):
    weights = coco_weights()
    weights["backbone.0.body.bn1.num_batches_tracked"] = torch.tensor(5)
    weights["transformer.total_params"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "x.pth")
    report = load_weights(fresh("detr", ("a",)), read_source(f"{tmp_path}/x.pth"), ("a",))
    assert report.ignored == ["backbone.0.body.bn1.num_batches_tracked", "transformer.total_params"]


def test_weights_in_half_precision_are_report(tmp_path):
    weights = {name: value.half() for name, value in coco_weights().items()}
    save_file(weights, tmp_path / "half.safetensors")
    family = fresh("detr", ("person",))
    load_weights(family, read_source(f"{tmp_path}/half.safetensors"), ("person",))
    after = family.network.state_dict()
    assert after["class_embed.weight"].dtype == after["query_embed.weight"].dtype == torch.float32
    assert torch.equal(after["class_embed.weight"][0].half(), weights["class_embed.weight"][1])


# Our own folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_earlier_run_with_the_same_classes_is_report_whole(tmp_path, family: str):
    classes = ("a", "b", "c")
    first = fresh(family, classes, seed=1)
    folder = model_folder(tmp_path / "model", first, classes, small_config(family))
    second = fresh(family, classes, seed=2)
    report = load_weights(second, read_source(str(folder)), classes)
    assert report.rows == {}
    assert report.fresh == report.ignored == []
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_go_with_the_names_of_their_classes(tmp_path, family: str):
    old, new = ("a", "b", "c"), ("c", "d", "a", "e")
    first = fresh(family, old, seed=1)
    folder = model_folder(tmp_path / "model", first, old, small_config(family))
    second = fresh(family, new, seed=2)
    before = copied(second)
    report = load_weights(second, read_source(str(folder)), new)
    after, given = second.network.state_dict(), first.network.state_dict()
    heads = [name for name in after if "class_embed" in name or "score_head" in name or "box_predictor" in name]
    assert heads == list(second.class_heads) == list(report.rows)
    for name in heads:
        # the first row of the encoder's head of a two-stage Deformable DETR is of no class
        any_object = family == "deformable_detr" and name.startswith("class_embed.2.")
        assert torch.equal(after[name][0], given[name][0 if any_object else 2])
        assert torch.equal(after[name][1], before[name][1])
        assert torch.equal(after[name][2], given[name][0])
        assert torch.equal(after[name][3], before[name][3])
    assert report.kept_classes == ("c", "a")
    for name in set(after) - set(heads):
        assert torch.equal(after[name], given[name]), name


@pytest.mark.parametrize(
    ("family", "options"),
    [("tiny", {}), ("d_fine", {}), ("deformable_detr", {}), ("faster_rcnn", {}), ("rf_detr", {"model.queries": 12})],
)
def test_queries_and_image_size_may_differ_from_the_checkpoint_and_the_log_says_so(
    tmp_path, family: str, options: dict[str, object]
):
    classes = ("a", "b")
    config = small_config(family, **{"model.queries": 33, "data.eval_size": 96, "data.max_size": 128, **options})
    folder = model_folder(tmp_path / "model", fresh(family, classes, seed=1), classes, small_config(family))
    torch.manual_seed(2)
    second = build_family(config, 2)
    source = read_source(str(folder))
    report = load_weights(second, source, classes)
    assert report.fresh == report.ignored == []
    said = list(source.other_settings(config))
    if not options:
        assert said.pop(0) == f"  model.queries=33 instead of {source.queries}: no weight depends on it"
    assert said == ["  data.eval_size=96 instead of 64: the weights know objects of another size"]
    with torch.no_grad():
        found = second.detections(second.network.eval()(torch.randn(1, 3, 96, 96), None), torch.tensor([[96, 96]]))
    assert len(found) == 1
    assert not list(source.other_settings(small_config(family)))


@pytest.mark.parametrize(
    ("family", "options"), [("detr", {}), ("rf_detr", {}), ("deformable_detr", {"model.two_stage": "false"})]
)
def test_other_learned_queries_than_the_checkpoints_are_refused(tmp_path, family: str, options: dict[str, object]):
    first = fresh(family, ("a", "b"), seed=1, **options)
    model_folder(tmp_path / "model", first, ("a", "b"), small_config(family, **options))
    said = complaint(tmp_path / "model", family, **options, **{"model.queries": 33})
    assert "has a different architecture: " in said
    assert said.endswith("Choose the model it was trained as, and the same number of queries and layers")


@pytest.mark.parametrize(("trained", "wanted"), [(0, 3), (3, 0)])
def test_a_head_that_only_training_uses_may_be_missing_or_left_over(tmp_path, trained: int, wanted: int):
    """Weights of `tiny` from before the second head, or trained with it."""
    classes = ("a", "b")
    first = fresh("tiny", classes, seed=1, **{"model.dense_targets": trained})
    save_file(copied(first), tmp_path / "weights.safetensors")
    second = fresh("tiny", classes, seed=2, **{"model.dense_targets": wanted})
    report = load_weights(second, read_source(str(tmp_path / "weights.safetensors")), classes)
    assert all(name.startswith("dense_head.") for name in (*report.fresh, *report.ignored))
    assert bool(report.fresh) == bool(wanted)
    assert bool(report.ignored) == bool(trained)


def test_a_class_that_changed_its_place_alone_is_moved(tmp_path):
    first = fresh("tiny", ("a", "b"), seed=1)
    folder = model_folder(tmp_path / "model", first, ("a", "b"), small_config("tiny"))
    second = fresh("tiny", ("b", "a"), seed=2)
    load_weights(second, read_source(str(folder)), ("b", "a"))
    name = "enc_class_embed.bias"
    assert torch.equal(second.network.state_dict()[name], first.network.state_dict()[name].flip(0))


PLACES: dict[str, Callable[[Path], str]] = {
    "path": str,
    "path with a slash": lambda folder: f"{folder}/",
    "url": lambda folder: f"file://{folder}",
    "the run's folder": lambda folder: str(folder.parent),
    "the run's url": lambda folder: f"file://{folder.parent}",
    "relative path": os.path.relpath,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_is_found_by_path_url_and_run(tmp_path, monkeypatch, place: str):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    classes = ("a", "b")
    folder = model_folder(tmp_path / "run" / "model", fresh("tiny", classes), classes, small_config("tiny"))
    assert read_source(PLACES[place](folder)).classes == classes


@pytest.mark.parametrize("place", ["{tmp_path}/x.pth", "file://{tmp_path}/x.pth", "x.pth", "./x.pth"])
def test_a_file_is_found_by_path_and_url(tmp_path, monkeypatch, place: str):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pth")
    assert read_source(place.format(tmp_path=tmp_path)).weights.keys() == {"w"}


# What is refused ----------------------------------------------------------------------------------


def complaint(url: object, family: str = "detr", **more: object) -> str:
    classes = ("a", "b")
    with pytest.raises((JobError, StoreError)) as caught:
        load_weights(fresh(family, classes, **more), read_source(str(url)), classes)
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 800
    return said


def test_a_wrong_path_is_an_error_and_never_a_start_from_scratch(tmp_path):
    for place in ("nothing", "nothing.pth", "nothing/", "model.safetensors"):
        assert "nothing" in complaint(tmp_path / place) or place == "model.safetensors"
    (tmp_path / "empty").mkdir()
    said = complaint(tmp_path / "empty")
    assert said.startswith(f"cvat-finetune-checkpoint: there is no model at {tmp_path}/empty (no config.json): give")
    assert said.endswith("or a .pth or .safetensors file of a public DETR checkpoint")
    (tmp_path / "file.txt").write_text("x")
    complaint(tmp_path / "file.txt")
    complaint("")
    complaint("ftp://host/model")


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [
        ({"model.decoder_layers": 2}, {}),
        ({}, {"model.decoder_layers": 2}),
        ({"model.encoder_layers": 2}, {}),
        ({}, {"model.encoder_layers": 2}),
        ({"model.queries": 21}, {}),
        ({"model.hidden_dim": 48}, {}),
        ({"model.backbone": "resnet34"}, {}),
        ({}, {"model.backbone": "resnet34"}),
        ({"model.pre_norm": "true"}, {}),
        ({}, {"model.pre_norm": "true"}),
        ({}, {"model.position_embedding": "learned"}),
    ],
)
def test_another_architecture_is_refused_also_where_every_shape_fits(tmp_path, trained, wanted):
    """All tensors of a ResNet-18 are in a ResNet-34 too: what is missing would stay random without a word."""
    save_file(copied(fresh("detr", ("a", "b"), **trained)), tmp_path / "weights.safetensors")
    said = complaint(tmp_path / "weights.safetensors", **wanted)
    assert said.startswith("cvat-finetune-checkpoint: ")
    assert "has a different architecture: " in said
    assert "same number of queries and layers" in said


def test_another_family_is_refused(tmp_path):
    save_file(copied(fresh("tiny", ("a", "b"))), tmp_path / "tiny.safetensors")
    assert "has a different architecture" in complaint(tmp_path / "tiny.safetensors")
    save_file(copied(fresh("detr", ("a", "b"))), tmp_path / "detr.safetensors")
    assert "has a different architecture" in complaint(tmp_path / "detr.safetensors", "tiny")


def test_dc5_starts_from_the_plain_model(tmp_path):
    """Both have the same tensors; public DC5 models were trained that way."""
    plain = fresh("detr", ("a", "b"), seed=1, **{"model.backbone": "resnet50"})
    save_file(copied(plain), tmp_path / "plain.safetensors")
    dilated = fresh("detr", ("a", "b"), **{"model.backbone": "resnet50", "model.dilation": "true"})
    assert load_weights(dilated, read_source(f"{tmp_path}/plain.safetensors"), ("a", "b")).fresh == []


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("inside", ["model", "args", "epoch"])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(tmp_path, inside: str):
    content = public(coco_weights())
    content[inside] = Bomb(tmp_path / "exploded")
    torch.save(content, tmp_path / "evil.pth")
    assert "evil.pth: not a file of weights that can be read safely" in complaint(tmp_path / "evil.pth")
    assert not (tmp_path / "exploded").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "exploded").exists(), "the bomb is a real one"


@pytest.mark.parametrize("damage", ["cut", "flipped header", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage: str):
    classes = ("a", "b")
    folder = model_folder(tmp_path / "model", fresh("tiny", classes), classes, small_config("tiny"))
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-100], "flipped header": b"\xff" + data[1:], "empty": b""}[damage])
    assert "model.safetensors is damaged" in complaint(folder, "tiny")
    path.rename(tmp_path / "lone.safetensors")
    assert "lone.safetensors: not a file of weights" in complaint(tmp_path / "lone.safetensors", "tiny")


def test_a_folder_without_weights_is_refused(tmp_path):
    classes = ("a", "b")
    folder = model_folder(tmp_path / "model", fresh("tiny", classes), classes, small_config("tiny"))
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in complaint(folder, "tiny")


def test_weights_with_fewer_rows_than_the_folder_names_classes_are_refused(tmp_path):
    classes = ("a", "b", "c")
    folder = model_folder(tmp_path / "model", fresh("tiny", classes), classes, small_config("tiny"))
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    config["classes"] = ["x", "y", "z", "b"]
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    assert "has 3 rows for 4 classes in the checkpoint" in complaint(folder, "tiny")


def test_nothing_is_half_loaded_when_something_is_wrong(tmp_path):
    family = fresh("detr", ("a", "b"), **{"model.decoder_layers": 2})
    before = copied(family)
    save_file(copied(fresh("detr", ("a", "b"), seed=1)), tmp_path / "w.safetensors")
    with pytest.raises(JobError):
        load_weights(family, read_source(f"{tmp_path}/w.safetensors"), ("a", "b"))
    assert all(torch.equal(before[name], value) for name, value in family.network.state_dict().items())


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("tiny", {"heads": 2, "points": 8}),
        ("tiny", {"prior_box": 0.4}),
        ("detr", {"heads": 4}),
        ("d_fine", {"activation": "silu"}),
        ("d_fine", {"reach": 8.0}),
    ],
)
def test_settings_that_no_shape_shows_must_be_those_of_the_checkpoint(tmp_path, family: str, settings: dict):
    config = small_config(family)
    names = ("person", "screw")
    folder = model_folder(tmp_path / "model", fresh(family, names), names, config)
    read_source(str(folder)).refuse_other_model(config)
    other = config.model_copy(update={"model": config.model.model_copy(update=settings)})
    key, value = next(iter(settings.items()))
    with pytest.raises(JobError, match=rf"trained with .*model\.{key}=.*this run has .*model\.{key}={value}"):
        read_source(str(folder)).refuse_other_model(other)


def test_windows_may_change_and_the_log_says_so(tmp_path):
    config = small_config("rf_detr")
    folder = model_folder(tmp_path / "model", fresh("rf_detr", ("person",)), ("person",), config)
    other = config.model_copy(update={"model": config.model.model_copy(update={"windows": 1})})
    source = read_source(str(folder))
    source.refuse_other_model(other)
    assert any("model.windows=1 instead of" in line for line in source.other_settings(other))


def test_a_model_of_another_family_is_named(tmp_path):
    folder = model_folder(tmp_path / "model", fresh("tiny", ("person",)), ("person",), small_config("tiny"))
    with pytest.raises(JobError, match="is a model of test, and another architecture than D-FINE"):
        read_source(str(folder)).refuse_other_model(small_config("d_fine"))


def test_the_file_inside_a_model_folder_keeps_its_classes(tmp_path):
    names = ("person", "screw")
    folder = model_folder(tmp_path / "model", fresh("tiny", names), names, small_config("tiny"))
    assert read_source(str(folder / "model.safetensors")).classes == names


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_before_training(tmp_path, value: float):
    weights = copied(fresh("tiny", ("person",)))
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name][0] = value
    torch.save(weights, tmp_path / "bad.pth")
    with pytest.raises(JobError, match=f"not finite in {name}"):
        read_source(str(tmp_path / "bad.pth"))


def test_quantised_weights_are_refused(tmp_path):
    family = fresh("tiny", ("person",))
    weights = {name: (100 * value).to(torch.int8) for name, value in copied(family).items()}
    save_file(weights, tmp_path / "int8.safetensors")
    with pytest.raises(JobError, match="has whole numbers in the checkpoint, which is quantised"):
        load_weights(family, read_source(str(tmp_path / "int8.safetensors")), ("person",))


@pytest.mark.parametrize("key", ["ema", "model_ema", "ema_state_dict", "weights"])
def test_the_only_weights_of_a_checkpoint_or_their_average_are_found(tmp_path, key: str):
    weights = copied(fresh("tiny", ("person",)))
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    more = {"model": zeros} if key == "model_ema" else {"epoch": 3}
    torch.save({key: weights, **more}, tmp_path / "file.pth")
    found = read_source(str(tmp_path / "file.pth")).weights
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path):
    torch.save({"optimizer": {"lr": 1}, "epoch": 3}, tmp_path / "optimizer.pth")
    with pytest.raises(JobError, match=r"holds no state dict \(its entries are optimizer, epoch\)"):
        read_source(str(tmp_path / "optimizer.pth"))
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(JobError, match="holds no tensors"):
        read_source(str(tmp_path / "empty.pth"))


@pytest.mark.parametrize(("written", "name"), [("safetensors", "file.pth"), ("pytorch", "file.safetensors")])
def test_a_file_with_the_others_ending_is_read(tmp_path, written: str, name: str):
    weights = copied(fresh("tiny", ("person",)))
    (save_file if written == "safetensors" else torch.save)(weights, tmp_path / name)
    assert read_source(str(tmp_path / name)).weights.keys() == weights.keys()


def test_long_lists_are_cut_short_for_people():
    report = LoadReport(same=["x"], ignored=[f"mask_head.lay{number}" for number in range(30)])
    last = report.sentences("source")[-1]
    assert last.endswith("mask_head.lay7 and 22 more")


def test_a_source_of_unknown_classes_keeps_none_of_its_rows():
    classes = ("a", "b")
    family = fresh("tiny", classes)
    given = copied(fresh("tiny", classes, seed=1))
    before = copied(family)
    report = load_weights(family, WeightsSource("somewhere", given, None), classes)
    assert report.kept_classes == ()
    assert torch.equal(family.network.state_dict()["enc_class_embed.bias"], before["enc_class_embed.bias"])
