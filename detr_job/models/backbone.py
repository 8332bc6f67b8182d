"""ResNet-18/34/50/101 with frozen batch norm (arXiv 1512.03385), used as a backbone.

Same parameters, names and numbers as torchvision's. The batch norms never change, so each is folded into the
convolution before it: conv(x, w * scale) + shift. Gradients reach w through the product.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Geometry, scaled_conv2d

EPSILON = 1e-5


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine map are buffers: y = x * scale + shift."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._folded: _Folded | None = None

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(C, 1, 1, 1) factors for a convolution's weights, and its (C,) bias.

        Cached until a buffer is replaced or written to: 53 norms of five tiny operations each would be a large
        part of the kernels that the host launches in a step.
        """
        if torch.compiler.is_compiling():
            return self._fold()
        source = (self.weight, self.bias, self.running_mean, self.running_var)
        versions = tuple(each._version for each in source)
        kept = self._folded
        if (
            kept is None
            or kept.versions != versions
            or any(a is not b for a, b in zip(kept.source, source, strict=True))
        ):
            with torch.inference_mode(False), torch.no_grad():
                kept = self._folded = _Folded(source, versions, *self._fold())
        return kept.scale, kept.shift

    def _fold(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + EPSILON).rsqrt()
        return scale[:, None, None, None], self.bias - self.running_mean * scale

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # trained batch norms have this entry, frozen ones do not
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Folded(NamedTuple):
    source: tuple[Tensor, Tensor, Tensor, Tensor]
    versions: tuple[int, ...]
    scale: Tensor
    shift: Tensor


def folded_conv(
    x: Tensor, conv: nn.Module, norm: nn.Module, *, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """norm(conv(x)) as one convolution, plus the residual, then ReLU."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, FrozenBatchNorm)
    assert not isinstance(conv.padding, str)
    geometry = Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    return scaled_conv2d(x, conv.weight, *norm.scale_and_shift(), geometry, residual=residual, relu=relu)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class _Block(nn.Module):
    """The shortcut that both kinds of residual block share."""

    expansion: int

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), FrozenBatchNorm(outputs))

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else folded_conv(x, self.downsample[0], self.downsample[1])


class BasicBlock(_Block):
    """Two 3 x 3 convolutions (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__(inputs, planes, stride)
        self.conv1, self.bn1 = _conv(inputs, planes, 3, stride, dilation), FrozenBatchNorm(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), FrozenBatchNorm(planes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, planes, H / stride, W / stride)."""
        out = folded_conv(x, self.conv1, self.bn1, relu=True)
        return folded_conv(out, self.conv2, self.bn2, residual=self.shortcut(x), relu=True)


class Bottleneck(_Block):
    """1 x 1, 3 x 3, 1 x 1 (ResNet-50 and 101). The 3 x 3 convolution has the stride, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        outputs = planes * self.expansion
        super().__init__(inputs, outputs, stride)
        self.conv1, self.bn1 = _conv(inputs, planes, 1), FrozenBatchNorm(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3, stride, dilation), FrozenBatchNorm(planes)
        self.conv3, self.bn3 = _conv(planes, outputs, 1), FrozenBatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        out = folded_conv(x, self.conv1, self.bn1, relu=True)
        out = folded_conv(out, self.conv2, self.bn2, relu=True)
        return folded_conv(out, self.conv3, self.bn3, residual=self.shortcut(x), relu=True)


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """A ResNet without its classifier: images to the features of its last stage, stride 32 (16 when dilated)."""

    def __init__(self, name: str, *, dilation: bool = False) -> None:
        super().__init__()
        block, depths = DEPTHS[name]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), FrozenBatchNorm(64)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], stride=2, dilate=dilation)
        self.channels = 512 * block.expansion

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H / 32, W / 32), channels last in memory."""
        return self.pyramid(images)[-1]

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features of the last three stages, strides 8, 16 and 32, with a quarter, half and all of the channels."""
        x = folded_conv(images.contiguous(memory_format=torch.channels_last), self.conv1, self.bn1, relu=True)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    planes: int,
    depth: int,
    *,
    stride: int,
    dilate: bool = False,
) -> nn.Sequential:
    """One stage. With `dilate`, the stride is 1, the first block has no dilation, and the others have dilation 2."""
    first = block(inputs, planes, 1 if dilate else stride, 1)
    outputs = planes * block.expansion
    return nn.Sequential(first, *(block(outputs, planes, 1, 2 if dilate else 1) for _ in range(depth - 1)))


class Backbone(nn.Module):
    """A ResNet under its published name, `body`. The stem and the first stage are never trained."""

    def __init__(self, name: str, *, dilation: bool = False) -> None:
        super().__init__()
        self.body = ResNet(name, dilation=dilation)
        for key, parameter in self.body.named_parameters():
            parameter.requires_grad_(key.startswith(("layer2", "layer3", "layer4")))

    def forward(self, images: Tensor) -> Tensor:
        """See ResNet."""
        features: Tensor = self.body(images)
        return features
