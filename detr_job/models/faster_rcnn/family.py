"""The Faster R-CNN family for training and prediction."""

import re
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, remove_small_boxes

from detr_job.family import Family
from detr_job.models.faster_rcnn.network import Candidates, FasterRcnn
from detr_job.models.losses import Losses, Term, weighted_sum
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.postprocess import Detections
from run_config.families.faster_rcnn import FasterRcnnModel
from run_config.job.config import MOST_BOXES, JobConfig, Optimizer
from run_config.weights.coco_classes import COCO_CLASSES

SMALLEST_BOX = 1e-2  # pixels
FROZEN = {
    "resnet50": re.compile(r"backbone\.body\.(conv1|layer1)\."),
    "mobilenet_v3": re.compile(r"backbone\.body\.[0-6]\."),
}
"""The first layers of the backbone, which torchvision does not train either."""
HEAD = "roi_heads.box_predictor."
# torchvision's files are older than the present names of two kinds of convolution
_RENAMED = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)


class FasterRcnnFamily(Family):
    """Detections are what non-maximum suppression leaves. Public COCO checkpoints have rows for category ids from 1."""

    network: FasterRcnn
    not_sums = "anchors and proposals are drawn for each part"
    public_classes = COCO_CLASSES[1:]  # the first row is torchvision's background

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        model = config.model
        assert isinstance(model, FasterRcnnModel)
        self.model, self.loss = model, config.loss
        self.network = FasterRcnn(model, num_classes)
        self.most_detections = min(model.queries, MOST_BOXES)

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
        """See Family. The terms are means over the anchors and proposals that are drawn here, not over boxes."""
        del num_boxes
        self.network.draw_from(generator)
        try:
            found = network(images, padding_mask, targets)
        finally:
            self.network.draw_from(None)  # a network is copied, a generator cannot be
        classes, boxes = self.loss.classification, self.loss.bbox
        terms = {
            "loss_ce": Term(classes, found["loss_classifier"][None]),
            "loss_bbox": Term(boxes, found["loss_box_reg"][None]),
            "loss_rpn_ce": Term(classes, found["loss_objectness"][None]),
            "loss_rpn_bbox": Term(boxes, found["loss_rpn_box_reg"][None]),
        }
        return weighted_sum(terms)

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        assert isinstance(outputs, Candidates)
        edges = sizes.to(outputs.boxes).flip(-1).repeat(1, 2)
        scores = outputs.logits[-1].softmax(-1)[..., :-1]
        return [self._kept(*each) for each in zip(scores, outputs.class_boxes, edges, strict=True)]

    def _kept(self, scores: Tensor, boxes: Tensor, edges: Tensor) -> Detections:
        """Of one image. scores: (Q, K). boxes: (Q, K, 4). edges: (4,), width, height, width, height."""
        row, label = torch.where(scores > self.model.score_threshold)
        score, box = scores[row, label], boxes[row, label] * edges
        large = remove_small_boxes(box, SMALLEST_BOX)
        score, label, box = score[large], label[large], box[large]
        best = batched_nms(box, score, label, self.model.nms_threshold)[: self.most_detections]
        return Detections(score[best], label[best], box[best])

    @cached_property
    def class_heads(self) -> tuple[str, ...]:
        """See Family."""
        return tuple(name for name, _ in self.network.named_parameters() if name.startswith(HEAD))

    def rate(self, name: str, settings: Optimizer) -> float:
        """See Family. The feature pyramid is no part of the backbone here."""
        if self.model.freeze_norms and FROZEN[self.model.backbone].match(name):
            return 0.0
        return settings.lr_backbone if name.startswith("backbone.body.") else settings.lr

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Family. The background's row moves from the first place to the last; it has no boxes here."""
        found = {}
        for given, tensor in weights.items():
            name = given
            for pattern, replacement in _RENAMED:
                name = pattern.sub(replacement, name)
            found[name] = tensor
        boxes = found.get(f"{HEAD}bbox_pred.weight")
        if boxes is not None and boxes.dim() == 2:  # otherwise a file of this program
            for kind in ("weight", "bias"):
                found[f"{HEAD}cls_score.{kind}"] = found[f"{HEAD}cls_score.{kind}"].roll(-1, dims=0)
                rows = found[f"{HEAD}bbox_pred.{kind}"]
                found[f"{HEAD}bbox_pred.{kind}"] = rows.reshape(-1, 4, *rows.shape[1:])[1:]
        return found


build = FasterRcnnFamily  # `build_family` looks for this name
