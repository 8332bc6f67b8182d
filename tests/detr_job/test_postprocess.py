"""Detections are scores, labels and boxes in the pixels of the original image."""

import pytest
import torch

from detr_job.detections import Outputs
from detr_job.postprocess import sigmoid_detections, softmax_detections


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
