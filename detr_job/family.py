"""The families of models: for each, the network, its loss and the reading of its outputs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from detr_job.criterion import DetrCriterion, Losses
from detr_job.detections import Outputs, Targets
from detr_job.models.detr import Detr, build_detr
from detr_job.models.tiny import Tiny, build_tiny
from detr_job.postprocess import Detections, most_pairs, sigmoid_detections, softmax_detections
from detr_job.varifocal_criterion import VarifocalCriterion
from run_config.job import MOST_BOXES, DetrModel, JobConfig, TinyModel


@dataclass(frozen=True, slots=True)
class Family:
    """A network and what belongs to it.

    detections: last layer's outputs and original sizes (B, 2) as height, width to one record an image.
    class_heads: names of the parameters with one row a class; a row more than classes is "no object".
    most_detections: the largest number of detections that an image can get.
    """

    network: nn.Module
    criterion: Callable[[Outputs, Targets], Losses]
    detections: Callable[[Outputs, Tensor], list[Detections]]
    class_heads: tuple[str, ...]
    most_detections: int


def build_family(config: JobConfig, num_classes: int) -> Family:
    """The configured model with fresh weights, its criterion and its post-processing."""
    model = config.model
    network: Detr | Tiny
    criterion: Callable[[Outputs, Targets], Losses]
    detections: Callable[[Outputs, Tensor], list[Detections]]
    if isinstance(model, DetrModel):
        network = build_detr(model, num_classes)
        criterion, detections = DetrCriterion(num_classes, config.loss, model.aux_loss), softmax_detections
    else:
        network = build_tiny(model, num_classes)
        criterion, detections = VarifocalCriterion(config.loss), sigmoid_detections
    if config.optimizer.lr_backbone == 0:
        network.backbone.requires_grad_(requires_grad=False)
    heads = tuple(name for name, _ in network.named_parameters() if "class_embed" in name)
    return Family(network, criterion, detections, heads, most_detections(model, num_classes))


def most_detections(model: DetrModel | TinyModel, num_classes: int) -> int:
    """The largest number of detections that an image can get from a model."""
    if isinstance(model, DetrModel):
        return min(model.queries, MOST_BOXES)  # one per query
    return min(most_pairs(model.queries), model.queries * num_classes)  # the best pairs of query and class
