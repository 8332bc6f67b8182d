"""The head of `tiny` that exists for training: which tokens learn a box, and that nothing else changes."""

import pytest
import torch

from detr_job.family import build_family
from detr_job.models.outputs import Targets
from detr_job.models.tiny.dense import TOKENS_PER_BOX, DenseOutputs, _quality, dense_losses
from detr_job.models.tiny.network import TinyOutputs
from run_config.job.config import Loss
from run_config.job.presets import load_job_config

SMALL = (
    "model.hidden_dim=16",
    "model.heads=2",
    "model.stem_channels=8",
    "model.stage_channels=[8,8,16,16]",
    "model.feedforward_dim=24",
)
TARGETS = Targets(torch.tensor([1, 0]), torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.3, 0.3]]), (1, 1))
NO_TARGETS = Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (0, 0))


def grid(side: int = 8, size: float = 0.4) -> DenseOutputs:
    """Untrained predictions: each token predicts its own cell, with every class as likely."""
    y, x = torch.meshgrid((torch.arange(side) + 0.5) / side, (torch.arange(side) + 0.5) / side, indexing="ij")
    cells = torch.stack((x, y, torch.full_like(x, size), torch.full_like(x, size)), -1).flatten(0, 1).expand(2, -1, -1)
    return DenseOutputs(torch.zeros(2, side * side, 2), cells.clone().requires_grad_(), cells, None)


def padded(outputs: DenseOutputs, mask: torch.Tensor | None = None) -> DenseOutputs:
    return DenseOutputs(outputs.logits, outputs.boxes, outputs.cells, mask)


def quality(outputs: DenseOutputs) -> torch.Tensor:
    return _quality(outputs, TARGETS, TARGETS.labels[:, None], TARGETS.boxes[:, None])[0]


def test_the_tokens_that_fit_a_box_best_learn_it():
    found = quality(grid())
    learning = found > 0
    assert learning[0].sum() >= TOKENS_PER_BOX  # ties at the last place count
    assert learning[0].sum() < 20
    centres = grid().cells[0, learning[0], :2]
    assert ((centres - 0.5).abs() < 0.25).all()
    assert 0.5 < found.max() <= 1


def test_a_token_on_padding_learns_nothing():
    mask = torch.zeros(2, 64, dtype=torch.bool)
    mask[0, 27] = True  # the cell left above the middle
    assert quality(padded(grid()))[0, 27] > 0
    assert quality(padded(grid(), mask))[0, 27] == 0


def test_losses_pull_boxes_to_the_object_and_nothing_else():
    outputs = grid()
    losses = dense_losses(Loss(), 1.0, outputs, TARGETS)
    losses.total.backward()
    assert outputs.boxes.grad is not None
    moved = outputs.boxes.grad.abs().sum(-1) > 0
    assert torch.equal(moved, quality(outputs) > 0)
    assert losses.terms.keys() == {"loss_dense_ce", "loss_dense_bbox", "loss_dense_giou"}
    assert torch.allclose(dense_losses(Loss(), 0.5, outputs, TARGETS).total, losses.total / 2)


def test_images_without_boxes_teach_only_that_there_is_nothing():
    losses = dense_losses(Loss(), 1.0, grid(), NO_TARGETS)
    assert losses.terms["loss_dense_ce"] > 0
    assert losses.terms["loss_dense_bbox"] == losses.terms["loss_dense_giou"] == 0


@pytest.mark.parametrize("padding", [False, True])
def test_the_head_learns_and_does_not_change_predictions(padding: bool):
    torch.manual_seed(0)
    family = build_family(load_job_config("tiny", [*SMALL, "model.dense_weight=1"]), 2)
    images, mask = torch.randn(2, 3, 64, 96), None
    if padding:
        mask = torch.zeros(2, 64, 96, dtype=torch.bool)
        mask[1, :, 64:] = True
    losses = family.losses(family.network, images, mask, TARGETS, num_boxes=2, generator=torch.Generator())
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in family.network.dense_head.parameters())
    assert "loss_dense_ce" in losses.terms
    assert "dense_head.class_embed.weight" in family.class_heads

    plain = build_family(load_job_config("tiny", SMALL), 2)
    assert plain.network.dense_head is None
    missing, unexpected = plain.network.load_state_dict(family.network.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in unexpected} == {"dense_head"}
    with torch.no_grad():
        one, other = (each.network.eval()(images, mask) for each in (family, plain))
    assert isinstance(one, TinyOutputs)
    assert one.dense is None
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.boxes, other.boxes)
