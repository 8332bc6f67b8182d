"""Deformable DETR as published (arXiv 2010.04159), including state-dict keys: public checkpoints load strictly.

Where the published code saves a head several times, it is here once (`published_weights/names/deformable_detr.py`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_job.models.backbone import Backbone, ResNet
from detr_job.models.boxes import inverse_sigmoid
from detr_job.models.deformable_detr.transformer import Transformer
from detr_job.models.feature_levels import prior_boxes
from detr_job.models.heads import class_head, zero_mlp
from detr_job.models.layers import Conv2d
from detr_job.models.outputs import Outputs
from detr_job.models.padding import resized_mask, valid_ratio
from detr_job.models.position_encoding import SinePositionEncoding, sine_embedding
from run_config.families.deformable_detr import NORM_GROUPS, DeformableDetrModel

PROPOSAL = 0.05  # side of the box that a token of the finest level proposes, as a fraction of the image
EDGE = 0.01  # proposals with a coordinate nearer to 0 or 1 are left out
SMALL_SIZE = -2.0  # initial bias of a box's width and height


@dataclass(frozen=True, slots=True)
class Predictions:
    """Outputs of all decoder layers, and for a two-stage model those of all encoder tokens, as one layer."""

    layers: Outputs
    encoder: Outputs | None


class _Levels(NamedTuple):
    """Geometry of the feature levels of a batch, with T tokens on L levels.

    centres: (B or 1, T, 4) boxes of the tokens, as fractions of the image. ratios: (B or 1, L, 2), the fraction of each
    level that the image covers. cells: (L, 2), the size of a box whose offsets are cells. mask: (B, T), True on
    padding.
    """

    shapes: list[tuple[int, int]]
    centres: Tensor
    ratios: Tensor
    cells: Tensor
    mask: Tensor | None

    def on_canvas(self, reference: Tensor) -> Tensor:
        """The box of each level, (B, Q, L, 4), from points (B, Q, 2) or boxes (B, Q, 4) of the image."""
        centre = reference[..., None, :2] * self.ratios[:, None]
        if reference.shape[-1] == 4:
            return torch.cat((centre, reference[..., None, 2:] * self.ratios[:, None]), dim=-1)
        return torch.cat((centre, self.cells.expand_as(centre)), dim=-1)


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that also takes groups of one value, for which the norm is the bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class DeformableDetr(nn.Module):
    """Backbone, transformer and heads; the heads are shared by all decoder layers, or one per layer with `refine`.

    A two-stage model has one more pair of heads, for the encoder.
    """

    def __init__(self, config: DeformableDetrModel, num_classes: int) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.config = config
        body = Backbone(config.backbone, dilation=config.dilation)
        self.backbone = nn.ModuleList((body, SinePositionEncoding(dim, centres=True)))
        last = body.body.channels
        widths = (last // 4, last // 2, last) if config.levels > 1 else (last,)
        projections = [nn.Conv2d(width, dim, 1) for width in widths]
        projections += [
            Conv2d(dim if number else last, dim, 3, stride=2, padding=1)
            for number in range(config.levels - len(widths))
        ]
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
            assert projection.bias is not None
            nn.init.zeros_(projection.bias)
        self.input_proj = nn.ModuleList(nn.Sequential(each, GroupNorm(NORM_GROUPS, dim)) for each in projections)
        self.transformer = Transformer(config)
        heads = config.decoder_layers + config.two_stage if config.refine else 1
        self.class_embed = nn.ModuleList(class_head(dim, num_classes) for _ in range(heads))
        self.bbox_embed = nn.ModuleList(zero_mlp((dim, dim, dim, 4)) for _ in range(heads))
        if not config.two_stage:
            nn.init.constant_(self.bbox_embed[0].get_parameter("layers.2.bias")[2:], SMALL_SIZE)
            self.query_embed = nn.Embedding(config.queries, 2 * dim)

    @property
    def body(self) -> ResNet:
        """The ResNet, whose parameter names begin with `backbone.0.body`."""
        backbone = self.backbone[0]
        assert isinstance(backbone, Backbone)
        return backbone.body

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Outputs | Predictions:
        """The outputs of all decoder layers; in training mode, with those of the encoder tokens.

        images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True on padding, which must lie to the right and
        below, or None without padding.
        """
        found = self.predictions(images, padding_mask)
        return found if self.training else found.layers

    def predictions(self, images: Tensor, padding_mask: Tensor | None = None) -> Predictions:
        """See `forward`."""
        maps = self._maps(images)
        masks = [resized_mask(padding_mask, x) for x in maps]
        levels = self._levels([(x.shape[-2], x.shape[-1]) for x in maps], masks, maps[0])
        pos = [
            self.backbone[1](*shape, mask, images.device).flatten(1, 2) + embed
            for shape, mask, embed in zip(levels.shapes, masks, self.transformer.level_embed, strict=True)
        ]
        place = torch.cat([each.to(maps[0].dtype) for each in pos], dim=1)
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        boxes = levels.on_canvas(levels.centres[..., :2].expand(len(images), -1, -1))
        for layer in self.transformer.encoder.layers:
            memory = layer(memory, place, boxes, levels.shapes, levels.mask)
        # The decoder predicts box coordinates: full precision from here.
        with torch.autocast(images.device.type, enabled=False):
            return self._decode(memory.to(self.transformer.level_embed.dtype), levels)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """(B, dim, h, w) of each level, finest first."""
        features = self.body.pyramid(images)
        if self.config.levels == 1:
            return [self.input_proj[0](features[-1])]
        maps = [project(x) for project, x in zip(self.input_proj, features, strict=False)]
        x = features[-1]
        for project in self.input_proj[len(features) :]:
            x = project(x)
            maps.append(x)
        return maps

    def _levels(self, shapes: list[tuple[int, int]], masks: list[Tensor | None], like: Tensor) -> _Levels:
        centres = prior_boxes(shapes, PROPOSAL, like.device).to(self.transformer.level_embed.dtype)
        reach = [(2 * self.config.points / width, 2 * self.config.points / height) for height, width in shapes]
        cells = torch.tensor(reach, dtype=centres.dtype).to(like.device, non_blocking=True)
        padded = [mask for mask in masks if mask is not None]
        if not padded:
            return _Levels(shapes, centres, centres.new_ones(1, len(shapes), 2), cells, None)
        ratios = torch.cat([valid_ratio(mask)[..., :2] for mask in padded], dim=1).to(centres.dtype)
        by_level = zip(ratios.unbind(1), shapes, strict=True)
        by_token = torch.cat([ratio[:, None].expand(-1, h * w, -1) for ratio, (h, w) in by_level], dim=1)
        centres = torch.cat((centres[..., :2] / by_token, centres[..., 2:].expand(len(by_token), -1, -1)), dim=-1)
        return _Levels(shapes, centres, ratios, cells, torch.cat([mask.flatten(1) for mask in padded], dim=1))

    def _decode(self, memory: Tensor, levels: _Levels) -> Predictions:
        encoder = None
        if self.config.two_stage:
            encoder, reference, query_pos, tgt = self._select(memory, levels)
        else:
            query_pos, tgt = self.query_embed.weight.expand(len(memory), -1, -1).chunk(2, dim=-1)
            reference = self.transformer.reference_points(query_pos).sigmoid()
        logits, boxes = [], []
        for index, layer in enumerate(self.transformer.decoder.layers):
            tgt = layer(tgt, query_pos, levels.on_canvas(reference), memory, levels.shapes, levels.mask)
            number = index if self.config.refine else 0
            logits.append(self.class_embed[number](tgt))
            change, start = self.bbox_embed[number](tgt), inverse_sigmoid(reference)
            size = change[..., 2:] + start[..., 2:] if start.shape[-1] == 4 else change[..., 2:]
            boxes.append(torch.cat((change[..., :2] + start[..., :2], size), dim=-1).sigmoid())
            if self.config.refine:
                reference = boxes[-1].detach()
        return Predictions(Outputs(torch.stack(logits), torch.stack(boxes)), encoder)

    def _select(self, memory: Tensor, levels: _Levels) -> tuple[Outputs, Tensor, Tensor, Tensor]:
        """The outputs of all tokens, and the boxes, positions and contents of the queries that the best of them become.

        Tokens are ranked by the logit of the first class, which stands for any object here.
        """
        inside = ((levels.centres > EDGE) & (levels.centres < 1 - EDGE)).all(-1, keepdim=True)
        if levels.mask is not None:
            inside = inside & ~levels.mask[..., None]
        start = (levels.centres / (1 - levels.centres)).log().masked_fill(~inside, torch.inf)
        tokens = self.transformer.enc_output_norm(self.transformer.enc_output(memory.masked_fill(~inside, 0)))
        logits, change = self.class_embed[-1](tokens), self.bbox_embed[-1](tokens)
        boxes = (change + start).sigmoid()
        best = logits.detach()[..., 0].topk(min(self.config.queries, logits.shape[1]), dim=1).indices
        reference = boxes.detach().gather(1, best[..., None].expand(-1, -1, 4))
        encoded = sine_embedding(reference, self.config.hidden_dim // 2)
        query_pos, tgt = self.transformer.pos_trans_norm(self.transformer.pos_trans(encoded)).chunk(2, dim=-1)
        return Outputs(logits[None], boxes[None]), reference, query_pos, tgt
