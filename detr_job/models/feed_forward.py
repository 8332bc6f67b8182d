"""The feed-forward part of transformer layers, with the parameter names of the published DETR models."""

import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Linear, dropout


class FeedForward(nn.Module):
    """Two linear maps, dropouts, residual, pre-norm or post-norm.

    This is a base class and not a submodule, so that parameters keep their published names.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.linear1 = Linear(dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, dim)
        self.dropout = dropout

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
