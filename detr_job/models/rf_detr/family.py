"""The RF-DETR family for training and prediction."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from detr_job.family import Family
from detr_job.models.outputs import Outputs
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from detr_job.models.rf_detr.criterion import RfDetrCriterion
from detr_job.models.rf_detr.network import RfDetr
from published_weights.names.rf_detr import own_names
from run_config.families.rf_detr import RfDetrModel
from run_config.job.config import JobConfig, Optimizer

ENCODER = "backbone.0.encoder."


class RfDetrFamily(Family):
    """Detections are the best pairs of query and class, clipped to the image."""

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, RfDetrModel)
        self.network = RfDetr(model, num_classes)
        self.criterion = RfDetrCriterion(config.loss, layers=model.decoder_layers + 1)
        self.most_detections = most_pairs(model.queries, num_classes)
        self._model = model

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        found = sigmoid_detections(outputs, sizes)
        edges = sizes.to(outputs.boxes.device).flip(-1).repeat(1, 2)
        return [
            replace(each, boxes=torch.minimum(each.boxes.clamp(min=0), edge))
            for each, edge in zip(found, edges, strict=True)
        ]

    def rate(self, name: str, settings: Optimizer) -> float:
        """See Family. In the backbone, each layer has a lower rate than the layer after it."""
        if name.startswith("transformer.decoder."):
            return settings.lr * self._model.decoder_rate
        if not name.startswith(ENCODER):
            return settings.lr
        steps = 0  # of the norm after the last layer
        if ".embeddings." in name:
            steps = self._model.backbone_layers + 2
        elif ".layer." in name:
            steps = self._model.backbone_layers + 1 - int(name.split(".layer.")[1].split(".", maxsplit=1)[0])
        return settings.lr_backbone * self._model.layer_decay**steps

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Family. Reads the files of the authors and those of the transformers library."""
        return own_names(weights, torch.cat)


build = RfDetrFamily  # `build_family` looks for this name
