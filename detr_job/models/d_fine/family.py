"""The D-FINE family for training and prediction."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from detr_job.errors import JobError
from detr_job.family import Family
from detr_job.models.d_fine.criterion import DFineCriterion
from detr_job.models.d_fine.denoising import denoising_queries
from detr_job.models.d_fine.network import DFine
from detr_job.models.losses import Losses
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from published_weights.names.d_fine import TEACHER_LINK, own_names
from run_config.families.d_fine import DFineModel
from run_config.job.config import JobConfig
from run_config.weights.coco_classes import COCO_CLASSES


class DFineFamily(Family):
    """Detections are the best pairs of query and class. Public COCO checkpoints have a row for each of 80 classes."""

    network: DFine
    not_sums = "the losses depend on noise and pairs of a part"
    public_classes = tuple(name for name in COCO_CLASSES if name is not None)

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, DFineModel)
        self.model, self.num_classes = model, num_classes
        self.network = DFine(model, num_classes)
        self.loss = DFineCriterion(config.loss)
        self.most_detections = most_pairs(model.queries, num_classes)

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
        """See Family. The denoising queries are drawn here."""
        denoising = denoising_queries(self.model, targets, self.num_classes, generator)
        found = network(images, padding_mask, denoising)
        decoder = self.network.decoder
        return self.loss(found, targets, num_boxes, denoising, (decoder.up, decoder.reg_scale))

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return sigmoid_detections(outputs, sizes)

    @cached_property
    def class_heads(self) -> tuple[str, ...]:
        """See Family. The embedding of denoising queries also has a row per class, and one for "no class"."""
        heads = ("score_head", "denoising_class_embed")
        return tuple(name for name, _ in self.network.named_parameters() if any(head in name for head in heads))

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Family."""
        if self.model.activation == "relu" and any(name.startswith(TEACHER_LINK) for name in weights):
            raise JobError(
                "cvat-finetune-checkpoint: these are weights of RT-DETRv4, whose decoder has another activation than "
                "D-FINE's; set model.activation=silu"
            )
        return own_names(weights, torch.cat)

    def about_weights(self, file_name: str) -> str:
        """See Family. Nothing in a file tells DEIM's weights from D-FINE's, except its usual name."""
        own, name = self.model.activation, file_name.casefold()
        trained = "silu" if "deim" in name else "relu" if "dfine" in name else own
        if trained != own:
            return (
                f"warning: {file_name}: weights with such a name usually need model.activation={trained}, and this run "
                f"uses {own}, with which they detect little"
            )
        return f"model.activation={own} is assumed for these weights: relu fits D-FINE, silu fits DEIM and RT-DETRv4"


build = DFineFamily  # `build_family` looks for this name
