"""The DETR family for training and prediction."""

from pathlib import Path

from torch import Tensor

from detr_job.family import Family
from detr_job.models.detr.criterion import DetrCriterion
from detr_job.models.detr.network import Detr
from detr_job.models.imagenet_weights import load_imagenet_weights
from detr_job.models.outputs import Outputs
from detr_job.models.postprocess import Detections, softmax_detections
from run_config.families.detr import DetrModel
from run_config.job.config import MOST_BOXES, JobConfig


class DetrFamily(Family):
    """One detection per query. The backbone can start from ImageNet weights."""

    network: Detr
    not_sums = "the class loss is a mean over the queries of a part"

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, DetrModel)
        self.network = Detr(model, num_classes)
        self.criterion = DetrCriterion(num_classes, config.loss, model.aux_loss)
        self.most_detections = min(model.queries, MOST_BOXES)

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return softmax_detections(outputs, sizes)

    def load_backbone(self, path: Path) -> None:
        """See Family."""
        load_imagenet_weights(self.network.body, path)


build = DetrFamily  # `build_family` looks for this name
