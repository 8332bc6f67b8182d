"""D-FINE as published (arXiv 2410.13842), including state-dict keys: public checkpoints load strictly."""

from typing import Self

import torch
from torch import Tensor, nn

from detr_job.data.batches import MEAN, STD
from detr_job.models.d_fine.decoder import Decoder, Predictions
from detr_job.models.d_fine.denoising import Denoising
from detr_job.models.d_fine.hgnetv2 import HGNetV2, Style
from detr_job.models.d_fine.hybrid_encoder import HybridEncoder
from detr_job.models.outputs import Outputs
from detr_job.models.padding import resized_mask
from run_config.families.d_fine import DFineModel


class DFine(nn.Module):
    """Backbone, hybrid encoder and decoder."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: DFineModel, num_classes: int) -> None:
        super().__init__()
        self.backbone = HGNetV2(config.backbone, config.levels, Style(config.affine_activations, config.freeze_norms))
        self.encoder = HybridEncoder(config, self.backbone.channels)
        self.decoder = Decoder(config, num_classes)
        # published D-FINE reads pixels in 0…1, and the images here are normalised
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(STD)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen backbone stays in evaluation mode, so that its statistics do not change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def forward(
        self, images: Tensor, padding_mask: Tensor | None = None, denoising: Denoising | None = None
    ) -> Outputs | Predictions:
        """The outputs of the last decoder layer; in training mode, the predictions of all layers.

        images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True on padding, which must lie to the right
        and below, or None without padding. denoising: more queries, for training.
        """
        images = images * self.deviation + self.mean
        if padding_mask is not None:
            images = images.masked_fill(padding_mask[:, None], 0)
        features = self.backbone(images)
        maps = self.encoder(features, resized_mask(padding_mask, features[-1]))
        # The decoder predicts box coordinates: full precision from here.
        with torch.autocast(images.device.type, enabled=False):
            found: Predictions = self.decoder([x.to(self.decoder.up.dtype) for x in maps], padding_mask, denoising)
        return found if self.training else found.layers
