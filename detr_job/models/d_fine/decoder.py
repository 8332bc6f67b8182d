"""D-FINE's decoder (arXiv 2410.13842), with the parameter names of the published checkpoints.

The best tokens of the encoder become queries with a box. The first layer corrects that box; from then on, each
layer adds to the logits of four distributions, which say how far the edges are from the corrected box.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.attention import Attention
from detr_job.models.boxes import inverse_sigmoid
from detr_job.models.d_fine.denoising import Denoising
from detr_job.models.d_fine.distribution import expected_distance, move_edges, per_edge, weighting
from detr_job.models.deformable_attention import DeformableAttention, feature_planes
from detr_job.models.feature_levels import prior_boxes
from detr_job.models.heads import Mlp, class_head, zero_mlp
from detr_job.models.layers import Linear
from detr_job.models.outputs import Outputs
from detr_job.models.padding import resized_mask, valid_ratio
from run_config.families.d_fine import DFineModel

PRIOR_SIDE = 0.05  # of the boxes of the finest level, as a fraction of the image; doubles with each level
EDGE = 0.01  # cells whose box touches this margin of the image are not used
TOP_BINS, QUALITY_DIM = 4, 64
LARGEST_HALF = 65504.0
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}


@dataclass(frozen=True, slots=True)
class Predictions:
    """What training needs of a forward pass. Of N + Q queries, the first N are the denoising ones.

    layers: outputs of the L decoder layers. edges: (L, B, N + Q, 4 * (bins + 1)) logits. initial: (B, N + Q, 4), the
    box that the edges refer to, without a graph. first: outputs of the first layer before any distribution, as one
    layer. encoder: outputs of the chosen tokens, as one layer of Q.
    """

    layers: Outputs
    edges: Tensor
    initial: Tensor
    first: Outputs
    encoder: Outputs


class Gate(nn.Module):
    """A learned mixture of two tensors, instead of a residual sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = Linear(2 * dim, 2 * dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.norm = nn.LayerNorm(dim)

    def forward(self, before: Tensor, update: Tensor) -> Tensor:
        """Two (B, Q, dim) to one."""
        first, second = self.gate(torch.cat((before, update), dim=-1)).sigmoid().chunk(2, dim=-1)
        mixed: Tensor = self.norm(first * before + second * update)
        return mixed


class LocationQuality(nn.Module):
    """Raises or lowers the class scores of a query by how certain its distributions are."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reg_conf = zero_mlp((4 * (TOP_BINS + 1), QUALITY_DIM, 1), activation)

    def forward(self, scores: Tensor, edges: Tensor) -> Tensor:
        """scores: (B, Q, K). edges: (B, Q, 4 * (bins + 1)). Returns (B, Q, K)."""
        likely = per_edge(edges).softmax(-1).topk(TOP_BINS, dim=-1).values
        statistics = torch.cat((likely, likely.mean(-1, keepdim=True)), dim=-1).flatten(-2)
        judged: Tensor = scores + self.reg_conf(statistics)
        return judged


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the image through a gate, feed-forward; post-norm."""

    def __init__(self, config: DFineModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = Attention(dim, config.heads, config.dropout)
        nn.init.xavier_uniform_(self.self_attn.in_proj_weight)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, config.heads, config.points, project=False)
        self.gateway = Gate(dim)
        self.linear1 = Linear(dim, config.feedforward_dim)
        self.linear2 = Linear(config.feedforward_dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self, tgt: Tensor, query_pos: Tensor, canvas_boxes: Tensor, planes: list[Tensor], attend: Tensor | None
    ) -> Tensor:
        """tgt, query_pos: (B, Q, D); canvas_boxes: (B, Q, 4); attend: (Q, Q) or None. Returns the new tgt."""
        place = tgt + query_pos
        tgt = self.norm1(tgt + self.dropout(self.self_attn(place, place, tgt, attend)))
        tgt = self.gateway(tgt, self.dropout(self.cross_attn.read(tgt + query_pos, canvas_boxes, planes)))
        update = self.linear2(self.dropout(self.activation(self.linear1(tgt))))
        # the published networks were trained in fp16, and this limit is part of them
        changed: Tensor = self.norm3((tgt + self.dropout(update)).clamp(-LARGEST_HALF, LARGEST_HALF))
        return changed


class Projection(nn.Sequential):
    """A 1 x 1 convolution and batch norm, or nothing if the widths are equal."""

    def __init__(self, inputs: int, outputs: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, bias=False)
            nn.init.xavier_uniform_(conv.weight)
            parts.update(conv=conv, norm=nn.BatchNorm2d(outputs))
        super().__init__(parts)


class Decoder(nn.Module):
    """Maps of the encoder to predictions."""

    up: Tensor
    reg_scale: Tensor

    def __init__(self, config: DFineModel, num_classes: int) -> None:
        super().__init__()
        dim, layers = config.hidden_dim, range(config.decoder_layers)
        act = ACTIVATIONS[config.activation]
        self.bins, self.heads, self.queries = config.bins, config.heads, config.queries
        # constants of a published checkpoint: reg_scale is the configuration's `reach`
        self.register_buffer("up", torch.tensor([0.5]))
        self.register_buffer("reg_scale", torch.tensor([config.reach]))
        self.input_proj = nn.ModuleList(Projection(config.encoder_dim, dim) for _ in range(config.levels))
        if config.denoising_queries:
            self.denoising_class_embed = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)
        project = Linear(dim, dim)
        nn.init.xavier_uniform_(project.weight)
        self.enc_output = nn.Sequential(OrderedDict(proj=project, norm=nn.LayerNorm(dim)))
        self.enc_score_head = class_head(dim, num_classes)
        self.enc_bbox_head = zero_mlp((dim, dim, dim, 4), act)
        self.query_pos_head = Mlp((4, 2 * dim, dim), act)
        for name, parameter in self.query_pos_head.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
        self.decoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(DecoderLayer(config) for _ in layers),
                "lqe_layers": nn.ModuleList(LocationQuality(act) for _ in layers),
            }
        )
        self.pre_bbox_head = zero_mlp((dim, dim, dim, 4), act)
        self.dec_score_head = nn.ModuleList(class_head(dim, num_classes) for _ in layers)
        self.dec_bbox_head = nn.ModuleList(zero_mlp((dim, dim, dim, 4 * (config.bins + 1)), act) for _ in layers)

    def forward(self, maps: list[Tensor], padding_mask: Tensor | None, denoising: Denoising | None) -> Predictions:
        """Predictions of all layers, or only of the last one in evaluation mode.

        maps: (B, D, h, w), finest first. padding_mask: (B, H, W), True on padding, or None.
        """
        maps = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        mask, valid = None, None
        if padding_mask is not None:
            mask = torch.cat([m.flatten(1) for x in maps if (m := resized_mask(padding_mask, x)) is not None], dim=1)
            valid = valid_ratio(padding_mask).to(memory.dtype)
            memory = memory.masked_fill(mask[..., None], 0)
        encoder, content = self._select(memory, shapes, mask, valid)
        boxes, attend = encoder.boxes[0].detach(), None
        if denoising is not None:
            attend = denoising.attend(boxes.shape[1])
            content = torch.cat((self.denoising_class_embed(denoising.labels).to(content.dtype), content), dim=1)
            boxes = torch.cat((denoising.references.sigmoid().to(boxes.dtype), boxes), dim=1)
        return self._refine(content, boxes, feature_planes(memory, shapes, self.heads), valid, attend, encoder)

    def _select(
        self, memory: Tensor, shapes: list[tuple[int, int]], mask: Tensor | None, valid: Tensor | None
    ) -> tuple[Outputs, Tensor]:
        """The tokens with the highest class score: their outputs as one layer, and their content (B, Q, D)."""
        prior = prior_boxes(shapes, PRIOR_SIDE, memory.device)
        if valid is not None:  # from the canvas to the image
            prior = torch.cat((prior[..., :2] / valid[..., :2], prior[..., 2:].expand(len(memory), -1, -1)), dim=-1)
        inside = ((prior > EDGE) & (prior < 1 - EDGE)).all(-1, keepdim=True)
        if mask is not None:
            inside = inside & ~mask[..., None]
        reference = torch.where(inside, (prior / (1 - prior)).log(), torch.inf).expand(len(memory), -1, -1)
        tokens = self.enc_output(memory.masked_fill(~inside, 0))
        scores = self.enc_score_head(tokens)
        best = scores.detach().amax(-1)
        if mask is not None:
            best = best.masked_fill(mask, -torch.inf)
        chosen = best.topk(min(self.queries, best.shape[1]), dim=1).indices[..., None]
        tokens = tokens.gather(1, chosen.expand(-1, -1, tokens.shape[-1]))
        scores = scores.gather(1, chosen.expand(-1, -1, scores.shape[-1]))
        boxes = (self.enc_bbox_head(tokens) + reference.gather(1, chosen.expand(-1, -1, 4))).sigmoid()
        return Outputs(scores[None], boxes[None]), tokens.detach()

    def _refine(
        self,
        tgt: Tensor,
        boxes: Tensor,
        planes: list[Tensor],
        valid: Tensor | None,
        attend: Tensor | None,
        encoder: Outputs,
    ) -> Predictions:
        """The decoder layers. tgt: (B, N + Q, D). boxes: (B, N + Q, 4), fractions of the image."""
        values = weighting(self.bins, self.up, self.reg_scale)
        logits, refined, edges = [], [], []
        first, initial = encoder, boxes  # replaced by the first layer
        last = len(self.dec_bbox_head) - 1
        before = moved = tgt.new_zeros(())
        for index, (score_head, edge_head) in enumerate(zip(self.dec_score_head, self.dec_bbox_head, strict=True)):
            query_pos = self.query_pos_head(boxes).clamp(-10, 10)
            canvas = boxes if valid is None else boxes * valid
            tgt = self._part("layers", index)(tgt, query_pos, canvas, planes, attend)
            if index == 0:
                first_boxes = (self.pre_bbox_head(tgt) + inverse_sigmoid(boxes)).sigmoid()
                first, initial = Outputs(score_head(tgt)[None], first_boxes[None]), first_boxes.detach()
            moved = edge_head(tgt + before) + moved
            found = move_edges(initial, expected_distance(moved, values), self.reg_scale)
            if self.training or index == last:
                logits.append(self._part("lqe_layers", index)(score_head(tgt), moved))
                refined.append(found)
                edges.append(moved)
            boxes, before = found.detach(), tgt.detach()
        layers = Outputs(torch.stack(logits), torch.stack(refined))
        return Predictions(layers, torch.stack(edges), initial, first, encoder)

    def _part(self, name: str, index: int) -> nn.Module:
        parts = self.decoder[name]
        assert isinstance(parts, nn.ModuleList)
        return parts[index]
