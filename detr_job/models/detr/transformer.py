"""DETR's transformer (arXiv 2005.12872, appendix A.3): encoder, decoder, post-norm or pre-norm.

Batch first: (B, tokens, dim). Positions are added to queries and keys, never to values. Parameter names and
packing are the published ones. Attention weights are not materialised, except where PyTorch has no other way
(dropout on a CPU); `recorded_weights` computes them for visualisation.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Linear, dropout, linear
from run_config.families.detr import DetrModel


class Attention(nn.Module):
    """Multi-head attention with one packed matrix for the projections of query, key and value."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None = None) -> Tensor:
        """(B, Q, dim) from queries (B, Q, dim), keys and values (B, N, dim).

        attend: (B, 1, 1, N), False where a key is padding; None attends to all keys. `query is key` means
        self-attention, which projects both with one matrix product.
        """
        q, k, v = self._project(query, key, value)
        dropped = self.dropout if self.training else 0.0
        if dropped and q.device.type == "cpu":
            # PyTorch has no fused kernel for dropout here. It would also compute the weights, with a slower dropout.
            out = dropout(_attention_weights(q, k, attend), dropped, training=True) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attend, dropout_p=dropped)
        mixed: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, query: Tensor, key: Tensor, attend: Tensor | None = None) -> Tensor:
        """(B, heads, Q, N): attention of each query to each key; rows sum to 1."""
        q, k, _ = self._project(query, key, key)
        return _attention_weights(q, k, attend)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, heads, tokens, dim / heads) of each."""
        if query is key:
            (weight, weight_v), (bias, bias_v) = self._parts(2, 1)
            q, k = linear(query, weight, bias).chunk(2, dim=-1)
        else:
            (weight_q, weight_k, weight_v), (bias_q, bias_k, bias_v) = self._parts(1, 1, 1)
            q, k = linear(query, weight_q, bias_q), linear(key, weight_k, bias_k)
        return self._split(q), self._split(k), self._split(linear(value, weight_v, bias_v))

    def _parts(self, *thirds: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Split the packed weight and bias. Splitting once makes their gradient one concatenation."""
        sizes = [third * self.out_proj.in_features for third in thirds]
        return torch.split(self.in_proj_weight, sizes), torch.split(self.in_proj_bias, sizes)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, dim) to (B, heads, N, dim / heads)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def _attention_weights(q: Tensor, k: Tensor, attend: Tensor | None) -> Tensor:
    logits: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if attend is not None:
        logits = logits.masked_fill(~attend, -torch.inf)
    return logits.softmax(-1)


@contextmanager
def recorded_weights(attention: Attention) -> Iterator[list[Tensor]]:
    """Record the attention weights of every call of `attention` inside the block, (B, heads, Q, N) each.

    For example, what a query of the last layer attends to:

        with recorded_weights(model.transformer.decoder.layers[-1].multihead_attn) as weights:
            model(images, padding_mask)
        weights[0].mean(1)[0, query].view(height, width)  # of the feature map
    """
    weights: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> None:
        assert module is attention
        query, key, _, attend = arguments
        with torch.no_grad():
            weights.append(attention.weights(query, key, attend))

    handle = attention.register_forward_pre_hook(record)
    try:
        yield weights
    finally:
        handle.remove()


class _FeedForward(nn.Module):
    """The feed-forward part of both kinds of layer: two linear maps, dropouts, residual, pre-norm or post-norm.

    This is a base class and not a submodule, so that parameters keep their published names.
    """

    def __init__(self, config: DetrModel) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.linear1 = Linear(config.hidden_dim, config.feedforward_dim)
        self.linear2 = Linear(config.feedforward_dim, config.hidden_dim)
        self.dropout = config.dropout

    def before(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The input of a sublayer, normalised for pre-norm."""
        normed: Tensor = norm(x) if self.pre_norm else x
        return normed

    def after(self, x: Tensor, update: Tensor, norm: nn.Module) -> Tensor:
        """The residual sum, normalised for post-norm."""
        total = x + dropout(update, self.dropout, training=self.training)
        normed: Tensor = total if self.pre_norm else norm(total)
        return normed

    def feed_forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """(B, N, dim) to the same shape."""
        hidden = F.relu(self.linear1(self.before(x, norm)))
        hidden = dropout(hidden, self.dropout, training=self.training)
        return self.after(x, self.linear2(hidden), norm)


class EncoderLayer(_FeedForward):
    """Self-attention over the feature map, then the feed-forward part."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__(config)
        self.self_attn = Attention(config.hidden_dim, config.heads, config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)

    def forward(self, src: Tensor, pos: Tensor, attend: Tensor | None) -> Tensor:
        """src: (B, HW, dim); pos: (B or 1, HW, dim)."""
        value = self.before(src, self.norm1)
        query = value + pos
        src = self.after(src, self.self_attn(query, query, value, attend), self.norm1)
        return self.feed_forward(src, self.norm2)


class DecoderLayer(_FeedForward):
    """Self-attention among the queries, cross-attention to the memory, then the feed-forward part."""

    def __init__(self, config: DetrModel) -> None:
        super().__init__(config)
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
