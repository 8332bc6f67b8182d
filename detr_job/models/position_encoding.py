"""Position encodings of feature map cells, sine (arXiv 2005.12872) and learned, and of coordinates.

Those of cells take the size of a feature map and its padding, and give one vector per cell. Without padding the result
has batch size 1 and is broadcast.
"""

import math

import torch
from torch import Tensor, nn

from detr_job.errors import JobError

LEARNED_CELLS = 50
TEMPERATURE = 10_000.0


def sine_embedding(coordinates: Tensor, dim: int) -> Tensor:
    """(…, N) coordinates in 0…1 to (…, N * dim): sines and cosines of each."""
    channel = torch.arange(dim, dtype=coordinates.dtype, device=coordinates.device)
    period = TEMPERATURE ** (2 * torch.div(channel, 2, rounding_mode="floor") / dim)
    angle = coordinates[..., None] * (2 * math.pi) / period
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-3)


class SinePositionEncoding(nn.Module):
    """Sines and cosines of the row and column, scaled so that the last cell of every image is at 2 pi.

    centres: encode the centres of the cells (arXiv 2010.04159), not their far edges.
    """

    def __init__(self, dim: int, temperature: float = TEMPERATURE, *, centres: bool = False) -> None:
        super().__init__()
        self.features = dim // 2
        self.temperature = temperature
        self.shift = 0.5 if centres else 0.0

    def forward(self, height: int, width: int, padding_mask: Tensor | None, device: torch.device) -> Tensor:
        """(B, H, W, dim), row features first, then column features. padding_mask: (B, H, W), True is padding."""
        if padding_mask is None:
            rows = self._waves(torch.arange(1, height + 1, dtype=torch.float32, device=device), float(height))
            columns = self._waves(torch.arange(1, width + 1, dtype=torch.float32, device=device), float(width))
            shape = (1, height, width, self.features)
            return torch.cat((rows[None, :, None].expand(shape), columns[None, None].expand(shape)), dim=-1)
        inside = ~padding_mask
        y = inside.cumsum(1, dtype=torch.float32)
        x = inside.cumsum(2, dtype=torch.float32)
        return torch.cat((self._waves(y, y[:, -1:, :]), self._waves(x, x[:, :, -1:])), dim=-1)

    def _waves(self, position: Tensor, last: Tensor | float) -> Tensor:
        """(…) positions counted from 1 to (…, features): sine on even channels, cosine on odd ones."""
        angle = (position - self.shift) / (last + 1e-6) * (2 * math.pi)
        channel = torch.arange(self.features, dtype=torch.float32, device=position.device)
        period = self.temperature ** (2 * torch.div(channel, 2, rounding_mode="floor") / self.features)
        scaled = angle[..., None] / period
        return torch.stack((scaled[..., 0::2].sin(), scaled[..., 1::2].cos()), dim=-1).flatten(-2)


class LearnedPositionEncoding(nn.Module):
    """A learned vector for each of the first 50 rows and columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(LEARNED_CELLS, dim // 2)
        self.col_embed = nn.Embedding(LEARNED_CELLS, dim // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, height: int, width: int, padding_mask: Tensor | None, device: torch.device) -> Tensor:
        """(1, H, W, dim), column features first, then row features. Padding is ignored."""
        del padding_mask, device  # unused: the interface is that of the sine encoding
        if max(height, width) > LEARNED_CELLS:
            raise JobError(
                f"learned position encodings end at {LEARNED_CELLS} x {LEARNED_CELLS} cells, but the feature "
                f"map has {height} x {width}: use smaller images or position_embedding: sine"
            )
        columns = self.col_embed.weight[None, None, :width].expand(1, height, -1, -1)
        rows = self.row_embed.weight[None, :height, None].expand(1, -1, width, -1)
        return torch.cat((columns, rows), dim=-1)
