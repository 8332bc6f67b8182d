"""The published model, its losses, matching and post-processing give the published code's numbers."""

import pytest
import torch

from detr_job.models.detr.criterion import DetrCriterion
from detr_job.models.detr.network import Detr
from detr_job.models.matcher import match
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.postprocess import softmax_detections
from run_config.families.detr import DetrModel
from run_config.job.config import Loss
from tests.detr_job.golden import BOXES, fill, padded_pair, targets, wave

GOLDEN = {
    "r50": {
        "logits": (-0.52018, -1.17778, -0.52045, -0.41625),
        "logits_mean_std": (-0.04988, 0.98006),
        "box": (0.4494, 0.37469, 0.59603, 0.47672),
        "boxes_mean": 0.473995,
        "ce_bbox_giou": (5.43944, 0.88202, 0.84633),
        "total": 68.94668,
        "match": {(0, 25, 0), (0, 35, 1), (0, 50, 2), (1, 55, 3)},
    },
    "r50-dc5": {
        "logits": (-0.56901, -1.14676, -0.55625, -0.38145),
        "logits_mean_std": (-0.06158, 0.96251),
        "box": (0.45495, 0.36054, 0.58766, 0.4871),
        "boxes_mean": 0.472973,
        "ce_bbox_giou": (5.32758, 0.87901, 0.8451),
        "total": 68.47262,
        "match": {(0, 32, 0), (0, 35, 2), (0, 51, 1), (1, 92, 3)},
    },
}


@pytest.fixture(scope="module", params=["r50", "r50-dc5"])
def case(request: pytest.FixtureRequest) -> tuple[dict[str, object], Outputs]:
    """The golden numbers and what this model gives."""
    model = Detr(DetrModel(dilation=request.param == "r50-dc5"), 91).eval()
    fill(model)
    with torch.no_grad():
        return GOLDEN[request.param], model(*padded_pair())


def pairs(outputs: Outputs, packed: Targets) -> set[tuple[int, ...]]:
    """(image, query, packed target) of the last layer."""
    matches = match(outputs, packed, -outputs.logits.softmax(-1), Loss())
    last = torch.stack((matches.image[-1], matches.query[-1], matches.target[-1]), dim=1)
    return {tuple(row) for row in last.tolist()}


def test_the_predictions_are_the_published_ones(case):
    golden, outputs = case
    logits, boxes = outputs.logits[-1], outputs.boxes[-1]
    assert logits.shape == (2, 100, 92)
    assert logits[0, 0, :4].tolist() == pytest.approx(golden["logits"], abs=5e-5)
    assert (logits.mean().item(), logits.std().item()) == pytest.approx(golden["logits_mean_std"], abs=5e-5)
    assert boxes[0, 0].tolist() == pytest.approx(golden["box"], abs=2e-5)
    assert boxes.mean().item() == pytest.approx(golden["boxes_mean"], abs=5e-6)


def test_the_losses_are_the_published_ones(case):
    golden, outputs = case
    losses = DetrCriterion(91, Loss())(outputs, targets(), len(targets()))
    last = [losses.terms[name].item() for name in ("loss_ce", "loss_bbox", "loss_giou")]
    assert last == pytest.approx(golden["ce_bbox_giou"], abs=2e-5)
    assert losses.total.item() == pytest.approx(golden["total"], abs=2e-4)


def test_the_queries_are_matched_as_published(case):
    golden, outputs = case
    assert pairs(outputs, targets()) == golden["match"]


@pytest.mark.parametrize("case", ["r50"], indirect=True)
def test_the_detections_are_the_published_ones(case):
    _, outputs = case
    first = softmax_detections(outputs, torch.tensor([[480, 640], [480, 640]]))[0]
    assert first.scores.shape == (100,)
    assert first.scores[0].item() == pytest.approx(0.09631, abs=1e-5)
    assert first.labels[0].item() == 17
    assert first.boxes[0].tolist() == pytest.approx((96.888, 65.436, 478.349, 294.262), abs=2e-3)


def test_the_criterion_alone_gives_the_published_numbers():
    logits = (2 * wave(40, 1)).float().reshape(1, 2, 5, 4)
    boxes = (1.5 * wave(40, 2)).sigmoid().float().reshape(1, 2, 5, 4)
    packed = Targets(torch.tensor([0, 2, 1]), torch.tensor([BOXES[0], BOXES[1], BOXES[3]]), (2, 1))
    outputs = Outputs(logits, boxes)
    terms = {name: value.item() for name, value in DetrCriterion(3, Loss())(outputs, packed, len(packed)).terms.items()}
    assert terms == pytest.approx(
        {
            "loss_ce": 1.549655,
            "loss_bbox": 0.674765,
            "loss_giou": 0.773122,
            "class_error": 66.667,
            "cardinality_error": 3.0,
        },
        abs=5e-4,
        rel=1e-5,
    )
    assert pairs(outputs, packed) == {(0, 0, 0), (0, 1, 1), (1, 4, 2)}
