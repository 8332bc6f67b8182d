"""The hybrid encoder (arXiv 2304.08069): attention on the coarsest map, then fusion of the levels by convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.attention import Attention
from detr_job.models.layers import Conv2d, Linear, normed_conv2d
from run_config.families.d_fine import DFineModel

TEMPERATURE = 10000.0


class ConvNorm(nn.Module):
    """Convolution and batch norm, with SiLU if `act`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = False
    ) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        x = normed_conv2d(x, self.conv, self.norm)
        return F.silu(x) if self.act else x


class TwoKernels(nn.Module):
    """The sum of a 3 x 3 and a 1 x 1 convolution, then SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(width, width, 3), ConvNorm(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        return F.silu(self.conv1(x) + self.conv2(x))


class Branch(nn.Module):
    """The sum of a deep and a shallow path."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(inputs, outputs, 1, act=True), ConvNorm(inputs, outputs, 1, act=True)
        self.bottlenecks = nn.Sequential(*(TwoKernels(outputs) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        total: Tensor = self.bottlenecks(self.conv1(x)) + self.conv2(x)
        return total


class Fusion(nn.Module):
    """Mixes two maps of `dim` channels that are concatenated into one, through two branches in a row."""

    def __init__(self, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(2 * dim, 2 * dim, 1, act=True)
        self.cv2 = nn.Sequential(Branch(dim, width, blocks), ConvNorm(width, width, 3, act=True))
        self.cv3 = nn.Sequential(Branch(width, width, blocks), ConvNorm(width, width, 3, act=True))
        self.cv4 = ConvNorm(2 * dim + 2 * width, dim, 1, act=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (B, dim, H, W) to one."""
        whole = self.cv1(torch.cat((first, second), dim=1))
        deeper = self.cv2(whole.chunk(2, dim=1)[1])
        mixed: Tensor = self.cv4(torch.cat((whole, deeper, self.cv3(deeper)), dim=1))
        return mixed


class Halving(nn.Module):
    """Half the size: a 1 x 1 convolution, then one of 3 x 3 per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = ConvNorm(dim, dim, 1), ConvNorm(dim, dim, 3, stride=2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, dim, H / 2, W / 2)."""
        half: Tensor = self.cv2(self.cv1(x))
        return half


class EncoderLayer(nn.Module):
    """Self-attention over one map and a feed-forward part with GELU, post-norm."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads, dropout)
        nn.init.xavier_uniform_(self.self_attn.in_proj_weight)
        self.linear1, self.linear2 = Linear(dim, feedforward), Linear(feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor, attend: Tensor | None) -> Tensor:
        """tokens, position: (B, T, D). attend: (B, 1, 1, T), False on padding, or None."""
        place = tokens + position
        tokens = self.norm1(tokens + self.dropout(self.self_attn(place, place, tokens, attend)))
        changed: Tensor = self.norm2(tokens + self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(tokens))))))
        return changed


class HybridEncoder(nn.Module):
    """Maps of the backbone to as many maps of `encoder_dim` channels, with the published parameter names."""

    def __init__(self, config: DFineModel, channels: list[int]) -> None:
        super().__init__()
        dim = config.encoder_dim
        steps = range(len(channels) - 1)
        self.input_proj = nn.ModuleList(ConvNorm(width, dim, 1) for width in channels)
        self.encoder = nn.ModuleList()
        if config.encoder_layers:
            layers = (
                EncoderLayer(dim, config.heads, config.encoder_feedforward_dim, config.dropout)
                for _ in range(config.encoder_layers)
            )
            self.encoder.append(nn.ModuleDict({"layers": nn.ModuleList(layers)}))
        self.lateral_convs = nn.ModuleList(ConvNorm(dim, dim, 1) for _ in steps)
        self.fpn_blocks = nn.ModuleList(Fusion(dim, config.fusion_dim, config.fusion_blocks) for _ in steps)
        self.downsample_convs = nn.ModuleList(nn.Sequential(Halving(dim)) for _ in steps)
        self.pan_blocks = nn.ModuleList(Fusion(dim, config.fusion_dim, config.fusion_blocks) for _ in steps)

    def forward(self, maps: list[Tensor], mask: Tensor | None) -> list[Tensor]:
        """Maps, finest first. mask: (B, h, w) of the coarsest map, True on padding, or None."""
        maps = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        maps[-1] = self._attend(maps[-1], mask)
        for index in range(len(maps) - 1):  # top-down, from the coarsest
            fine, coarse = -2 - index, -1 - index
            maps[coarse] = self.lateral_convs[index](maps[coarse])
            larger = F.interpolate(maps[coarse], maps[fine].shape[-2:], mode="nearest")
            maps[fine] = self.fpn_blocks[index](larger, maps[fine])
        for index in range(len(maps) - 1):  # bottom-up, from the finest
            maps[index + 1] = self.pan_blocks[index](self.downsample_convs[index](maps[index]), maps[index + 1])
        return maps

    def _attend(self, coarse: Tensor, mask: Tensor | None) -> Tensor:
        if not len(self.encoder):
            return coarse
        height, width = coarse.shape[-2:]
        position = sine_position(height, width, coarse.shape[1], coarse.device).to(coarse.dtype)
        tokens = coarse.flatten(2).transpose(1, 2)
        attend = None if mask is None else ~mask.flatten(1)[:, None, None]
        parts = self.encoder[0]
        assert isinstance(parts, nn.ModuleDict)
        for layer in parts["layers"]:  # type: ignore[attr-defined]  # a ModuleList
            tokens = layer(tokens, position, attend)
        return tokens.transpose(1, 2).reshape(coarse.shape).contiguous(memory_format=torch.channels_last)


def sine_position(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """(1, H * W, dim): sine and cosine of the row, then of the column, both counted from 0.

    On square maps, the numbers that the published weights were trained with. The published code mixes up rows
    and columns of other maps; here they keep their meaning.
    """
    frequency = 1 / TEMPERATURE ** (torch.arange(dim // 4, dtype=torch.float32, device=device) / (dim // 4))
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * frequency
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * frequency
    shape = (height, width, dim // 2)
    row = torch.cat((rows.sin(), rows.cos()), dim=-1)[:, None].expand(shape)
    column = torch.cat((columns.sin(), columns.cos()), dim=-1)[None].expand(shape)
    return torch.cat((row, column), dim=-1).flatten(0, 1)[None]
