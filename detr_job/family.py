"""What a model family provides for training and prediction, and how the configured family is found."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr_job.errors import JobError
from detr_job.models.losses import Losses
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.postprocess import Detections
from run_config.job.config import JobConfig, Optimizer
from run_config.weights.coco_classes import COCO_CLASSES


def usual_rate(name: str, settings: Optimizer) -> float:
    """The learning rate of the backbone, or of the rest."""
    return settings.lr_backbone if "backbone" in name else settings.lr


class Family(ABC):
    """A network with its criterion and post-processing.

    network: has fresh weights; the names of its backbone's parameters contain `backbone`. criterion: computes the
    losses from what the network returns, targets and the number of boxes to divide by. most_detections: the most
    detections that an image can get. public_classes: the class of each row of the heads in public checkpoints.
    objectness_head: prefix of the parameters of a class head whose first row means "any object"; empty: there is none.
    not_sums: what in the losses is no sum over images divided by the number of boxes, for the log; empty: nothing.
    training_parts: prefixes of the parameters that only training uses, which weights may lack.
    """

    network: nn.Module
    criterion: Callable[[Any, Targets, float], Losses]
    most_detections: int
    public_classes: tuple[str | None, ...] = COCO_CLASSES
    objectness_head: str = ""
    not_sums: str = ""
    training_parts: tuple[str, ...] = ()

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
        """Run the network on a training batch, under autocast, and compute its losses in full precision.

        A family overrides this if its forward pass needs the targets or random numbers.

        network: `self.network` or its wrapper. images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True
        on padding, or None without padding. num_boxes: divisor of sums over boxes, above 0: the mean number of
        boxes of the batches of a step. generator: on the images' device, for everything random except dropout;
        it gives the same numbers after a resume.
        """
        del generator
        return self.criterion(network(images, padding_mask), targets, num_boxes)

    @abstractmethod
    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """One record per image, from the outputs of the last layer. sizes: (B, 2), original height and width."""

    @cached_property
    def class_heads(self) -> tuple[str, ...]:
        """Names of the parameters with one row per class. One row more than classes means a row for "no object"."""
        return tuple(name for name, _ in self.network.named_parameters() if "class_embed" in name)

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the tensors of a public checkpoint to the network's names. By default, they have them already."""
        return dict(weights)

    def about_weights(self, file_name: str) -> str:
        """A sentence for the log about how the weights of a public file are used; empty: nothing to say."""
        del file_name
        return ""

    def rate(self, name: str, settings: Optimizer) -> float:
        """Peak learning rate of a parameter; 0 freezes it."""
        return usual_rate(name, settings)

    def load_backbone(self, path: Path) -> None:
        """Load backbone weights from the file that a configuration key of the model names (`A_PLACE`).

        Raises JobError when the file holds another network, or the family has no such key.
        """
        raise JobError(f"{path}: models of this family do not start from weights of a backbone")


def build_family(config: JobConfig, num_classes: int) -> Family:
    """Build the configured model with fresh weights.

    Raises JobError when this program has no network for the family.
    """
    name = config.model.family
    module = f"detr_job.models.{name}.family"
    try:
        build = import_module(module).build
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or module):
            raise
        raise JobError(f"model.family: there is no network for models of the family {name!r}") from error
    family: Family = build(config, num_classes)
    rates = config.optimizer
    if rates.freeze_backbone:
        rates = rates.model_copy(update={"lr_backbone": 0.0})
    for key, parameter in family.network.named_parameters():
        if family.rate(key, rates) == 0:
            parameter.requires_grad_(False)
    return family
