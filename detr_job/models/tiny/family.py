"""The small deformable DETR for training and prediction."""

import torch
from torch import Tensor, nn

from detr_job.detections import Outputs, Targets
from detr_job.family import Family
from detr_job.losses import Losses
from detr_job.models.tiny.criterion import VarifocalCriterion
from detr_job.models.tiny.network import Tiny
from detr_job.postprocess import Detections, most_pairs, sigmoid_detections
from run_config.families.tiny import TinyModel
from run_config.job import JobConfig


class TinyFamily(Family):
    """Detections are the best pairs of query and class."""

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, TinyModel)
        self.network = Tiny(model, num_classes)
        self.criterion = VarifocalCriterion(config.loss)
        self.most_detections = min(most_pairs(model.queries), model.queries * num_classes)

    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        padding_mask: Tensor | None,
        targets: Targets,
        *,
        num_boxes: float,
        generator: torch.Generator,
    ) -> Losses:
        """See Family."""
        del generator  # only dropout is random
        return self.criterion(network(images, padding_mask), targets, num_boxes)

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return sigmoid_detections(outputs, sizes)


build = TinyFamily  # by this name `build_family` finds it
