"""Deformable DETR computes what the authors' program and the transformers library compute with the same weights.

The authors' numbers are in tests/goldens/deformable_detr.json, made by tests/goldens/deformable_detr.py.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import transformers_models
from detr_job.errors import JobError
from detr_job.family import Family, build_family
from detr_job.models.deformable_detr.criterion import DeformableDetrCriterion
from detr_job.models.deformable_detr.network import DeformableDetr, Predictions
from detr_job.models.matcher import focal_class_cost, match
from detr_job.models.outputs import Outputs, Targets
from detr_job.weights.finetune import WeightsSource, load_weights
from run_config.job.config import Loss
from run_config.job.presets import load_job_config
from run_config.weights.coco_classes import COCO_CLASSES
from tests.detr_job.golden import BOXES, padded_pair, targets
from tests.goldens import deformable_detr as golden

GOLDEN = json.loads(golden.FILE.read_text(encoding="utf-8"))
COCO_ROWS = 91
LOSS = Loss(classification=2.0, cost_class=2.0)


def family_of(keys: Mapping[str, Any], classes: int = COCO_ROWS) -> Family:
    options = [f"model.{key}={str(value).lower()}" for key, value in keys.items()]
    return build_family(load_job_config("deformable-detr-r50", options), classes)


def published_names(family: Family) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a file of the authors, where heads have several names."""
    network = family.network
    assert isinstance(network, DeformableDetr)
    config, found = network.config, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if not config.refine:
        for name in [name for name in found if "_embed.0." in name]:
            found |= {
                name.replace("_embed.0.", f"_embed.{layer}."): found[name] for layer in range(config.decoder_layers)
            }
        return found
    below = ("bbox_embed.", "class_embed.") if config.two_stage else "bbox_embed."
    return found | {f"transformer.decoder.{name}": shape for name, shape in found.items() if name.startswith(below)}


def assert_same(values: Tensor, wanted: Mapping[str, Any], tolerance: float) -> None:
    found = golden.short(values)
    assert found["some"] == pytest.approx(wanted["some"], abs=tolerance, rel=tolerance)
    assert (found["mean"], found["std"]) == pytest.approx((wanted["mean"], wanted["std"]), abs=tolerance)


@pytest.fixture(scope="module", params=golden.CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Family, Predictions]:
    """A kind of model with weights from the formula, loaded from a file of the authors' form, and what it predicts."""
    keys = golden.CASES[request.param]
    family = family_of(keys)
    weights = golden.tied(golden.filled(published_names(family)), refine="refine" in keys)
    assert len(weights) == GOLDEN[request.param]["tensors"]
    family.network.load_state_dict(family.own_names(weights))  # strictly
    network = family.network.double().eval()
    network.load_state_dict(family.own_names(weights))
    assert isinstance(network, DeformableDetr)
    images, mask = padded_pair()
    with torch.no_grad():
        return request.param, family, network.predictions(images.double(), mask)


# Layout and predictions ---------------------------------------------------------------------------


def test_the_predictions_are_the_authors(case: tuple[str, Family, Predictions]):
    name, family, found = case
    wanted = GOLDEN[name]
    assert sum(parameter.numel() for parameter in family.network.parameters()) == wanted["parameters"]
    # positions and padding are measured in single precision
    if found.encoder is not None:
        assert_same(found.encoder.logits, wanted["encoder logits"], 2e-5)
        assert_same(found.encoder.boxes, wanted["encoder boxes"], 2e-5)
    assert_same(found.layers.logits[0], wanted["first layer"], 2e-5)
    assert_same(found.layers.boxes[0], wanted["first boxes"], 2e-5)
    assert_same(found.layers.logits[-1], wanted["logits"], 2e-5)
    assert_same(found.layers.boxes[-1], wanted["boxes"], 2e-5)


# Numbers of another run of the authors' code, in single precision.
ANCHORS: dict[str, dict[str, Any]] = {
    "multi-scale": {
        "logits": (1.14666, 0.77061, 0.37204, 1.54516),
        "mean_std": (-0.04398, 0.94994),
        "box": (0.72615, 0.5056, 0.56813, 0.65196),
        "boxes_mean": 0.614056,
        "losses": (3255.117, 0.97648, 0.88412),
        "total": 43415.15,
        "match": {(0, 100, 1), (0, 200, 0), (0, 212, 2), (1, 279, 3)},
    },
    "single-scale": {
        "logits": (0.00412, -0.82642, -0.57165, 1.66721),
        "mean_std": (-0.07074, 1.0013),
        "box": (0.61015, 0.35795, 0.63245, 0.61278),
        "boxes_mean": 0.545452,
        "losses": (3289.801, 0.9288, 0.80034),
        "total": 42233.21,
        "match": {(0, 46, 2), (0, 153, 0), (0, 214, 1), (1, 72, 3)},
    },
    "refine": {
        "logits": (2.09692, -0.67825, -0.32902, 0.25579),
        "mean_std": (0.16028, 0.97376),
        "box": (0.95011, 0.82812, 0.39538, 0.59854),
        "boxes_mean": 0.692973,
        "losses": (4126.937, 1.1906, 1.35441),
        "total": 45363.97,
        "match": {(0, 56, 1), (0, 70, 2), (0, 265, 0), (1, 33, 3)},
    },
}


def test_predictions_matches_and_losses_are_the_known_ones(case: tuple[str, Family, Predictions]):
    name, _, found = case
    if name not in ANCHORS:
        pytest.skip("no numbers are known of a two-stage model")
    wanted, layers = ANCHORS[name], Outputs(found.layers.logits.float(), found.layers.boxes.float())
    logits, boxes = layers.logits[-1], layers.boxes[-1]
    assert logits[0, 0, :4].tolist() == pytest.approx(wanted["logits"], abs=1e-4)
    assert (logits.mean().item(), logits.std().item()) == pytest.approx(wanted["mean_std"], abs=2e-5)
    assert boxes[0, 0].tolist() == pytest.approx(wanted["box"], abs=2e-5)
    assert boxes.mean().item() == pytest.approx(wanted["boxes_mean"], abs=5e-6)
    criterion = DeformableDetrCriterion(LOSS)
    losses = criterion(Predictions(layers, None), targets(), 4.0)
    last = [losses.terms[f"loss_{kind}"].item() for kind in ("ce", "bbox", "giou")]
    assert last == pytest.approx(wanted["losses"], rel=2e-5)
    assert losses.total.item() == pytest.approx(wanted["total"], rel=2e-5)
    matches = match(layers, targets(), focal_class_cost(layers.logits), LOSS)
    pairs = torch.stack((matches.image[-1], matches.query[-1], matches.target[-1]), dim=1)
    assert {tuple(row) for row in pairs.tolist()} == wanted["match"]


# The transformers library -------------------------------------------------------------------------


@pytest.mark.parametrize("name", golden.CASES)
def test_transformers_computes_the_same_with_its_own_names(name: str):
    less = {
        "hidden_dim": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "feedforward_dim": 96,
        "queries": 9,
        "points": 2,
    }
    family = family_of(golden.CASES[name] | less, 6)
    network = family.network
    assert isinstance(network, DeformableDetr)
    torch.manual_seed(1)
    theirs = transformers_models.deformable_detr(network.config, 6).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1 if parameter.dim() > 1 else 0.5)
    weights = theirs.state_dict()
    report = load_weights(family, WeightsSource("x", weights, None), tuple("abcdef"))
    assert not report.fresh
    network.double().load_state_dict(family.own_names(weights))
    images, mask = padded_pair()
    with torch.no_grad():
        wanted = theirs(pixel_values=images.double(), pixel_mask=(~mask).long())
        found = network.eval().predictions(images.double(), mask)
    # the positions of cells are measured in double precision there
    torch.testing.assert_close(found.layers.logits[-1], wanted.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.layers.boxes[-1], wanted.pred_boxes, atol=1e-5, rtol=1e-5)
    if found.encoder is not None:
        torch.testing.assert_close(found.encoder.logits[0], wanted.enc_outputs_class, atol=1e-5, rtol=1e-5)


def old_names(name: str) -> str:
    """A tensor's name in the files on Hugging Face, which are older than the names of the library."""
    if ".decoder." in name or ".encoder.layers" in name:
        name = name.replace(".mlp.fc", ".fc").replace(".self_attn.o_proj.", ".self_attn.out_proj.")
    stem = "model.backbone.conv_encoder.model."
    name = name.replace("model.backbone.model.embedder.embedder.convolution", f"{stem}conv1")
    name = name.replace("model.backbone.model.embedder.embedder.normalization", f"{stem}bn1")
    if name.startswith("model.backbone.model.encoder.stages."):
        stage, _, block, *rest = name.removeprefix("model.backbone.model.encoder.stages.").split(".")
        kind = {"convolution": "conv", "normalization": "bn"}
        if rest[0] == "shortcut":
            part = f"downsample.{0 if rest[1] == 'convolution' else 1}"
        else:
            part = f"{kind[rest[2]]}{int(rest[1]) + 1}"
        name = f"{stem}layer{int(stage) + 1}.{block}.{part}.{rest[-1]}"
    return name


@pytest.mark.parametrize("name", golden.CASES)
def test_the_names_of_published_files_are_converted_to_the_networks(name: str):
    family = family_of(golden.CASES[name] | {"hidden_dim": 32, "encoder_layers": 2, "decoder_layers": 2})
    network = family.network
    assert isinstance(network, DeformableDetr)
    theirs = {
        old_names(each): tensor
        for each, tensor in transformers_models.deformable_detr(network.config, COCO_ROWS).state_dict().items()
    }
    assert "model.backbone.conv_encoder.model.layer4.2.conv3.weight" in theirs
    ours = {each: value.shape for each, value in network.state_dict().items()}
    assert {each: value.shape for each, value in family.own_names(theirs).items()} == ours
    short = {each: value for each, value in theirs.items() if "encoder.layers.1" not in each}
    with pytest.raises(JobError, match="has a different architecture"):
        load_weights(family, WeightsSource("x.safetensors", short, None), ("cat",))


def test_weights_of_another_kind_are_refused():
    refined = family_of({"refine": True, "encoder_layers": 1, "decoder_layers": 2})
    for tensor in refined.network.parameters():
        torch.nn.init.normal_(tensor)
    weights = refined.network.state_dict()
    plain = family_of({"encoder_layers": 1, "decoder_layers": 2})
    with pytest.raises(JobError, match=r"has a different architecture: .*embed\.1.* is only in the checkpoint"):
        load_weights(plain, WeightsSource("refine.pth", weights, None), ("cat",))


def test_rows_of_known_names_and_the_row_for_any_object_are_kept():
    keys = {"refine": True, "two_stage": True, "encoder_layers": 1, "decoder_layers": 2, "hidden_dim": 32}
    first = family_of(keys)
    for tensor in first.network.parameters():
        torch.nn.init.normal_(tensor)
    weights = {name: tensor.clone() for name, tensor in first.network.state_dict().items()}
    family = family_of(keys, 3)
    report = load_weights(family, WeightsSource("x.pth", weights, None), ("cat", "gadget", "Traffic_Light"))
    assert report.kept_classes == ("cat", "Traffic_Light")
    for name in ("class_embed.0.weight", "class_embed.1.bias"):
        head = family.network.state_dict()[name]
        assert torch.equal(head[0], weights[name][COCO_CLASSES.index("cat")])
        assert torch.equal(head[2], weights[name][COCO_CLASSES.index("traffic light")])
    objects = family.network.state_dict()["class_embed.2.weight"]
    assert torch.equal(objects[0], weights["class_embed.2.weight"][0]), "the row that queries are selected by"


# Loss, detections, rates --------------------------------------------------------------------------


def test_losses_and_gradients_are_the_authors():
    layers, encoder = golden.outputs(), golden.outputs(golden.TOKENS, 1)
    tensors = (layers.logits, layers.boxes, encoder.logits, encoder.boxes)
    for each in tensors:
        each.requires_grad_()
    packed = Targets(torch.tensor(golden.LABELS), torch.tensor(BOXES), (3, 1))
    losses = DeformableDetrCriterion(LOSS)(Predictions(layers, encoder), packed, 4.0)
    wanted = dict(GOLDEN["losses"])
    assert losses.total.item() == pytest.approx(wanted.pop("total"), rel=1e-6)
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(wanted, rel=1e-5)
    losses.total.backward()
    for each, gradient in zip(tensors, GOLDEN["gradients"], strict=True):
        assert each.grad is not None
        assert_same(each.grad, gradient, 1e-6)


def test_detections_are_the_authors():
    family = family_of({"encoder_layers": 1, "queries": golden.QUERIES}, golden.CLASSES)
    found = family.detections(golden.outputs(), torch.tensor(golden.SIZES))[1]
    for name, wanted in GOLDEN["detections"].items():
        assert_same(getattr(found, name), wanted, 1e-4)


def test_rates_are_the_authors():
    config = load_job_config("deformable-detr-r50")
    family = family_of({"encoder_layers": 1})
    assert {name: family.rate(name, config.optimizer) for name, _ in family.network.named_parameters()} == {
        name: pytest.approx(
            2e-5
            if name.startswith("backbone.")
            else 2e-5
            if "sampling_offsets" in name or "reference_points" in name
            else 2e-4
        )
        for name, _ in family.network.named_parameters()
    }


def test_more_queries_than_tokens_are_one_query_per_token():
    family = family_of({"refine": True, "two_stage": True, "encoder_layers": 1, "decoder_layers": 1, "levels": 3}, 3)
    found = family.network.eval()(torch.zeros(1, 3, 64, 64))
    assert found.logits.shape == (1, 1, 64 + 16 + 4, 3)
