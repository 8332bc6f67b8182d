"""A training step of each family: batches without boxes, of one image, padded, in bf16, and in halves."""

import pytest
import torch
from torch import Tensor, nn

from detr_job.family import Family, build_family
from detr_job.hardware import autocast
from detr_job.models.losses import Losses
from detr_job.models.outputs import Targets
from run_config.families.registry import FAMILIES
from tests.detr_job.pictures import small_config

CPU = torch.device("cpu")
BOXES = ((0.3, 0.3, 0.2, 0.2), (0.7, 0.6, 0.3, 0.4), (0.5, 0.5, 0.5, 0.4))


def family_of(name: str) -> Family:
    torch.manual_seed(1)
    family = build_family(small_config(name), 3)
    family.network.train()
    return family


def targets(*counts: int) -> Targets:
    return Targets(torch.arange(sum(counts)) % 3, torch.tensor(BOXES[: sum(counts)]).reshape(-1, 4), counts)


def images(batch: int) -> Tensor:
    return torch.randn((batch, 3, 64, 96), generator=torch.Generator().manual_seed(2))


def step(
    family: Family, pixels: Tensor, packed: Targets, *, mask: Tensor | None = None, boxes: float = 3, bf16: bool = False
) -> Losses:
    """The losses of a batch; their gradients are added to the network's."""
    torch.manual_seed(3)  # of dropout
    with autocast(CPU, bf16=bf16):
        losses = family.losses(
            family.network, pixels, mask, packed, num_boxes=boxes, generator=torch.Generator().manual_seed(3)
        )
    losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name, parameter in family.network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(value.isfinite() and not value.requires_grad for value in losses.terms.values())
    return losses


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (3,), (0,)])
@pytest.mark.parametrize("name", FAMILIES)
def test_images_without_boxes_and_batches_of_one_image_have_finite_gradients(
    name: str, counts: tuple[int, ...], bf16: bool
):
    losses = step(family_of(name), images(len(counts)), targets(*counts), boxes=max(sum(counts), 1), bf16=bf16)
    assert losses.total.dtype == torch.float32


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_padded_batches_have_finite_gradients(name: str, bf16: bool):
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, :, 33:] = True
    step(family_of(name), images(2).masked_fill(mask[:, None], 0), targets(2, 1), mask=mask, bf16=bf16)


@pytest.mark.parametrize("shape", [(96, 16), (33, 1)])
@pytest.mark.parametrize("name", FAMILIES)
def test_maps_that_are_one_pixel_wide_have_finite_gradients_in_bf16(name: str, shape: tuple[int, int]):
    step(family_of(name), images(2)[:, :, :1, :1].expand(-1, -1, *shape), targets(2, 1), bf16=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_number_of_detections_follows_the_queries(name: str):
    assert build_family(small_config(name, **{"model.queries": 450}), 1).most_detections == 450


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"faster_rcnn"}))  # its terms are means over its proposals
def test_box_terms_are_divided_by_the_given_number_of_boxes(name: str):
    """D-FINE divides the terms of its own queries by the pairs that all layers agree on."""
    term = "loss_dn_bbox" if name == "d_fine" else "loss_bbox"
    once, twice = (step(family_of(name), images(2), targets(2, 1), boxes=boxes).terms[term] for boxes in (3, 6))
    assert once.item() == pytest.approx(2 * twice.item(), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_accumulated_batches_add_their_gradients(name: str):
    """As for data.accumulate and for the halves of a batch that did not fit."""
    first, second = images(2).split(1)
    gradients = []
    for batches in (((first, targets(2)),), ((second, targets(1)),), ((first, targets(2)), (second, targets(1)))):
        family = family_of(name)
        for pixels, packed in batches:
            step(family, pixels, packed)
        named = family.network.named_parameters()
        gradients.append({key: each.grad for key, each in named if each.grad is not None})
    one, other, both = gradients
    for key, gradient in both.items():
        torch.testing.assert_close(gradient, one[key] + other[key], atol=1e-5, rtol=1e-4, msg=key)


class Detections(nn.Module):
    """Class scores and boxes of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(pixels, None)
        return outputs.logits, outputs.boxes


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"faster_rcnn"}))  # its number of boxes depends on values
def test_the_network_can_be_exported_without_grid_sample(name: str):
    """TensorRT computes wrong numbers for `GridSample`; gathering does the same."""
    network = Detections(family_of(name).network).eval()
    with torch.no_grad():
        exported = torch.export.export(network, (images(1),), strict=False)
        expected, found = network(images(1)), exported.module()(images(1))
    assert "grid_sampler" not in str(exported.graph)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
