"""Detections are scores, labels and boxes in the pixels of the original image."""

import pytest
import torch

from detr_job.family import build_family
from detr_job.models.outputs import Outputs
from detr_job.models.postprocess import sigmoid_detections, softmax_detections
from run_config.job.config import MOST_BOXES
from tests.detr_job.pictures import small_config


def outputs(logits: list[list[float]], boxes: list[list[float]]) -> Outputs:
    """One image; a first layer that must be ignored, then the given one."""
    last = torch.tensor(logits)[None, None], torch.tensor(boxes)[None, None]
    return Outputs(*(torch.cat((torch.zeros_like(each), each)) for each in last))


def test_softmax_takes_the_best_real_class_of_each_query():
    found = softmax_detections(
        outputs([[0.0, 2.0, 5.0], [3.0, 1.0, -9.0]], [[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]),
        torch.tensor([[100, 200]]),
    )
    assert len(found) == 1
    assert found[0].labels.tolist() == [1, 0]
    expected = torch.tensor([[0.0, 2.0, 5.0], [3.0, 1.0, -9.0]]).softmax(-1)
    assert found[0].scores.tolist() == pytest.approx([expected[0, 1].item(), expected[1, 0].item()])
    assert found[0].boxes.tolist() == [pytest.approx([80, 30, 120, 70]), pytest.approx([0, 0, 100, 100])]


def test_sigmoid_takes_the_best_pairs_of_query_and_class():
    found = sigmoid_detections(
        outputs([[0.0, 2.0], [3.0, 1.0]], [[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]),
        torch.tensor([[100, 200]]),
        most=3,
    )
    assert found[0].labels.tolist() == [0, 1, 1]
    assert found[0].scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    assert found[0].boxes[:, 0].tolist() == pytest.approx([0, 80, 0])


def test_sigmoid_gives_all_pairs_when_there_are_few():
    found = sigmoid_detections(outputs([[0.0, 2.0]], [[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[10, 10]]))
    assert found[0].scores.shape == (2,)


def test_each_image_has_its_own_size_and_rows():
    logits, boxes = torch.randn(1, 2, 4, 3), torch.rand(1, 2, 4, 4)
    sizes = torch.tensor([[100, 200], [30, 20]])
    both = softmax_detections(Outputs(logits, boxes), sizes)
    for index in range(2):
        alone = softmax_detections(
            Outputs(logits[:, index : index + 1], boxes[:, index : index + 1]), sizes[index : index + 1]
        )[0]
        assert torch.equal(both[index].boxes, alone.boxes)
        assert torch.equal(both[index].scores, alone.scores)


@pytest.mark.parametrize(("queries", "expected"), [(60, 100), (100, 100), (450, 450), (MOST_BOXES + 7, MOST_BOXES)])
def test_the_number_of_boxes_follows_the_queries(queries: int, expected: int):
    last = Outputs(torch.randn(1, 1, queries, 3), torch.rand(1, 1, queries, 4))
    found = sigmoid_detections(last, torch.tensor([[100, 200]]))[0]
    assert len(found.scores) == len(found.labels) == len(found.boxes) == expected
    assert torch.equal(found.scores, last.logits.sigmoid().flatten().sort(descending=True).values[:expected])


def test_above_the_limit_softmax_keeps_the_best_queries_in_their_order():
    queries = MOST_BOXES + 3
    logits = torch.zeros(1, 1, queries, 2)
    logits[..., 0] = torch.rand(queries) + 1
    logits[0, 0, (0, 77, queries - 1), 0] = -5.0  # the three weakest
    found = softmax_detections(Outputs(logits, torch.rand(1, 1, queries, 4)), torch.tensor([[100, 200]]))[0]
    strong = [query for query in range(queries) if query not in {0, 77, queries - 1}]
    assert torch.equal(found.scores, logits[0, 0].softmax(-1)[strong, 0])


@pytest.mark.parametrize(
    ("kind", "queries", "classes", "most"),
    [("tiny", 20, 3, 60), ("tiny", 60, 3, 100), ("tiny", 450, 1, 450), ("detr", 20, 3, 20), ("detr", 120, 3, 120)],
)
def test_a_family_says_how_many_boxes_an_image_can_get(kind: str, queries: int, classes: int, most: int):
    family = build_family(small_config(kind, **{"model.queries": queries}), classes)
    assert family.most_detections == most
    outputs = Outputs(torch.randn(1, 1, queries, classes + (kind == "detr")), torch.rand(1, 1, queries, 4))
    assert len(family.detections(outputs, torch.tensor([[10, 10]]))[0].scores) == most
