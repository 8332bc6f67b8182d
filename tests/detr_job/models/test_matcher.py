"""The assignment of queries to boxes is the cheapest one, whatever the numbers are."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.matcher import Matches, match
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss

WEIGHTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0}


def random_boxes(generator: torch.Generator, *shape: int) -> Tensor:
    centre = torch.rand(*shape, 2, generator=generator)
    return torch.cat((centre, 0.05 + 0.4 * torch.rand(*shape, 2, generator=generator)), dim=-1)


def case(
    seed: int, layers: int, queries: int, counts: tuple[int, ...], classes: int = 4
) -> tuple[Outputs, Targets, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch = len(counts)
    logits = torch.randn(layers, batch, queries, classes, generator=generator)
    outputs = Outputs(logits, random_boxes(generator, layers, batch, queries))
    labels = torch.randint(0, classes, (sum(counts),), generator=generator)
    return outputs, Targets(labels, random_boxes(generator, sum(counts)), counts), -logits.sigmoid()


def cost_of_pair(
    outputs: Outputs, targets: Targets, class_cost: Tensor, layer: int, image: int, query: int, target: int
):
    """The cost of DETR's paper (arXiv 2005.12872 equation 1), one pair at a time."""
    box, wanted = outputs.boxes[layer, image, query], targets.boxes[target]
    giou = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(wanted))[1]
    return float(
        WEIGHTS["cost_class"] * class_cost[layer, image, query, targets.labels[target]]
        + WEIGHTS["cost_bbox"] * (box - wanted).abs().sum()
        - WEIGHTS["cost_giou"] * giou
    )


def pairs(matches: Matches, layer: int) -> set[tuple[int, int, int]]:
    return set(zip(*(each[layer].tolist() for each in (matches.image, matches.query, matches.target)), strict=True))


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 5), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_no_other_assignment_is_cheaper(seed: int, layers: int, queries: int, counts: list[int]):
    outputs, targets, class_cost = case(seed, layers, queries, tuple(counts))
    matches = match(outputs, targets, class_cost, Loss(**WEIGHTS))
    starts = [sum(counts[:image]) for image in range(len(counts))]
    for layer in range(layers):
        found = pairs(matches, layer)
        for image, count in enumerate(counts):
            own = [(query, target) for at, query, target in found if at == image]
            assert len(own) == min(count, queries)
            assert len({query for query, _ in own}) == len({target for _, target in own}) == len(own)
            assert all(starts[image] <= target < starts[image] + count for _, target in own)
            cost = {
                (query, starts[image] + box): cost_of_pair(
                    outputs, targets, class_cost, layer, image, query, starts[image] + box
                )
                for query in range(queries)
                for box in range(count)
            }
            least = min(_all_assignments(cost, queries, range(starts[image], starts[image] + count)), default=0.0)
            assert sum(cost[pair] for pair in own) == pytest.approx(least, abs=1e-4)


def _all_assignments(cost: dict[tuple[int, int], float], queries: int, targets: range):
    if len(targets) <= queries:
        for chosen in itertools.permutations(range(queries), len(targets)):
            yield sum(cost[query, target] for query, target in zip(chosen, targets, strict=True))
    else:
        for chosen in itertools.permutations(targets, queries):
            yield sum(cost[query, target] for query, target in enumerate(chosen))


def test_a_batch_without_boxes_has_no_pairs():
    outputs, targets, class_cost = case(0, 2, 5, (0, 0))
    matches = match(outputs, targets, class_cost, Loss(**WEIGHTS))
    assert matches.image.shape == matches.query.shape == matches.target.shape == (2, 0)
    assert matches.query.dtype == torch.int64


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_matched_last_and_break_nothing(broken: float):
    outputs, targets, class_cost = case(1, 1, 4, (2, 1))
    outputs.boxes[0, 0, 1] = broken
    class_cost[0, 1, 2] = broken
    matches = match(outputs, targets, class_cost, Loss(**WEIGHTS))
    found = pairs(matches, 0)
    assert len(found) == 3
    assert not {(image, query) for image, query, _ in found} & {(0, 1), (1, 2)}
    outputs.boxes[:] = broken
    assert len(pairs(match(outputs, targets, class_cost, Loss(**WEIGHTS)), 0)) == 3


def test_nothing_is_differentiated_through_the_matching():
    outputs, targets, class_cost = case(2, 1, 4, (2,))
    outputs = Outputs(outputs.logits.requires_grad_(), outputs.boxes.requires_grad_())
    matches = match(outputs, targets, class_cost.requires_grad_(), Loss(**WEIGHTS))
    assert not any(each.requires_grad for each in (matches.image, matches.query, matches.target))
