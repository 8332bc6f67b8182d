"""RF-DETR's backbone: DINOv2 (arXiv 2304.07193) with attention in windows, and a projector.

Names of parameters are the published ones. Most layers attend within one of `windows` x `windows` parts of the
image; the layers after the first three outputs attend to the whole image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Conv2d, Linear
from run_config.families.rf_detr import OUTPUTS, RfDetrModel

EPSILON = 1e-6  # of every norm here
DEVIATION = 0.02  # of initial weights


class Embeddings(nn.Module):
    """Image to tokens: patches and a class token per window, with learned positions."""

    def __init__(self, config: RfDetrModel) -> None:
        super().__init__()
        dim = config.backbone_dim
        self.patch_size, self.windows, self.cells = config.patch_size, config.windows, config.position_cells
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        # DINOv2 was trained with it; here it is only kept
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.position_embeddings = nn.Parameter(torch.empty(1, self.cells**2 + 1, dim))
        self.patch_embeddings = nn.ModuleDict({"projection": Conv2d(3, dim, self.patch_size, self.patch_size)})
        for parameter in (self.cls_token, self.position_embeddings):
            nn.init.normal_(parameter, std=DEVIATION)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B * windows², 1 + tokens of a window, dim). H, W: multiples of patch_size * windows."""
        patches = self.patch_embeddings["projection"](images)
        height, width = patches.shape[-2:]
        tokens = patches.permute(0, 2, 3, 1) + self.positions(height, width)
        tokens = to_windows(tokens, self.windows)
        first = (self.cls_token + self.position_embeddings[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat((first.to(tokens.dtype), tokens), dim=1)

    def positions(self, height: int, width: int) -> Tensor:
        """(1, height, width, dim): the position embedding, interpolated where the image has another size."""
        square = self.position_embeddings[:, 1:].reshape(1, self.cells, self.cells, -1)
        if (height, width) == (self.cells, self.cells):
            return square
        resized = F.interpolate(
            square.float().permute(0, 3, 1, 2), (height, width), mode="bicubic", align_corners=False, antialias=True
        )
        return resized.permute(0, 2, 3, 1).to(square.dtype)


def to_windows(x: Tensor, windows: int) -> Tensor:
    """(B, H, W, C) to (B * windows², H / windows * W / windows, C), window by window."""
    batch, height, width, channels = x.shape
    parts = x.reshape(batch, windows, height // windows, windows, width // windows, channels)
    return parts.transpose(2, 3).reshape(batch * windows**2, -1, channels)


def from_windows(x: Tensor, windows: int, height: int, width: int) -> Tensor:
    """Undo `to_windows`: (B * windows², tokens, C) to (B, height, width, C)."""
    parts = x.reshape(-1, windows, windows, height // windows, width // windows, x.shape[-1])
    return parts.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


class SelfAttention(nn.Module):
    """Attention among all tokens of a window, or of an image."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: Linear(dim, dim) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": Linear(dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to the same shape."""
        q, k, v = (
            self.attention[name](x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed: Tensor = self.output["dense"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, 4 * dim), Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to the same shape."""
        hidden: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return hidden


class LayerScale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to the same shape."""
        return x * self.lambda1


class Layer(nn.Module):
    """Attention and two linear layers, pre-norm. `whole`: attend to the whole image instead of within windows."""

    def __init__(self, config: RfDetrModel, *, whole: bool) -> None:
        super().__init__()
        dim = config.backbone_dim
        self.joined = config.windows**2 if whole else 1
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPSILON), nn.LayerNorm(dim, EPSILON)
        self.attention = SelfAttention(dim, config.backbone_heads)
        self.layer_scale1, self.layer_scale2 = LayerScale(dim), LayerScale(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B * windows², N, dim) to the same shape."""
        windows, tokens, dim = x.shape
        joined = self.norm1(x).reshape(windows // self.joined, self.joined * tokens, dim)
        x = x + self.layer_scale1(self.attention(joined).reshape(windows, tokens, dim))
        changed: Tensor = x + self.layer_scale2(self.mlp(self.norm2(x)))
        return changed


class Dinov2(nn.Module):
    """DINOv2 without its mask and pooling: the tokens after each quarter of the layers, as feature maps."""

    def __init__(self, config: RfDetrModel) -> None:
        super().__init__()
        self.windows, self.patch_size = config.windows, config.patch_size
        self.every = config.backbone_layers // OUTPUTS
        self.embeddings = Embeddings(config)
        layers = (
            Layer(config, whole=number > 0 and number % self.every == 0) for number in range(config.backbone_layers)
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.layernorm = nn.LayerNorm(config.backbone_dim, EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=DEVIATION)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 4 * dim, H / patch_size, W / patch_size), channels last in memory."""
        height, width = (side // self.patch_size for side in images.shape[-2:])
        tokens, maps = self.embeddings(images), []
        for number, layer in enumerate(self.encoder["layer"].children(), start=1):
            tokens = layer(tokens)
            if number % self.every == 0:
                maps.append(from_windows(self.layernorm(tokens)[:, 1:], self.windows, height, width))
        return torch.cat(maps, dim=-1).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution, norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = ChannelNorm(outputs)  # a batch norm in the network that the name comes from

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return F.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        changed: Tensor = self.cv2(self.cv1(x))
        return changed


class CrossStage(nn.Module):
    """Half of the channels go through three bottlenecks; what each of them gives is kept, and all is mixed."""

    def __init__(self, inputs: int, outputs: int, depth: int = 3) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1, self.cv2 = ConvNorm(inputs, 2 * half, 1), ConvNorm((2 + depth) * half, outputs, 1)
        self.m = nn.ModuleList(Bottleneck(half) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        kept = list(self.cv1(x).chunk(2, dim=1))
        for bottleneck in self.m:
            kept.append(bottleneck(kept[-1]))
        mixed: Tensor = self.cv2(torch.cat(kept, dim=1))
        return mixed


class Backbone(nn.Module):
    """DINOv2 and the projector to the width of the decoder."""

    def __init__(self, config: RfDetrModel) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.encoder = nn.ModuleDict({"encoder": Dinov2(config)})
        stage = nn.Sequential(CrossStage(OUTPUTS * config.backbone_dim, dim), ChannelNorm(dim))
        self.projector = nn.ModuleDict({"stages": nn.ModuleList([stage])})

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, hidden_dim, H / patch_size, W / patch_size)."""
        stages = self.projector["stages"]
        assert isinstance(stages, nn.ModuleList)
        features: Tensor = stages[0](self.encoder["encoder"](images))
        return features
