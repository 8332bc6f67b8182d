"""The layouts of the catalogue are those of the networks, and what differs is named."""

from importlib.resources import files

import numpy as np
import pytest
import torch

from benchmarks.transformers_models import d_fine, deformable_detr, rf_detr
from detr_job.family import build_family
from detr_job.weights.layouts import shapes, text
from published_weights.arrays import Array
from published_weights.errors import WeightsError
from published_weights.layout import fitted, layout
from run_config.families.d_fine import DFineModel
from run_config.families.deformable_detr import DeformableDetrModel
from run_config.families.rf_detr import RfDetrModel
from run_config.job.presets import load_job_config
from run_config.weights.catalogue import CATALOGUE

PRESETS = sorted({one.preset for one in CATALOGUE})
SMALL = {"transformer.norm.weight": (3,), "class_embed.weight": ("classes", 3), "labels.weight": ("classes+1", 2)}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_files_describe_the_networks(preset: str):
    written = files("published_weights.layouts").joinpath(f"{preset}.json").read_text("utf-8")
    assert written == text(preset), "run python -m detr_job.weights.layouts"
    assert layout(preset) == shapes(preset)


@pytest.mark.parametrize("preset", [one for one in PRESETS if not one.startswith("detr-")])
@pytest.mark.parametrize("form", ["with model.", "without"])
def test_the_files_of_hugging_face_fit(preset: str, form: str):
    config = load_job_config(preset).model
    with torch.device("meta"):
        if isinstance(config, RfDetrModel):
            rows, twin = 91, rf_detr(config, 91)
        elif isinstance(config, DeformableDetrModel):
            rows, twin = 91, deformable_detr(config, 91)
        else:
            assert isinstance(config, DFineModel)
            rows, twin = 80, d_fine(config, 80)
    tensors = {
        name if form == "with model." else name.removeprefix("model."): np.broadcast_to(np.float32(0), tensor.shape)
        for name, tensor in twin.state_dict().items()
    }
    assert fitted(tensors, preset, rows, "model.safetensors")


@pytest.mark.parametrize("preset", [one for one in PRESETS if one.startswith("detr-")])
def test_the_names_of_detr_are_those_of_its_authors(preset: str):
    with torch.device("meta"):
        network = build_family(load_job_config(preset), 91).network
    tensors = {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in network.state_dict().items()}
    assert tensors["class_embed.weight"].shape == (92, 256)
    assert fitted(tensors, preset, 91, "detr.pth").keys() == tensors.keys()
    tensors.pop("query_embed.weight")
    with pytest.raises(WeightsError, match=r"query_embed\.weight is missing"):
        fitted(tensors, preset, 91, "detr.pth")


def small(classes: int = 4) -> dict[str, Array]:
    return {
        "transformer.norm.weight": np.ones(3, "f4"),
        "class_embed.weight": np.ones((classes, 3), "f4"),
        "labels.weight": np.ones((classes + 1, 2), "f4"),
    }


@pytest.fixture(autouse=True)
def reduced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "preset" not in request.fixturenames:
        monkeypatch.setattr("published_weights.layout.layout", lambda _: SMALL)


def refused(tensors: dict[str, Array]) -> str:
    with pytest.raises(WeightsError) as raised:
        fitted(tensors, "rf-detr-nano", 4, "a.pth")
    return str(raised.value)


def test_tensors_that_fit_are_returned_without_counters_and_the_buffer_of_key_points():
    extra = {"_kp_active_mask": np.zeros((0, 0), "?"), "a.num_batches_tracked": np.array(3), "total_ops": np.array(1)}
    assert fitted(small() | extra, "rf-detr-nano", 4, "a.pth").keys() == SMALL.keys()


def test_differences_are_named():
    assert "class_embed.weight is (5, 3), not (4, 3)" in refused(small(5))
    assert "a.pth: not the weights of rf-detr-nano" in refused(small(5))
    missing = small()
    del missing["transformer.norm.weight"]
    assert "transformer.norm.weight is missing" in refused(missing)
    assert "'transformer.more' is unknown" in refused(small() | {"transformer.more": np.ones(1)})
    assert "and 2 more differences" in refused(small(5) | {name: np.ones(1) for name in "abc"})


def test_values_that_are_not_finite_are_refused():
    bad = small()
    bad["transformer.norm.weight"][1] = np.nan
    assert "not finite in transformer.norm.weight" in refused(bad)


def test_weights_of_rt_detr_v4_are_not_taken_for_those_of_d_fine():
    assert "RT-DETRv4" in refused({"encoder.feature_projector.0.weight": np.ones(1)})


def test_separate_query_key_and_value_become_one_tensor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "published_weights.layout.layout",
        lambda _: {
            "transformer.decoder.layers.0.self_attn.in_proj_weight": (6, 2),
            "backbone.0.encoder.encoder.x": (1,),
        },
    )
    parts = {
        f"decoder.layers.0.self_attn.{part}_proj.weight": np.full((2, 2), float(i)) for i, part in enumerate("qkv")
    }
    found = fitted(parts | {"backbone.backbone.x": np.ones(1)}, "rf-detr-nano", 4, "a.safetensors")
    wanted = torch.cat([torch.full((2, 2), number) for number in range(3)])
    np.testing.assert_array_equal(found["transformer.decoder.layers.0.self_attn.in_proj_weight"], wanted.numpy())
