"""The rules of `auto` values: pure functions of facts about the data, the model and its start."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from run_config.errors import ConfigError
from run_config.job.config import JobConfig
from run_config.job.keys import keys, value_of, with_values
from run_config.job.presets import auto_keys, load_job_config
from run_config.job.recipe import RULES, Facts, images_per_step, resolved

CELLS = Facts(
    images=300,
    validation_images=50,
    boxes=4000,
    class_images=(200, 300),
    median_side=0.17,
    centre_shift=0.5,
    pretrained=False,
)
ANIMALS = replace(CELLS, boxes=320, median_side=0.6)
TUNED = replace(CELLS, pretrained=True)


def value(key: str, facts: Facts, preset: str = "tiny", *overrides: str) -> Any:
    config, reasons = resolved(
        load_job_config(preset, overrides), auto_keys(preset, [*overrides, f"{key}=auto"]), facts
    )
    assert reasons[key]
    return value_of(config, key)


def test_every_key_that_may_be_auto_has_a_rule():
    assert {key.name for key in keys() if key.may_be_auto} == RULES.keys()


@pytest.mark.parametrize("preset", ["detr-r18", "detr-r50", "detr-r50-dc5", "detr-r101", "detr-r101-dc5"])
def test_published_recipes_have_no_auto_values(preset: str):
    assert not auto_keys(preset)


@pytest.mark.parametrize("preset", ["tiny", "d-fine-nano", "d-fine-medium", "rf-detr-nano", "rf-detr-large"])
def test_recipes_for_small_sets_have_auto_values(preset: str):
    assert {"training.ema_decay", "evaluation.patience", "data.balance"} < auto_keys(preset)


def test_an_explicit_value_wins_and_auto_can_be_asked_for():
    overrides = ["training.ema_decay=0.5", "evaluation={patience: 3}", "optimizer.lr=auto"]
    auto = auto_keys("d-fine-nano", overrides)
    assert not auto & {"training.ema_decay", "evaluation.patience"}
    assert {"optimizer.lr", "evaluation.interval"} < auto
    config, reasons = resolved(load_job_config("d-fine-nano", overrides), auto, CELLS)
    assert (config.training.ema_decay, config.evaluation.patience) == (0.5, 3)
    assert reasons.keys() == auto


@pytest.mark.parametrize("length", ["epochs=5", "steps=700", "minutes=3"])
def test_any_length_replaces_an_auto_length(length: str):
    assert "schedule.steps" in auto_keys("rf-detr-nano")
    assert "schedule.steps" not in auto_keys("rf-detr-nano", [f"schedule.{length}"])


def test_a_file_may_list_auto_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: detr-r18\nauto: [schedule.steps]\noptimizer: {lr: auto}\n")
    assert auto_keys("mine.yaml") == {"schedule.steps", "optimizer.lr"}
    (tmp_path / "mine.yaml").write_text("auto: [model.heads]\n")
    with pytest.raises(ConfigError, match=r"'model.heads' cannot be auto"):
        load_job_config("mine.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: tiny\nauto: [[a]]\n", r"auto: \['a'\] cannot be auto"),
        ("base: tiny\nauto: [data.balance]\ndata: 5\n", "data.balance: data must be a mapping"),
        (
            "base: tiny\nauto: [model.layer_decay]\n",
            "model.layer_decay cannot be auto: a model of Tiny has no such key",
        ),
        ("base: tiny\n1: {2: auto}\n", "1"),
    ],
)
def test_a_malformed_auto_is_a_sentence(text: str, said: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_job_config("mine.yaml")


def test_an_empty_section_may_have_auto_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: detr-r18\nauto: [data.balance]\ndata:\n")
    assert auto_keys("mine.yaml") == {"data.balance"}


def test_a_value_that_does_not_go_with_the_others_is_a_sentence():
    overrides = ["data.min_sizes=[14000]", "data.max_size=auto"]
    config, auto = load_job_config("tiny", overrides), auto_keys("tiny", overrides)
    with pytest.raises(
        ConfigError, match=r"data.max_size=auto is 18667 here \(the aspect ratio 4:3\), but data.max_size"
    ):
        resolved(config, auto, CELLS)


def test_a_key_without_a_rule_refuses_auto():
    with pytest.raises(ConfigError, match=r"optimizer.clip_norm must be a number, not 'auto'"):
        load_job_config("tiny", ["optimizer.clip_norm=auto"])


@pytest.mark.parametrize(
    ("images", "steps"), [(25, 1000), (300, 7500), (1000, 15_000), (5000, 45_000), (20_000, 120_000)]
)
def test_the_length_follows_from_the_number_of_images(images: int, steps: int):
    assert value("schedule.steps", replace(TUNED, images=images), "rf-detr-nano") == steps


def test_an_auto_length_is_the_only_one():
    config, _ = resolved(load_job_config("d-fine-nano"), auto_keys("d-fine-nano"), TUNED)
    assert (config.schedule.epochs, config.schedule.minutes, config.schedule.steps) == (None, None, 3750)


def test_the_rate_of_the_small_model_follows_from_the_boxes_of_a_step():
    assert value("optimizer.lr", CELLS) == value("optimizer.lr_backbone", CELLS) == 1e-3
    assert value("optimizer.lr", ANIMALS, "tiny", "data.augmentation.mosaic=0") < 3e-4
    assert 3e-4 < value("optimizer.lr", ANIMALS) < 5e-4
    assert value("optimizer.lr_backbone", ANIMALS, "tiny", "optimizer.lr=0.5") == 0.5


def test_dense_pictures_are_trained_as_the_preset_says_but_for_what_helps_random_weights():
    """The values with which the figures of docs/benchmarks.md were measured."""
    config = load_job_config("tiny")
    trained = resolved(config, auto_keys("tiny"), CELLS)[0]
    assert trained == with_values(config, {"model.dense_targets": 6, "schedule.small_images": 0.5})


def test_vertical_flips_need_pictures_without_an_upper_side():
    key = "data.augmentation.vertical_flip"
    assert value(key, CELLS) == 0.5
    assert value(key, ANIMALS) == 0
    assert value(key, replace(CELLS, centre_shift=9)) == 0


def test_few_boxes_per_image_are_seen_four_images_at_a_time():
    key = "data.augmentation.mosaic"
    assert value(key, ANIMALS) == 0.5
    for other in (CELLS, replace(ANIMALS, pretrained=True), replace(ANIMALS, median_side=0.1)):
        assert value(key, other) == 0


def test_random_weights_learn_each_box_with_more_tokens():
    for facts in (ANIMALS, CELLS):
        assert value("model.dense_targets", facts) == 6
        assert value("model.dense_targets", replace(facts, pretrained=True)) == 0


@pytest.mark.parametrize(
    ("length", "share"),
    [
        ("minutes=5", 0.5),
        ("minutes=10", 0),
        ("steps=1000", 0.5),
        ("steps=3000", 0),
        ("epochs=3", 0.5),
        ("epochs=99", 0),
    ],
)
def test_short_runs_from_random_weights_see_small_images_first(length: str, share: float):
    key = "schedule.small_images"
    assert value(key, CELLS, "tiny", f"schedule.{length}") == share
    assert value(key, replace(CELLS, pretrained=True), "tiny", f"schedule.{length}") == 0


def test_large_objects_are_trained_in_small_images():
    assert value("data.min_sizes", CELLS) == (240,)
    assert value("data.min_sizes", ANIMALS) == (192,)
    assert value("data.eval_size", ANIMALS) == 192
    assert value("data.eval_size", ANIMALS, "tiny", "data.min_sizes=[320]") == 320
    assert value("data.min_sizes", ANIMALS, "d-fine-nano") == (640,)


def test_rare_classes_are_balanced():
    assert value("data.balance", replace(CELLS, class_images=(9, 100)))
    assert not value("data.balance", CELLS)
    assert not value("data.balance", replace(CELLS, class_images=(0, 100)))


def test_a_pretrained_backbone_is_frozen_with_few_images():
    key = "optimizer.freeze_backbone"
    assert value(key, replace(TUNED, images=49), "rf-detr-nano")
    assert not value(key, replace(TUNED, images=50), "rf-detr-nano")
    assert not value(key, replace(CELLS, images=49), "rf-detr-nano")
    assert not value(key, replace(CELLS, images=49), "detr-r18")
    assert value(key, replace(CELLS, images=49), "detr-r18", "model.backbone_weights=resnet18.pth")


def test_nothing_of_faster_rcnn_is_frozen_from_random_weights():
    key = "model.freeze_norms"
    assert value(key, TUNED, "faster-rcnn-mobilenet") is True
    assert value(key, CELLS, "faster-rcnn-mobilenet") is False
    for facts in (TUNED, CELLS):  # its sizes say which norms are frozen
        assert value(key, facts, "d-fine-nano") is False
        assert value(key, facts, "d-fine-nano", "model.freeze_norms=true") is True


def test_only_a_pretrained_backbone_has_falling_rates():
    assert value("model.layer_decay", TUNED, "rf-detr-nano") == 0.8
    assert value("model.layer_decay", CELLS, "rf-detr-nano") == 1.0


def test_warm_up_is_the_authors_or_a_part_of_the_run():
    assert value("schedule.warmup", TUNED, "rf-detr-nano") == 0
    assert value("schedule.warmup", TUNED, "d-fine-nano", "schedule.steps=500") == 0.1
    assert value("schedule.warmup", TUNED, "d-fine-nano", "schedule.steps=2000") == 0.05
    assert value("schedule.warmup", CELLS) == 0.03


def test_short_runs_average_over_fewer_steps():
    assert value("training.ema_decay", TUNED, "rf-detr-nano") == 0.993
    assert value("training.ema_decay", CELLS, "tiny", "schedule.steps=500") == 0.98
    assert value("training.ema_decay", CELLS, "tiny", "schedule.steps=3") == 0.9


def test_few_images_are_not_evaluated_after_every_epoch():
    assert value("evaluation.interval", replace(TUNED, images=40), "rf-detr-nano") == 25
    assert value("checkpoints.interval", replace(TUNED, images=40), "rf-detr-nano") == 25
    assert value("evaluation.interval", replace(TUNED, images=5000), "rf-detr-nano") == 1250
    assert value("evaluation.interval", CELLS) == 250


def memory_for(most: int) -> Callable[[JobConfig, int], bool]:
    return lambda _, images: images <= most


@pytest.mark.parametrize(
    ("batch", "accumulate", "images", "room", "found"),
    [
        (8, 1, 300, 9, (8, 1)),
        (8, 1, 300, 7, (4, 2)),
        (8, 3, 300, 1, (1, 24)),
        (6, 1, 300, 4, (3, 2)),
        (5, 2, 300, 4, (1, 10)),
        (8, 1, 6, 6, (8, 1)),
        (8, 2, 6, 3, (3, 4)),
    ],
)
def test_a_batch_becomes_smaller_until_it_fits_and_a_step_keeps_its_images(batch, accumulate, images, room, found):
    overrides = ["data.batch_size=auto", f"data.accumulate={accumulate}"]
    start = with_values(load_job_config("rf-detr-nano", overrides), {"data.batch_size": batch})
    facts = replace(TUNED, images=images, fits=memory_for(room))
    config, reasons = resolved(start, frozenset({"data.batch_size", "evaluation.interval"}), facts)
    assert (config.data.batch_size, config.data.accumulate) == found
    assert images_per_step(config, facts) == images_per_step(start, facts)
    assert ("keeps" in reasons["data.batch_size"]) is (found[0] != batch)


def test_memory_is_tried_with_the_values_of_the_run_and_not_on_a_cpu():
    seen: list[JobConfig] = []
    facts = replace(ANIMALS, fits=lambda config, _: not seen.append(config))
    config, _ = resolved(load_job_config("tiny"), auto_keys("tiny"), facts)
    assert seen == [config]
    assert config.data.min_sizes == (192,)
    _, reasons = resolved(load_job_config("tiny"), auto_keys("tiny"), ANIMALS)
    assert reasons["data.batch_size"] == "on a CPU, memory is not tried"
    with pytest.raises(ConfigError, match="not even one image of the largest size fits into the GPU's memory: lower"):
        resolved(config, frozenset({"data.batch_size"}), replace(ANIMALS, fits=memory_for(0)))


@pytest.mark.parametrize("preset", ["deformable-detr-r50", "rf-detr-nano"])
def test_auto_by_hand_keeps_the_value_of_the_preset_where_nothing_is_known(preset: str):
    for key in ("data.batch_size", "data.min_sizes", "optimizer.lr"):
        assert value_of(load_job_config(preset, [f"{key}=auto"]), key) == value_of(load_job_config(preset), key)


def test_training_stops_early_only_by_an_ap_that_says_something():
    assert value("evaluation.patience", TUNED, "rf-detr-nano") == 10
    assert value("evaluation.patience", TUNED, "d-fine-nano") > 10
    assert value("evaluation.patience", replace(TUNED, validation_images=5), "rf-detr-nano") == 0
    assert value("evaluation.patience", CELLS) == 0
