"""A small deformable DETR that learns from random initialisation, in minutes, on a CPU.

A convolutional backbone, attention layers on its coarsest map, fusion of three levels, the best tokens as
queries, and a deformable decoder that refines boxes. Sources: deformable attention and box refinement from
arXiv 2010.04159, query selection from arXiv 2203.03605, the fusion of levels from arXiv 2304.08069, the
varifocal loss (criterion) from arXiv 2008.13367.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.deformable_attention import DeformableAttention
from detr_job.models.feature_levels import prior_boxes
from detr_job.models.layers import Conv2d
from detr_job.models.outputs import Outputs
from detr_job.models.padding import resized_mask, valid_ratio
from detr_job.models.position_encoding import SinePositionEncoding
from run_config.families.tiny import TinyModel

LEVELS = 3
CLASS_PRIOR = 0.01
PADDING_LOGIT = -20.0


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, optionally with ReLU."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int = 1, *, relu: bool = True) -> None:
        layers: list[nn.Module] = [
            Conv2d(channels_in, channels, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(channels),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Initialised so that only the shortcut contributes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, channels, 3, stride)
        self.conv2 = ConvNorm(channels, channels, 3, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = ConvNorm(channels_in, channels, 1, stride, relu=False)
        gamma = self.conv2[1].weight
        assert isinstance(gamma, Tensor)
        nn.init.zeros_(gamma)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        total: Tensor = self.conv2(self.conv1(x)) + self.shortcut(x)
        return F.relu(total, inplace=True)


class Backbone(nn.Module):
    """A stem and four stages. Returns the maps at strides 8, 16 and 32."""

    def __init__(self, config: TinyModel) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(3, config.stem_channels, 3, 2),
            ConvNorm(config.stem_channels, config.stem_channels, 3, 2),
        )
        stages = []
        channels = config.stem_channels
        for index, (width, blocks) in enumerate(zip(config.stage_channels, config.stage_blocks, strict=True)):
            first = BasicBlock(channels, width, 1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1))))
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to three maps, finest first."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-LEVELS:]


class EncoderLayer(nn.Module):
    """Self-attention over one map, post-norm as in DETR."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """tokens, position: (B, T, D); mask: (B, T), True on padding."""
        place = tokens + position
        read = self.self_attn(place, place, tokens, key_padding_mask=mask, need_weights=False)[0]
        tokens = self.norm1(tokens + self.dropout(read))
        changed: Tensor = self.norm2(tokens + self.dropout(self.linear2(F.relu(self.linear1(tokens)))))
        return changed


class Fusion(nn.Module):
    """Projects three maps to one width, applies attention to the coarsest, and fuses top-down and bottom-up."""

    def __init__(self, config: TinyModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.position = SinePositionEncoding(dim)
        self.project = nn.ModuleList(
            ConvNorm(channels, dim, 1, relu=False) for channels in config.stage_channels[-LEVELS:]
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(dim, config.heads, config.feedforward_dim, config.dropout)
            for _ in range(config.encoder_layers)
        )
        self.top_down = nn.ModuleList(ConvNorm(dim, dim, 3) for _ in range(LEVELS - 1))
        self.down_sample = nn.ModuleList(ConvNorm(dim, dim, 3, 2) for _ in range(LEVELS - 1))
        self.bottom_up = nn.ModuleList(ConvNorm(dim, dim, 3) for _ in range(LEVELS - 1))

    def forward(self, maps: list[Tensor], mask: Tensor | None) -> list[Tensor]:
        """Three maps, finest first, to three maps with `hidden_dim` channels."""
        fine, middle, coarse = (project(x) for project, x in zip(self.project, maps, strict=True))
        if len(self.encoder):
            padded = resized_mask(mask, coarse)
            position = self.position(*coarse.shape[-2:], padded, coarse.device).flatten(1, 2)
            tokens = coarse.flatten(2).transpose(1, 2)
            keys = None if padded is None else padded.flatten(1)
            for layer in self.encoder:
                tokens = layer(tokens, position.to(tokens.dtype), keys)
            coarse = tokens.transpose(1, 2).reshape(coarse.shape).contiguous(memory_format=torch.channels_last)
        middle = self.top_down[0](middle + F.interpolate(coarse, middle.shape[-2:], mode="nearest"))
        fine = self.top_down[1](fine + F.interpolate(middle, fine.shape[-2:], mode="nearest"))
        middle = self.bottom_up[0](middle + self.down_sample[0](fine))
        coarse = self.bottom_up[1](coarse + self.down_sample[1](middle))
        return [fine, middle, coarse]


class BoxHead(nn.Sequential):
    """Three layers that predict the change of a box, in logits. The initial change is 0."""

    def __init__(self, dim: int) -> None:
        last = nn.Linear(dim, 4)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), last)


def class_head(dim: int, num_classes: int) -> nn.Linear:
    """One logit per class, with an initial probability of 1 %."""
    head = nn.Linear(dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    return head


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the image, feed-forward; post-norm."""

    def __init__(self, config: TinyModel, num_classes: int) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = nn.MultiheadAttention(dim, config.heads, config.dropout, batch_first=True)
        self.cross_attn = DeformableAttention(dim, config.heads, (config.points,) * LEVELS)
        self.linear1, self.linear2 = (
            nn.Linear(dim, config.feedforward_dim),
            nn.Linear(config.feedforward_dim, dim),
        )
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.class_embed = class_head(dim, num_classes)
        self.bbox_embed = BoxHead(dim)

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        canvas_boxes: Tensor,
        memory: Tensor,
        shapes: list[tuple[int, int]],
        mask: Tensor | None,
    ) -> Tensor:
        """tgt, query_pos: (B, Q, D); returns the new tgt."""
        place = tgt + query_pos
        tgt = self.norm1(tgt + self.dropout(self.self_attn(place, place, tgt, need_weights=False)[0]))
        read = self.cross_attn(tgt + query_pos, canvas_boxes, memory, shapes, mask)
        tgt = self.norm2(tgt + self.dropout(read))
        changed: Tensor = self.norm3(tgt + self.dropout(self.linear2(F.relu(self.linear1(tgt)))))
        return changed


class DenseHead(nn.Module):
    """A second head on all tokens, for training only: several tokens per box learn to find it."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.class_embed = class_head(dim, num_classes)
        self.bbox_embed = BoxHead(dim)

    def forward(self, memory: Tensor, priors: Tensor, mask: Tensor | None) -> Outputs:
        """memory: (B, T, D); priors: (B, T, 4), boxes in logits; mask: (B, T). Returns one layer."""
        logits = self.class_embed(memory)
        if mask is not None:
            logits = logits.masked_fill(mask[..., None], PADDING_LOGIT)
        return Outputs(logits[None], (priors + self.bbox_embed(memory)).sigmoid()[None])


@dataclass(frozen=True, slots=True)
class TrainingOutputs(Outputs):
    """dense: the outputs of the second head."""

    dense: Outputs


class Tiny(nn.Module):
    """The whole model. The selected encoder tokens are supervised like a decoder layer."""

    def __init__(self, config: TinyModel, num_classes: int) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.queries, self.prior_box = config.queries, config.prior_box
        self.backbone = Backbone(config)
        self.fusion = Fusion(config)
        self.enc_output = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.enc_class_embed = class_head(dim, num_classes)
        self.enc_bbox_embed = BoxHead(dim)
        self.query_pos = nn.Sequential(nn.Linear(4, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.decoder = nn.ModuleList(DecoderLayer(config, num_classes) for _ in range(config.decoder_layers))
        self.dense_head = DenseHead(dim, num_classes) if config.dense_targets else None

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen backbone stays in evaluation mode, so that its statistics do not change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Outputs:
        """images: (B, 3, H, W); padding_mask: (B, H, W), True on padding, or None without padding."""
        maps = self.fusion(self.backbone(images), padding_mask)
        # The decoder predicts box coordinates: full precision from here.
        with torch.autocast(images.device.type, enabled=False):
            return self._decode([x.float() for x in maps], padding_mask)

    def _decode(self, maps: list[Tensor], padding_mask: Tensor | None) -> Outputs:
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        mask, valid = None, None
        if padding_mask is not None:
            mask = torch.cat([m.flatten(1) for x in maps if (m := resized_mask(padding_mask, x)) is not None], dim=1)
            valid = valid_ratio(padding_mask)
        priors = self._priors(shapes, valid, memory.device).expand(memory.shape[0], -1, -1)
        tokens, scores, reference = self._select(memory, priors, mask)
        logits, boxes = [scores], [reference.sigmoid()]
        tgt, reference = tokens.detach(), reference.detach()
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            box = reference.sigmoid()
            canvas = box if valid is None else box * valid
            tgt = layer(tgt, self.query_pos(box), canvas, memory, shapes, mask)
            moved = reference + layer.bbox_embed(tgt)
            logits.append(layer.class_embed(tgt))
            boxes.append(moved.sigmoid())
            reference = moved.detach()
        outputs = Outputs(torch.stack(logits), torch.stack(boxes))
        if self.training and self.dense_head is not None:
            return TrainingOutputs(outputs.logits, outputs.boxes, self.dense_head(memory, priors, mask))
        return outputs

    def _priors(self, shapes: list[tuple[int, int]], valid: Tensor | None, device: torch.device) -> Tensor:
        """(1 or B, T, 4): the prior box of each token, in logits."""
        prior = prior_boxes(shapes, self.prior_box, device)
        if valid is not None:
            prior = prior.expand(len(valid), -1, -1)
            prior = torch.cat((prior[..., :2] / valid[..., :2], prior[..., 2:]), dim=-1)
        return torch.logit(prior.clamp(0.001, 0.999))

    def _select(self, memory: Tensor, priors: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens with the highest class score: content (B, Q, D), logits (B, Q, C), boxes in logits."""
        tokens = self.enc_output(memory)
        scores = self.enc_class_embed(tokens)
        best = scores.detach().amax(-1)
        if mask is not None:
            best = best.masked_fill(mask, -torch.inf)
        chosen = best.topk(min(self.queries, best.shape[1]), dim=1).indices[..., None]
        tokens = tokens.gather(1, chosen.expand(-1, -1, tokens.shape[-1]))
        scores = scores.gather(1, chosen.expand(-1, -1, scores.shape[-1]))
        return tokens, scores, priors.gather(1, chosen.expand(-1, -1, 4)) + self.enc_bbox_embed(tokens)
