"""The tiny family, a small deformable DETR, for training and prediction."""

from torch import Tensor

from detr_job.family import Family
from detr_job.models.outputs import Outputs
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from detr_job.models.tiny.criterion import VarifocalCriterion
from detr_job.models.tiny.network import Tiny
from run_config.families.tiny import TinyModel
from run_config.job.config import JobConfig


class TinyFamily(Family):
    """Detections are the best pairs of query and class."""

    training_parts = ("dense_head.",)

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, TinyModel)
        self.network = Tiny(model, num_classes)
        self.criterion = VarifocalCriterion(config.loss, model.dense_targets)
        self.most_detections = most_pairs(model.queries, num_classes)

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return sigmoid_detections(outputs, sizes)


build = TinyFamily  # `build_family` looks for this name
