"""The loss of the tiny family, against the formulas written out one number at a time."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.tiny.criterion import VarifocalCriterion
from detr_job.models.tiny.network import TrainingOutputs
from run_config.job.config import Loss
from tests.detr_job.models.test_matcher import random_boxes

LOSS = Loss(classification=1.5, bbox=5.0, giou=2.0, cost_class=2.0)


def case(
    counts: tuple[int, ...], queries: int = 6, layers: int = 3, classes: int = 4, seed: int = 0
) -> tuple[Outputs, Targets]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, len(counts), queries, classes, generator=generator)
    labels = torch.randint(0, classes, (sum(counts),), generator=generator)
    boxes = random_boxes(generator, sum(counts))
    outputs = random_boxes(generator, layers, len(counts), queries)
    if sum(counts):
        outputs[:, 0, 0] = boxes[0] + 0.01  # one good prediction in each layer
    return Outputs(logits, outputs), Targets(labels, boxes, counts)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def by_hand(outputs: Outputs, targets: Targets, criterion: VarifocalCriterion) -> list[tuple[float, float, float]]:
    """(classification, L1, 1 - GIoU) of every layer, from arXiv 2008.13367 equation 2 and DETR's box losses."""
    matches = criterion.match(outputs, targets)
    layers, batch, queries, classes = outputs.logits.shape
    number = max(sum(targets.counts), 1)
    result = []
    for layer in range(layers):
        quality = {}
        l1 = giou = 0.0
        for image, query, target in zip(
            *(each[layer].tolist() for each in (matches.image, matches.query, matches.target)), strict=True
        ):
            box, wanted = outputs.boxes[layer, image, query], targets.boxes[target]
            overlap, generalised = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(wanted))
            quality[image, query, int(targets.labels[target])] = float(overlap)
            l1 += float((box - wanted).abs().sum())
            giou += 1 - float(generalised)
        classification = 0.0
        for image in range(batch):
            for query in range(queries):
                for label in range(classes):
                    p = sigmoid(float(outputs.logits[layer, image, query, label]))
                    q = quality.get((image, query, label), 0.0)
                    if q > 0:
                        classification -= q * (q * math.log(p) + (1 - q) * math.log(1 - p))
                    else:
                        classification -= 0.75 * p**2 * math.log(1 - p)
        result.append((classification / number, l1 / number, giou / number))
    return result


@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (1,), (0, 0), (8, 2)])
def test_the_loss_is_the_formula(counts: tuple[int, ...]):
    """(8, 2) has more boxes than there are queries; (0, 0) none at all."""
    criterion = VarifocalCriterion(LOSS)
    outputs, targets = case(counts)
    losses = criterion(outputs, targets, max(len(targets), 1))
    wanted = by_hand(outputs, targets, criterion)
    total = sum(1.5 * classification + 5 * l1 + 2 * giou for classification, l1, giou in wanted)
    assert float(losses.total) == pytest.approx(total, rel=1e-5)
    for layer, values in enumerate(wanted):
        suffix = "" if layer == len(wanted) - 1 else f"_{layer}"
        for name, value in zip(("loss_ce", "loss_bbox", "loss_giou"), values, strict=True):
            assert float(losses.terms[name + suffix]) == pytest.approx(value, rel=1e-5, abs=1e-7), name + suffix


def test_the_second_head_learns_each_box_with_several_tokens():
    """Its loss is that of targets repeated so often, added to the loss without it."""
    outputs, targets = case((2, 1), queries=9)
    dense, _ = case((2, 1), queries=9, layers=1, seed=1)
    criterion = VarifocalCriterion(LOSS, dense_targets=3)
    losses = criterion(TrainingOutputs(outputs.logits, outputs.boxes, dense), targets, 3)
    plain, repeated = VarifocalCriterion(LOSS)(outputs, targets, 3), targets.repeated(3)
    assert repeated.counts == (6, 3)
    assert repeated.labels.tolist() == [label for label in targets.labels.tolist() for _ in range(3)]
    extra = VarifocalCriterion(LOSS)(dense, repeated, 9)
    assert float(losses.total) == pytest.approx(float(plain.total + extra.total))
    assert losses.terms == plain.terms | {f"{name}_dense": value for name, value in extra.terms.items()}


def focal_cost(logit: float) -> float:
    """Of RetinaNet's loss (arXiv 1708.02002), what a positive costs more than a negative."""
    p = sigmoid(logit)
    return -0.25 * (1 - p) ** 2 * math.log(p + 1e-8) + 0.75 * p**2 * math.log(1 - p + 1e-8)


@pytest.mark.parametrize("seed", range(30))
def test_queries_are_matched_by_focal_cost(seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(1, 1, 3, 2, generator=generator)
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.2])  # all equal: only the classes decide
    outputs, targets = (
        Outputs(logits, boxes.expand(1, 1, 3, 4)),
        Targets(torch.tensor([0, 1]), boxes.expand(2, 4), (2,)),
    )
    matches = VarifocalCriterion(LOSS).match(outputs, targets)
    chosen = dict(zip(matches.target[0].tolist(), matches.query[0].tolist(), strict=True))
    costs = {
        pair: sum(focal_cost(float(logits[0, 0, query, label])) for label, query in enumerate(pair))
        for pair in itertools.permutations(range(3), 2)
    }
    assert costs[chosen[0], chosen[1]] == pytest.approx(min(costs.values()), abs=1e-6)


def test_a_batch_without_boxes_still_teaches_that_there_is_nothing():
    outputs, targets = case((0, 0))
    logits = outputs.logits.clone().requires_grad_()
    boxes = outputs.boxes.clone().requires_grad_()
    losses = VarifocalCriterion(LOSS)(Outputs(logits, boxes), targets, 1)
    losses.total.backward()
    assert (logits.grad > 0).all()
    assert not boxes.grad.any()
    assert float(losses.terms["loss_bbox"]) == 0


def test_the_target_is_not_differentiated():
    """The IoU that a matched query's score is to reach is a number, not a way to lower the loss."""
    outputs, targets = case((2,))
    boxes = outputs.boxes.clone().requires_grad_()
    losses = VarifocalCriterion(LOSS.model_copy(update={"bbox": 0.0, "giou": 0.0}))(
        Outputs(outputs.logits.clone().requires_grad_(), boxes), targets, len(targets)
    )
    losses.total.backward()
    assert not boxes.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_computes_in_full_precision_also_within_autocast(dtype: torch.dtype):
    outputs, targets = case((2, 3))
    low = Outputs(outputs.logits.to(dtype), outputs.boxes.to(dtype))
    wanted = VarifocalCriterion(LOSS)(Outputs(low.logits.float(), low.boxes.float()), targets, len(targets))
    with torch.autocast("cpu", torch.bfloat16):
        losses = VarifocalCriterion(LOSS)(low, targets, len(targets))
    assert losses.total.dtype == torch.float32
    assert torch.equal(losses.total, wanted.total)


@pytest.mark.parametrize("broken", ["logits", "boxes"])
def test_a_value_that_is_not_finite_makes_the_loss_so(broken: str):
    outputs, targets = case((2, 1))
    getattr(outputs, broken)[1, 0] = torch.nan
    assert not math.isfinite(float(VarifocalCriterion(LOSS)(outputs, targets, len(targets)).total))


def test_extreme_scores_and_boxes_stay_finite():
    outputs, targets = case((2, 1))
    logits: Tensor = (outputs.logits * 100).requires_grad_()
    boxes = torch.zeros_like(outputs.boxes).requires_grad_()
    losses = VarifocalCriterion(LOSS)(Outputs(logits, boxes), targets, len(targets))
    losses.total.backward()
    assert losses.total.isfinite()
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()
