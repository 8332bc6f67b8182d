"""RF-DETR computes what the authors' program and the transformers library compute with the same weights.

The authors' numbers are in tests/goldens/rf_detr.json, made by tests/goldens/rf_detr.py.
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
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.rf_detr.criterion import RfDetrCriterion
from detr_job.models.rf_detr.network import RfDetr
from detr_job.weights.finetune import WeightsSource, load_weights
from published_weights.names.rf_detr import UNUSED
from run_config.families.rf_detr import RfDetrModel
from run_config.job.config import Loss
from run_config.job.presets import load_job_config
from run_config.weights.coco_classes import COCO_CLASSES
from tests.detr_job.golden import BOXES, fill
from tests.goldens import rf_detr as golden

GOLDEN = json.loads(golden.FILE.read_text(encoding="utf-8"))
TENSORS = {"nano": 466, "small": 488, "medium": 510, "large": 510}  # with the buffer that public files lack
COCO_ROWS = 91


def on_meta(size: str) -> Family:
    with torch.device("meta"):
        return build_family(load_job_config(f"rf-detr-{size}"), COCO_ROWS)


def assert_same(values: Tensor, wanted: Mapping[str, Any], tolerance: float) -> None:
    found = golden.short(values)
    assert found["some"] == pytest.approx(wanted["some"], abs=tolerance, rel=tolerance)
    assert (found["mean"], found["std"]) == pytest.approx((wanted["mean"], wanted["std"]), abs=tolerance)


# The layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", TENSORS)
def test_the_published_layout_is_the_networks_own(size: str):
    state = on_meta(size).network.state_dict()
    assert len(state) == TENSORS[size] - 1
    cells = load_job_config(f"rf-detr-{size}").data.eval_size // 16
    encoder = "backbone.0.encoder.encoder."
    assert state[f"{encoder}embeddings.position_embeddings"].shape == (1, cells**2 + 1, 384)
    assert state[f"{encoder}encoder.layer.11.attention.attention.query.weight"].shape == (384, 384)
    assert state["backbone.0.projector.stages.0.0.m.2.cv2.bn.weight"].shape == (128,)
    assert state["transformer.enc_out_class_embed.12.weight"].shape == (COCO_ROWS, 256)
    assert state["query_feat.weight"].shape == (3900, 256)
    assert GOLDEN["tensors"] == TENSORS["nano"]


@pytest.mark.parametrize("size", TENSORS)
def test_the_names_of_transformers_are_converted_to_the_networks(size: str):
    family = on_meta(size)
    assert isinstance(family.network, RfDetr)
    model = load_job_config(f"rf-detr-{size}").model
    assert isinstance(model, RfDetrModel)
    with torch.device("meta"):
        theirs = transformers_models.rf_detr(model, COCO_ROWS).state_dict()
    ours = {name: value.shape for name, value in family.network.state_dict().items()}
    for weights in (theirs, {name.removeprefix("model."): value for name, value in theirs.items()}):
        assert {name: value.shape for name, value in family.own_names(weights).items()} == ours


def test_transformers_computes_the_same_with_its_own_names():
    small = {"backbone_dim": 24, "backbone_heads": 2, "backbone_layers": 4, "position_cells": 4, "hidden_dim": 32}
    less = {"heads": 2, "cross_heads": 4, "feedforward_dim": 48, "queries": 5, "groups": 3}
    model = RfDetrModel(**small, **less)
    torch.manual_seed(1)
    theirs = transformers_models.rf_detr(model, 6).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    family = build_family(load_job_config("rf-detr-nano", [f"model={json.dumps(model.model_dump())}"]), 6)
    report = load_weights(family, WeightsSource("x", theirs.state_dict(), None), tuple("abcdef"))
    assert not report.fresh
    family.network.double().load_state_dict(family.own_names(theirs.state_dict()))
    # It mixes up the windows of images that are not square.
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = theirs(pixel_values=images), family.network.eval()(images)
    torch.testing.assert_close(found.logits[-1], wanted.logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.boxes[-1], wanted.pred_boxes, atol=1e-6, rtol=1e-6)


def test_a_public_checkpoint_loads_strictly_and_gives_the_rows_of_known_names():
    small = load_job_config("rf-detr-nano", ["model={backbone_layers: 4, groups: 2, queries: 7, position_cells: 4}"])
    first = build_family(small, COCO_ROWS).network
    fill(first)
    weights = dict(first.state_dict())
    classes = ("cat", "screw", "Traffic_Light")
    for file in (weights, weights | {UNUSED: torch.zeros(0, 0, dtype=torch.bool)}):
        family = build_family(small, len(classes))
        report = load_weights(family, WeightsSource("nano.pth", file, None), classes)
        assert not report.fresh
        assert not report.ignored
        assert len(report.rows) == 2 * (2 + 1), "two groups and the decoder, weight and bias each"
        assert report.kept_classes == ("cat", "Traffic_Light")
        for name in ("class_embed.weight", "transformer.enc_out_class_embed.1.bias"):
            head = family.network.state_dict()[name]
            assert torch.equal(head[0], weights[name][COCO_CLASSES.index("cat")])
            assert torch.equal(head[2], weights[name][COCO_CLASSES.index("traffic light")])
    short = {name: value for name, value in weights.items() if ".layers.1.linear" not in name}
    with pytest.raises(JobError, match="has a different architecture"):
        load_weights(build_family(small, 3), WeightsSource("nano.pth", short, None), classes)


# The forward pass ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano() -> RfDetr:
    """The published size in double precision, with weights from the formula."""
    network = build_family(load_job_config("rf-detr-nano"), COCO_ROWS).network
    assert isinstance(network, RfDetr)
    fill(network)
    return network.double().eval()


@pytest.mark.parametrize(
    ("name", "images", "mask", "tolerance"),
    [
        ("published size", golden.image(), None, 1e-9),
        # the authors interpolate positions, and measure the padding, in single precision
        ("padded", *golden.small_pair(), 2e-5),
    ],
)
def test_features_selection_and_predictions_are_the_authors(
    nano: RfDetr, name: str, images: Tensor, mask: Tensor | None, tolerance: float
):
    with torch.no_grad():
        features = nano.backbone[0](images)
        found = nano(images, mask)
    wanted = GOLDEN[name]
    assert_same(features, wanted["features"], tolerance)
    assert_same(found.logits[0], wanted["selected logits"], tolerance)
    assert_same(found.boxes[0], wanted["selected boxes"], tolerance)
    assert_same(found.logits[1], wanted["first layer"], tolerance)
    assert_same(found.logits[-1], wanted["logits"], tolerance)
    assert_same(found.boxes[-1], wanted["boxes"], tolerance)


# Loss, detections, rates --------------------------------------------------------------------------


def test_losses_and_gradients_are_the_authors():
    made = golden.outputs()
    outputs = Outputs(made.logits.requires_grad_(), made.boxes.requires_grad_())
    targets = Targets(torch.tensor(golden.LABELS), torch.tensor(BOXES), (3, 1))
    losses = RfDetrCriterion(Loss(cost_class=2.0), golden.LAYERS)(outputs, targets, 4.0)
    ends = {"": "", "_0": "_enc", "_1": "_0"}  # our layers begin with the selection
    wanted = {
        f"loss_{kind}{ours}": GOLDEN["losses"][f"loss_{kind}{theirs}"]
        for kind in ("ce", "bbox", "giou")
        for ours, theirs in ends.items()
    }
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(wanted, rel=1e-5)
    assert losses.total.item() == pytest.approx(GOLDEN["losses"]["total"], rel=1e-6)
    losses.total.backward()
    assert outputs.logits.grad is not None
    assert outputs.boxes.grad is not None
    assert_same(outputs.logits.grad, GOLDEN["gradients"]["logits"], 1e-6)
    assert_same(outputs.boxes.grad, GOLDEN["gradients"]["boxes"], 1e-6)


def test_detections_are_the_authors():
    family = build_family(load_job_config("rf-detr-nano", ["model.queries=20", "model.backbone_layers=4"]), 7)
    made = golden.outputs()
    last = slice((golden.LAYERS - 1) * golden.GROUPS, (golden.LAYERS - 1) * golden.GROUPS + 1)
    found = family.detections(Outputs(made.logits[last], made.boxes[last]), torch.tensor(golden.SIZES))
    assert len(found[1].scores) == 100, "the authors keep all 140 pairs here"
    scores, boxes = found[1].scores[::11], found[1].boxes.flatten()[::46]  # as `short` picks from theirs
    assert scores.tolist() == pytest.approx(GOLDEN["detections"]["scores"]["some"][: len(scores)], abs=1e-6)
    assert boxes.tolist() == pytest.approx(GOLDEN["detections"]["boxes"]["some"][: len(boxes)], abs=1e-3)


def test_rates_are_the_authors():
    config = load_job_config("rf-detr-nano")
    family = on_meta("nano")
    found = {name: family.rate(name, config.optimizer) for name in GOLDEN["rates"]}
    assert found == pytest.approx(GOLDEN["rates"], rel=1e-6)
