"""RF-DETR: a windowed DINOv2 backbone, selection of tokens as queries, and a decoder with deformable attention.

Names and shapes of parameters are the published ones, so public checkpoints load strictly. In training there are
`groups` independent sets of queries, each with its own heads for the selection (arXiv 2207.13085); evaluation
uses the first. Groups never attend to each other.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.attention import Attention
from detr_job.models.deformable_attention import DeformableAttention
from detr_job.models.feature_levels import prior_boxes
from detr_job.models.heads import Mlp, class_head, zero_mlp
from detr_job.models.layers import Linear
from detr_job.models.outputs import Outputs
from detr_job.models.padding import resized_mask, valid_ratio
from detr_job.models.position_encoding import sine_embedding
from detr_job.models.rf_detr.backbone import Backbone
from run_config.families.rf_detr import RfDetrModel

PROPOSAL = 0.05  # side of the box that a token proposes, as a fraction of the image
EDGE = 0.01  # proposals with a coordinate nearer to 0 or 1 are left out


def moved(boxes: Tensor, change: Tensor) -> Tensor:
    """Move and stretch cxcywh boxes: the centre by parts of the box's size, the size by the exponential."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre + change[..., :2] * size, size * change[..., 2:].exp()), dim=-1)


class DecoderLayer(nn.Module):
    """Self-attention within each group, deformable attention to the image, feed-forward; post-norm."""

    def __init__(self, config: RfDetrModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = Attention(dim, config.heads, dropout=0.0)
        self.cross_attn = DeformableAttention(dim, config.cross_heads, (config.points,))
        self.linear1, self.linear2 = Linear(dim, config.feedforward_dim), Linear(config.feedforward_dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        canvas_boxes: Tensor,
        memory: Tensor,
        shape: tuple[int, int],
        mask: Tensor | None,
    ) -> Tensor:
        """tgt, query_pos: (B, G, Q, D). canvas_boxes: (B, G, Q, 4). Returns the new tgt."""
        value, place = tgt.flatten(0, 1), (tgt + query_pos).flatten(0, 1)
        tgt = self.norm1(tgt + self.self_attn(place, place, value).view(tgt.shape))
        asked = (tgt + query_pos).flatten(1, 2)
        read = self.cross_attn(asked, canvas_boxes.flatten(1, 2), memory, [shape], mask)
        tgt = self.norm2(tgt + read.view(tgt.shape))
        changed: Tensor = self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))
        return changed


class Decoder(nn.Module):
    """The decoder layers. All of them look around the boxes of the selection, which are not refined between them."""

    def __init__(self, config: RfDetrModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.ref_point_head = Mlp((2 * dim, dim, dim))

    def forward(
        self, tgt: Tensor, canvas_boxes: Tensor, memory: Tensor, shape: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """(L, B, G, Q, D) from queries (B, G, Q, D), their boxes, and the image's tokens (B, T, D)."""
        x, y, width, height = canvas_boxes.unbind(-1)
        query_pos = self.ref_point_head(sine_embedding(torch.stack((y, x, width, height), dim=-1), tgt.shape[-1] // 2))
        hs = []
        for layer in self.layers:
            tgt = layer(tgt, query_pos, canvas_boxes, memory, shape, mask)
            hs.append(self.norm(tgt))
        return torch.stack(hs)


def stacked(modules: Iterable[nn.Module]) -> tuple[Tensor, Tensor]:
    """Weights (G, …) and biases (G, 1, outputs) of one layer of each group."""
    parameters = [(each.get_parameter("weight"), each.get_parameter("bias")) for each in modules]
    weights, biases = zip(*parameters, strict=True)
    return torch.stack(weights), torch.stack(biases)[:, None]


class Transformer(nn.Module):
    """Selects tokens of the image as queries, group by group, and decodes them."""

    def __init__(self, config: RfDetrModel, num_classes: int) -> None:
        super().__init__()
        dim, groups = config.hidden_dim, config.groups
        self.queries = config.queries
        self.decoder = Decoder(config)
        self.enc_output = nn.ModuleList(Linear(dim, dim) for _ in range(groups))
        self.enc_output_norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(groups))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in self.decoder.layers:
            assert isinstance(layer, DecoderLayer)
            layer.cross_attn._reset_parameters()
        self.enc_out_class_embed = nn.ModuleList(class_head(dim, num_classes) for _ in range(groups))
        self.enc_out_bbox_embed = nn.ModuleList(zero_mlp((dim, dim, dim, 4)) for _ in range(groups))

    def select(self, memory: Tensor, proposals: Tensor, invalid: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """The tokens with the highest class score of each group: logits (B, G, Q, K) and boxes (B, G, Q, 4).

        memory: (B, T, D). proposals: (B, T, 4). invalid: (B, T). Q is the number of queries, or of tokens if there
        are fewer.
        """
        memory, proposals = memory.masked_fill(invalid[..., None], 0), proposals.masked_fill(invalid[..., None], 0)
        # the same layer of all groups as one product
        weight, bias = stacked(self.enc_output[:groups])
        tokens = F.layer_norm(torch.einsum("btd,ged->bgte", memory, weight) + bias, memory.shape[-1:])
        weight, bias = stacked(self.enc_output_norm[:groups])
        tokens = tokens * weight[:, None] + bias
        weight, bias = stacked(self.enc_out_class_embed[:groups])
        logits = torch.einsum("bgtd,gkd->bgtk", tokens, weight) + bias
        best = logits.detach().amax(-1).topk(min(self.queries, memory.shape[1]), dim=-1).indices[..., None]
        hidden = tokens.gather(2, best.expand(-1, -1, -1, tokens.shape[-1]))
        for number in range(3):
            weight, bias = stacked(head.get_submodule(f"layers.{number}") for head in self.enc_out_bbox_embed[:groups])
            hidden = torch.einsum("bgqd,ged->bgqe", F.relu(hidden) if number else hidden, weight) + bias
        chosen = proposals[:, None].expand(-1, groups, -1, -1).gather(2, best.expand(-1, -1, -1, 4))
        return logits.gather(2, best.expand(-1, -1, -1, logits.shape[-1])), moved(chosen, hidden)


class RfDetr(nn.Module):
    """The whole model. The selected tokens are supervised like a decoder layer, as the first one."""

    def __init__(self, config: RfDetrModel, num_classes: int) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.groups, self.queries = config.groups, config.queries
        self.multiple = config.patch_size * config.windows
        self.backbone = nn.ModuleList([Backbone(config)])
        self.transformer = Transformer(config, num_classes)
        self.class_embed = class_head(dim, num_classes)
        self.bbox_embed = zero_mlp((dim, dim, dim, 4))
        self.refpoint_embed = nn.Embedding(config.queries * config.groups, 4)
        self.query_feat = nn.Embedding(config.queries * config.groups, dim)
        nn.init.zeros_(self.refpoint_embed.weight)

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Outputs:
        """Predictions of the selection and of every decoder layer, L in all, for G groups (1 in evaluation).

        images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True on padding, or None without padding.
        Returns logits (L * G, B, Q, K) and boxes (L * G, B, Q, 4), the groups of a layer side by side.
        """
        images, padding_mask = self._fitting(images, padding_mask)
        features = self.backbone[0](images)
        # The decoder predicts box coordinates: full precision from here.
        with torch.autocast(images.device.type, enabled=False):
            return self._decode(features.to(self.class_embed.weight.dtype), padding_mask)

    def _fitting(self, images: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Pad at the right and bottom, so that the windows divide the image."""
        height, width = images.shape[-2:]
        more = (0, -width % self.multiple, 0, -height % self.multiple)
        if any(more):
            if padding_mask is None:
                padding_mask = torch.zeros((images.shape[0], height, width), dtype=torch.bool, device=images.device)
            images, padding_mask = F.pad(images, more), F.pad(padding_mask, more, value=True)
        return images, padding_mask

    def _decode(self, features: Tensor, padding_mask: Tensor | None) -> Outputs:
        groups = self.groups if self.training else 1
        batch, _, height, width = features.shape
        memory = features.flatten(2).transpose(1, 2)
        mask, valid = None, memory.new_ones(1, 1, 4)
        if padding_mask is not None:
            small = resized_mask(padding_mask, features)
            assert small is not None
            mask, valid = small.flatten(1), valid_ratio(padding_mask).to(memory.dtype)
        cells = prior_boxes([(height, width)], PROPOSAL, memory.device).to(memory.dtype).expand(batch, -1, -1)
        proposals = torch.cat((cells[..., :2] / valid[..., :2], cells[..., 2:]), dim=-1)
        invalid = ((proposals <= EDGE) | (proposals >= 1 - EDGE)).any(-1)
        invalid = invalid if mask is None else invalid | mask
        logits, boxes = self.transformer.select(memory, proposals, invalid, groups)
        tgt, change = (
            each.weight.view(self.groups, self.queries, -1)[:groups, : boxes.shape[2]]
            for each in (self.query_feat, self.refpoint_embed)
        )
        reference = moved(boxes.detach(), change)
        hs = self.transformer.decoder(
            tgt.expand(batch, -1, -1, -1), reference * valid[:, None], memory, (height, width), mask
        )
        logits = torch.cat((logits[None], self.class_embed(hs)))
        boxes = torch.cat((boxes[None], moved(reference, self.bbox_embed(hs))))
        return Outputs(*(each.transpose(1, 2).flatten(0, 1) for each in (logits, boxes)))
