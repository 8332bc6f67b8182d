"""The Deformable DETR family for training and prediction."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from detr_job.family import Family
from detr_job.models.deformable_detr.criterion import DeformableDetrCriterion
from detr_job.models.deformable_detr.network import DeformableDetr
from detr_job.models.imagenet_weights import load_imagenet_weights
from detr_job.models.outputs import Outputs
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from published_weights.names.deformable_detr import own_names
from run_config.families.deformable_detr import DeformableDetrModel
from run_config.job.config import JobConfig, Optimizer

SLOW = ("reference_points", "sampling_offsets")
"""Parameters with a tenth of the learning rate."""


class DeformableDetrFamily(Family):
    """Detections are the best pairs of query and class. The backbone can start from ImageNet weights."""

    network: DeformableDetr

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, DeformableDetrModel)
        self.network = DeformableDetr(model, num_classes)
        self.criterion = DeformableDetrCriterion(config.loss)
        self.most_detections = most_pairs(model.queries, num_classes)
        if model.two_stage:
            self.objectness_head = f"class_embed.{model.decoder_layers}."

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return sigmoid_detections(outputs, sizes)

    def rate(self, name: str, settings: Optimizer) -> float:
        """See Family."""
        return super().rate(name, settings) * (0.1 if any(part in name for part in SLOW) else 1)

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Family. Reads the files of the authors and those of the transformers library."""
        return own_names(weights, torch.cat)

    def load_backbone(self, path: Path) -> None:
        """See Family."""
        load_imagenet_weights(self.network.body, path)


build = DeformableDetrFamily  # `build_family` looks for this name
