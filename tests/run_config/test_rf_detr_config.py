"""The configuration of RF-DETR: sizes that cannot work are refused, and its presets are the published sizes."""

import pytest

from run_config.errors import ConfigError
from run_config.families.rf_detr import RfDetrModel
from run_config.job.presets import load_job_config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.backbone_heads=7", "backbone_dim 384 must be a multiple of backbone_heads (7)"),
        ("model.backbone_layers=10", "backbone_layers 10 must be a multiple of 4"),
        ("model.cross_heads=3", "hidden_dim 256 must be a multiple of cross_heads (3)"),
        ("model.heads=3", "hidden_dim 256 must be a multiple of heads (3)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(override: str, said: str):
    with pytest.raises(ConfigError) as caught:
        load_job_config("rf-detr-nano", [override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("size", "layers", "cells", "pixels"),
    [("nano", 2, 24, 384), ("small", 3, 32, 512), ("medium", 4, 36, 576), ("large", 4, 44, 704)],
)
def test_the_presets_are_the_published_sizes_with_the_published_recipe(size: str, layers: int, cells: int, pixels: int):
    config = load_job_config(f"rf-detr-{size}")
    assert isinstance(config.model, RfDetrModel)
    assert (config.model.decoder_layers, config.model.position_cells) == (layers, cells)
    assert (config.data.eval_size, config.data.min_sizes, config.data.square) == (pixels, (pixels,), True)
    assert (config.model.queries, config.model.groups) == (300, 13)
    assert (config.loss.cost_class, config.loss.cost_bbox, config.loss.cost_giou) == (2, 5, 2)
    assert (config.data.batch_size, config.data.accumulate, config.schedule.epochs) == (4, 1, 100)
    assert config.model.about_image_size(config.data.eval_size) == ""


def test_another_image_size_is_said():
    assert load_job_config("rf-detr-nano").model.about_image_size(500) == (
        "images of 500 pixels: the position embedding, made for 384 pixels, is interpolated from 24 to 32 cells "
        "per side"
    )
