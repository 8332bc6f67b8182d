"""The layers of Deformable DETR (arXiv 2010.04159). Names of parameters are the published ones."""

import torch
from torch import Tensor, nn

from detr_job.models.attention import Attention
from detr_job.models.deformable_attention import DeformableAttention
from detr_job.models.feed_forward import FeedForward
from detr_job.models.layers import Linear
from run_config.families.deformable_detr import DeformableDetrModel


class _Layer(FeedForward):
    """The parts of both kinds of layer: the feed-forward part and two norms; post-norm."""

    def __init__(self, config: DeformableDetrModel) -> None:
        super().__init__(config.hidden_dim, config.feedforward_dim, config.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(config.hidden_dim), nn.LayerNorm(config.hidden_dim)


class EncoderLayer(_Layer):
    """Every token reads a few points around itself on each level."""

    def __init__(self, config: DeformableDetrModel) -> None:
        super().__init__(config)
        self.self_attn = DeformableAttention(config.hidden_dim, config.heads, (config.points,) * config.levels)

    def forward(
        self, src: Tensor, pos: Tensor, boxes: Tensor, shapes: list[tuple[int, int]], mask: Tensor | None
    ) -> Tensor:
        """src: (B, T, dim), the levels concatenated. pos: (B or 1, T, dim). boxes: see DeformableAttention."""
        src = self.after(src, self.self_attn(src + pos, boxes, src, shapes, mask), self.norm1)
        return self.feed_forward(src, self.norm2)


class DecoderLayer(_Layer):
    """Self-attention among the queries, deformable attention to the memory, feed-forward."""

    def __init__(self, config: DeformableDetrModel) -> None:
        super().__init__(config)
        self.self_attn = Attention(config.hidden_dim, config.heads, config.dropout)
        self.cross_attn = DeformableAttention(config.hidden_dim, config.heads, (config.points,) * config.levels)
        self.norm3 = nn.LayerNorm(config.hidden_dim)

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        boxes: Tensor,
        memory: Tensor,
        shapes: list[tuple[int, int]],
        mask: Tensor | None,
    ) -> Tensor:
        """tgt, query_pos: (B, Q, dim). boxes: see DeformableAttention. Returns the new tgt."""
        query = tgt + query_pos
        tgt = self.after(tgt, self.self_attn(query, query, tgt), self.norm2)
        tgt = self.after(tgt, self.cross_attn(tgt + query_pos, boxes, memory, shapes, mask), self.norm1)
        return self.feed_forward(tgt, self.norm3)


class _Stack(nn.Module):
    """Layers under the published name."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Transformer(nn.Module):
    """The parameters of encoder, decoder and query selection, initialised as published."""

    def __init__(self, config: DeformableDetrModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.level_embed = nn.Parameter(torch.empty(config.levels, dim))
        self.encoder = _Stack([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.decoder = _Stack([DecoderLayer(config) for _ in range(config.decoder_layers)])
        if config.two_stage:
            self.enc_output, self.enc_output_norm = Linear(dim, dim), nn.LayerNorm(dim)
            self.pos_trans, self.pos_trans_norm = Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim)
        else:
            self.reference_points = Linear(dim, 2)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module._reset_parameters()
        if not config.two_stage:
            nn.init.zeros_(self.reference_points.bias)
        nn.init.normal_(self.level_embed)
