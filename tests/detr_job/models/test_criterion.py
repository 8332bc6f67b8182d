"""The loss of all layers at once is the sum of the layers' losses, finite for every batch, and in fp32."""

import pytest
import torch

from detr_job.models.detr.criterion import DetrCriterion
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss
from tests.detr_job.golden import targets


def random_outputs(layers: int = 3, queries: int = 20) -> Outputs:
    torch.manual_seed(0)
    logits = torch.randn(layers, 2, queries, 92, requires_grad=True)
    return Outputs(logits, torch.rand(layers, 2, queries, 4) * 0.5 + 0.1)


def no_targets() -> Targets:
    return Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (0, 0))


def test_layers_are_matched_and_lost_one_by_one():
    outputs = random_outputs()
    criterion = DetrCriterion(91, Loss())
    together = criterion(outputs, targets(), len(targets()))
    assert {name for name in together.terms if name.startswith("loss_ce")} == {
        "loss_ce_0",
        "loss_ce_1",
        "loss_ce",
    }
    alone = [
        criterion(Outputs(outputs.logits[i : i + 1], outputs.boxes[i : i + 1]), targets(), len(targets()))
        for i in range(3)
    ]
    assert together.total.item() == pytest.approx(sum(each.total.item() for each in alone), rel=1e-6)
    assert together.terms["loss_giou_1"].item() == pytest.approx(alone[1].terms["loss_giou"].item())
    assert together.terms["class_error"] == alone[2].terms["class_error"]


def test_without_auxiliary_losses_only_the_last_layer_counts():
    outputs = random_outputs()
    last = DetrCriterion(91, Loss())(Outputs(outputs.logits[-1:], outputs.boxes[-1:]), targets(), len(targets()))
    losses = DetrCriterion(91, Loss(), aux=False)(outputs, targets(), len(targets()))
    assert losses.total.item() == pytest.approx(last.total.item())
    assert "loss_ce_0" not in losses.terms


def test_the_total_is_the_weighted_sum_of_the_terms():
    loss = Loss(classification=3, bbox=7, giou=0.5)
    losses = DetrCriterion(91, loss)(random_outputs(1), targets(), len(targets()))
    ce, bbox, giou = (losses.terms[name].item() for name in ("loss_ce", "loss_bbox", "loss_giou"))
    assert losses.total.item() == pytest.approx(3 * ce + 7 * bbox + 0.5 * giou, rel=1e-6)


def test_a_batch_without_boxes_teaches_no_object_alone():
    outputs = random_outputs()
    losses = DetrCriterion(91, Loss())(outputs, no_targets(), 1)
    expected = -outputs.logits.log_softmax(-1)[-1, ..., -1].mean()
    assert losses.terms["loss_ce"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.terms["loss_bbox"] == 0
    assert losses.terms["class_error"] == 0
    losses.total.backward()
    assert torch.isfinite(outputs.logits.grad).all()


def test_nothing_to_teach_is_a_loss_of_zero_and_not_nan():
    losses = DetrCriterion(91, Loss(no_object=0))(random_outputs(), no_targets(), 1)
    assert losses.total == 0


def test_more_boxes_than_queries_leave_boxes_over():
    packed = Targets(torch.arange(9), torch.rand(9, 4) * 0.4 + 0.1, (7, 2))
    losses = DetrCriterion(91, Loss())(random_outputs(queries=4), packed, len(packed))
    assert torch.isfinite(losses.total)


def test_losses_are_fp32_under_autocast():
    outputs = random_outputs()
    low = Outputs(outputs.logits.bfloat16(), outputs.boxes)
    expected = DetrCriterion(91, Loss())(Outputs(low.logits.float(), low.boxes), targets(), len(targets()))
    with torch.autocast("cpu", torch.bfloat16):
        losses = DetrCriterion(91, Loss())(low, targets(), len(targets()))
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == expected.total.item()


def test_terms_carry_no_graph():
    losses = DetrCriterion(91, Loss())(random_outputs(), targets(), len(targets()))
    assert losses.total.requires_grad
    assert not any(term.requires_grad for term in losses.terms.values())
