"""A second opinion: the DETR of the transformers library, with our weights, sees and loses the same."""

import pytest
import torch

from benchmarks.transformers_detr import transformers_detr
from detr_job.models.detr.criterion import DetrCriterion
from detr_job.models.detr.network import Detr
from run_config.families.detr import DetrModel
from run_config.job.config import Loss
from tests.detr_job.golden import padded_pair, targets


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_predictions_and_losses_are_those_of_transformers(backbone: str):
    torch.manual_seed(0)
    config = DetrModel(backbone=backbone, encoder_layers=3, decoder_layers=3)
    model = Detr(config, 91).eval()
    for buffer in model.buffers():
        buffer.uniform_(0.5, 1.5)
    twin = transformers_detr(model, config, 91).eval()
    images, mask = padded_pair()
    packed = targets()
    labels = [
        {"class_labels": packed.labels[:3], "boxes": packed.boxes[:3]},
        {"class_labels": packed.labels[3:], "boxes": packed.boxes[3:]},
    ]
    with torch.no_grad():
        ours = model(images, mask)
        theirs = twin(pixel_values=images, pixel_mask=(~mask).long(), labels=labels)
    torch.testing.assert_close(ours.logits[-1], theirs.logits, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.boxes[-1], theirs.pred_boxes, atol=2e-6, rtol=1e-5)
    losses = DetrCriterion(91, Loss())(ours, packed, len(packed))
    assert losses.total.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    expected = {name: term.item() for name, term in theirs.loss_dict.items() if name.startswith("loss")}
    assert len(expected) == 9
    assert {name: losses.terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)
