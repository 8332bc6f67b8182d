"""DETR's transformer (arXiv 2005.12872, appendix A.3): encoder, decoder, post-norm or pre-norm.

Batch first: (B, tokens, dim). Positions are added to queries and keys, never to values. Parameter names and
packing are the published ones.
"""

import torch
from torch import Tensor, nn

from detr_job.models.attention import Attention
from detr_job.models.feed_forward import FeedForward
from run_config.families.detr import DetrModel


class EncoderLayer(FeedForward):
    """Self-attention over the feature map, then the feed-forward part."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__(config.hidden_dim, config.feedforward_dim, config.dropout, pre_norm=config.pre_norm)
        self.self_attn = Attention(config.hidden_dim, config.heads, config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)

    def forward(self, src: Tensor, pos: Tensor, attend: Tensor | None) -> Tensor:
        """src: (B, HW, dim); pos: (B or 1, HW, dim)."""
        value = self.before(src, self.norm1)
        query = value + pos
        src = self.after(src, self.self_attn(query, query, value, attend), self.norm1)
        return self.feed_forward(src, self.norm2)


class DecoderLayer(FeedForward):
    """Self-attention among the queries, cross-attention to the memory, then the feed-forward part."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__(config.hidden_dim, config.feedforward_dim, config.dropout, pre_norm=config.pre_norm)
        self.self_attn = Attention(config.hidden_dim, config.heads, config.dropout)
        self.multihead_attn = Attention(config.hidden_dim, config.heads, config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)
        self.norm3 = nn.LayerNorm(config.hidden_dim)

    def forward(
        self, tgt: Tensor, query_pos: Tensor, memory: Tensor, memory_key: Tensor, attend: Tensor | None
    ) -> Tensor:
        """tgt: (B, Q, dim); query_pos: (1, Q, dim); memory_key: the memory with its positions added."""
        value = self.before(tgt, self.norm1)
        query = value + query_pos
        tgt = self.after(tgt, self.self_attn(query, query, value, None), self.norm1)
        query = self.before(tgt, self.norm2) + query_pos
        tgt = self.after(tgt, self.multihead_attn(query, memory_key, memory, attend), self.norm2)
        return self.feed_forward(tgt, self.norm3)


class Encoder(nn.Module):
    """A stack of layers. Only the pre-norm variant has a final norm."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim) if config.pre_norm else None

    def forward(self, src: Tensor, pos: Tensor, attend: Tensor | None) -> Tensor:
        """(B, HW, dim) to the memory, the same shape."""
        for layer in self.layers:
            src = layer(src, pos, attend)
        return src if self.norm is None else self.norm(src)


class Decoder(nn.Module):
    """A stack of layers. One norm is shared by the outputs of all layers."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, query_pos: Tensor, memory: Tensor, pos: Tensor, attend: Tensor | None) -> Tensor:
        """(L, B, Q, dim): the normalised output of every layer. The first layer starts from zeros."""
        tgt = torch.zeros_like(query_pos).expand(len(memory), -1, -1)
        memory_key = memory + pos
        outputs = []
        for layer in self.layers:
            tgt = layer(tgt, query_pos, memory, memory_key, attend)
            outputs.append(tgt)
        hs: Tensor = self.norm(torch.stack(outputs))
        return hs


class Transformer(nn.Module):
    """Encoder and decoder, initialised as published: Xavier on every matrix, also on the packed one as a whole."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, pos: Tensor, query_pos: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Returns hs: (L, B, Q, dim).

        src: (B, HW, dim) tokens of the feature map. pos: (B or 1, HW, dim). query_pos: (Q, dim). padding_mask:
        (B, HW), True is padding. None means no padding and lets attention use its fastest kernel.
        """
        attend = None if padding_mask is None else ~padding_mask[:, None, None]
        memory = self.encoder(src, pos, attend)
        hs: Tensor = self.decoder(query_pos[None], memory, pos, attend)
        return hs
