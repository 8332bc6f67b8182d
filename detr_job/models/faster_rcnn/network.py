"""Faster R-CNN from torchvision's parts, on images that are already resized and normalised.

Rows of the class heads are in the order of the classes, the background last; torchvision has the background first, and
boxes for it (`own_names` in family.py). By default, batch norms are frozen, as in torchvision's published models.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn, fasterrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image

from detr_job.models.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detr_job.models.layers import Conv2d
from detr_job.models.outputs import Outputs, Targets
from run_config.families.faster_rcnn import FasterRcnnModel

BUILDERS = {"resnet50": fasterrcnn_resnet50_fpn, "mobilenet_v3": fasterrcnn_mobilenet_v3_large_fpn}
EPSILON = 0.0  # of the batch norms in torchvision's published models


@dataclass(frozen=True, slots=True)
class Candidates(Outputs):
    """Boxes before non-maximum suppression. The last logit is the background's. `boxes` are the proposals.

    class_boxes: (B, Q, K, 4), the box of each class, xyxy as fractions of the image. Images with fewer proposals have
    some with the probability 0.
    """

    class_boxes: Tensor


class Sampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's choice of anchors or proposals for the loss, with random numbers from a generator."""

    generator: torch.Generator | None = None

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the chosen positives and negatives of each image. matched_idxs: 0 negative, below ignored."""
        positive, negative = [], []
        for matched in matched_idxs:
            wanted = int(self.batch_size_per_image * self.positive_fraction)
            positive.append(self._chosen(matched >= 1, wanted))
            negative.append(self._chosen(matched == 0, self.batch_size_per_image - int(positive[-1].sum())))
        return positive, negative

    def _chosen(self, eligible: Tensor, most: int) -> Tensor:
        places = torch.where(eligible)[0]
        order = torch.randperm(len(places), device=places.device, generator=self.generator)
        mask = torch.zeros_like(eligible, dtype=torch.uint8)
        mask[places[order[:most]]] = 1
        return mask


class ClassBoxes(nn.Module):
    """The linear layer from a region to a box for each class."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        fresh = nn.Linear(dim, 4 * num_classes)
        self.weight = nn.Parameter(fresh.weight.detach().view(num_classes, 4, dim))
        self.bias = nn.Parameter(fresh.bias.detach().view(num_classes, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, K * 4)."""
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())


class Predictor(nn.Module):
    """The class heads. Their result has torchvision's order: the background first."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(dim, num_classes + 1)
        self.bbox_pred = ClassBoxes(dim, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim) to logits (N, 1 + K) and boxes (N, (1 + K) * 4); the background's box is never used."""
        return self.cls_score(x).roll(1, dims=-1), F.pad(self.bbox_pred(x), (4, 0))


class FasterRcnn(nn.Module):
    """Backbone with a feature pyramid, region proposals, and heads on the features of each proposal."""

    def __init__(self, config: FasterRcnnModel, num_classes: int) -> None:
        super().__init__()
        parts = BUILDERS[config.backbone](weights=None, weights_backbone=None, num_classes=num_classes + 1)
        self.backbone, self.rpn, self.roi_heads = parts.backbone, parts.rpn, parts.roi_heads
        for module in self.backbone.modules() if config.freeze_norms else ():
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, FrozenBatchNorm2d(child.num_features, EPSILON))
        for module in self.backbone.modules():
            if type(module) is nn.Conv2d:
                module.__class__ = Conv2d  # the same, around faults of oneDNN
        features = self.roi_heads.box_head.fc6.in_features
        self.roi_heads.box_head = TwoMLPHead(features, config.hidden_dim)
        self.roi_heads.box_predictor = Predictor(config.hidden_dim, num_classes)
        for part in (self.rpn, self.roi_heads):
            theirs = part.fg_bg_sampler
            part.fg_bg_sampler = Sampler(theirs.batch_size_per_image, theirs.positive_fraction)

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Set the source of the random numbers for the losses."""
        for part in (self.rpn, self.roi_heads):
            part.fg_bg_sampler.generator = generator

    def forward(
        self, images: Tensor, padding_mask: Tensor | None = None, targets: Targets | None = None
    ) -> Candidates | dict[str, Tensor]:
        """The boxes before non-maximum suppression; in training mode, torchvision's losses.

        images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True on padding, which must lie to the right and
        below, or None without padding. targets: needed in training mode.
        """
        maps = self.backbone(images)
        sizes = _sizes(images, padding_mask)
        # Anchors and boxes are in pixels: full precision from here.
        with torch.autocast(images.device.type, enabled=False):
            features = {
                name: each.to(self.roi_heads.box_predictor.cls_score.weight.dtype) for name, each in maps.items()
            }
            listed = ImageList(images, sizes)
            if not self.training:
                proposals, _ = self.rpn(listed, features)
                return self._candidates(features, proposals, sizes)
            assert targets is not None
            wanted = _per_image(targets, sizes)
            proposals, first = self.rpn(listed, features, wanted)
            _, second = self.roi_heads(features, proposals, sizes, wanted)
            return {**first, **second}

    def _candidates(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Candidates:
        heads = self.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, sizes)))
        counts = [len(each) for each in proposals]
        most = max(*counts, 1)
        boxes = heads.box_coder.decode(deltas, proposals)[:, 1:]  # without the background's
        found = Candidates(
            logits.new_full((1, len(sizes), most, logits.shape[-1]), -torch.inf),
            logits.new_zeros(1, len(sizes), most, 4),
            logits.new_zeros(len(sizes), most, boxes.shape[1], 4),
        )
        found.logits[..., -1] = 0
        by_image = zip(torch.split(logits, counts), torch.split(boxes, counts), proposals, sizes, strict=True)
        for index, (own, by_class, regions, size) in enumerate(by_image):
            edges = own.new_tensor([size[1], size[0], size[1], size[0]])
            found.logits[0, index, : len(own)] = own.roll(-1, dims=-1)
            found.boxes[0, index, : len(own)] = xyxy_to_cxcywh(regions / edges)
            found.class_boxes[index, : len(own)] = clip_boxes_to_image(by_class, size) / edges
        return found


def _sizes(images: Tensor, padding_mask: Tensor | None) -> list[tuple[int, int]]:
    """Height and width of each image without its padding, on the host."""
    if padding_mask is None:
        return [(images.shape[-2], images.shape[-1])] * len(images)
    inside = ~padding_mask
    heights, widths = torch.stack((inside[:, :, 0].sum(1), inside[:, 0].sum(1))).tolist()
    return list(zip(heights, widths, strict=True))


def _per_image(targets: Targets, sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """Targets in torchvision's form: xyxy boxes in pixels, labels from 1."""
    by_image = zip(
        torch.split(targets.boxes, list(targets.counts)),
        torch.split(targets.labels, list(targets.counts)),
        sizes,
        strict=True,
    )
    return [
        {
            "boxes": cxcywh_to_xyxy(boxes) * boxes.new_tensor([size[1], size[0], size[1], size[0]]),
            "labels": labels + 1,
        }
        for boxes, labels, size in by_image
    ]
