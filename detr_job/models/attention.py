"""Multi-head attention among tokens, and its weights for visualisation.

Attention weights are not materialised, except where PyTorch has no other way (dropout on a CPU);
`recorded_weights` computes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Linear, dropout, linear


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
            out = dropout(_weights(q, k, attend), dropped, training=True) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attend, dropout_p=dropped)
        mixed: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, query: Tensor, key: Tensor, attend: Tensor | None = None) -> Tensor:
        """(B, heads, Q, N): attention of each query to each key; rows sum to 1."""
        q, k, _ = self._project(query, key, key)
        return _weights(q, k, attend)

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


def _weights(q: Tensor, k: Tensor, attend: Tensor | None) -> Tensor:
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
