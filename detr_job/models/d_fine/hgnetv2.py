"""HGNetV2, the convolutional backbone of D-FINE, with the parameter names of the published checkpoints."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.backbone import FrozenBatchNorm, folded_conv
from detr_job.models.layers import Conv2d, normed_conv2d


class Stage(NamedTuple):
    """A stage: channels of its blocks' layers and of its output, number of blocks, and layers of each block."""

    middle: int
    outputs: int
    blocks: int
    layers: int


class Size(NamedTuple):
    """Channels inside and after the stem, and the stages at strides 4, 8, 16 and 32."""

    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]


SIZES: dict[str, Size] = {
    "b0": Size((16, 16), (Stage(16, 64, 1, 3), Stage(32, 256, 1, 3), Stage(64, 512, 2, 3), Stage(128, 1024, 1, 3))),
    "b1": Size((24, 32), (Stage(32, 64, 1, 3), Stage(48, 256, 1, 3), Stage(96, 512, 2, 3), Stage(192, 1024, 1, 3))),
    "b2": Size((24, 32), (Stage(32, 96, 1, 4), Stage(64, 384, 1, 4), Stage(128, 768, 3, 4), Stage(256, 1536, 1, 4))),
    "b3": Size((24, 32), (Stage(32, 128, 1, 5), Stage(64, 512, 1, 5), Stage(128, 1024, 3, 5), Stage(256, 2048, 1, 5))),
    "b4": Size((32, 48), (Stage(48, 128, 1, 6), Stage(96, 512, 1, 6), Stage(192, 1024, 3, 6), Stage(384, 2048, 1, 6))),
    "b5": Size((32, 64), (Stage(64, 128, 1, 6), Stage(128, 512, 2, 6), Stage(256, 1024, 5, 6), Stage(512, 2048, 2, 6))),
    "b6": Size((48, 96), (Stage(96, 192, 2, 6), Stage(192, 512, 3, 6), Stage(384, 1024, 6, 6), Stage(768, 2048, 3, 6))),
}


class Affine(nn.Module):
    """One learned scale and one bias for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return (self.scale * x).add_(self.bias)


class Style(NamedTuple):
    """What all convolutions of a backbone have in common; see DFineModel."""

    affine: bool
    frozen: bool


class ConvNorm(nn.Module):
    """Convolution and batch norm, then ReLU and the affine map unless `act` is False."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        style: Style,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.bn = FrozenBatchNorm(outputs) if style.frozen else nn.BatchNorm2d(outputs)
        self.act = act
        self.lab = Affine() if act and style.affine else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        if isinstance(self.bn, FrozenBatchNorm):
            x = folded_conv(x, self.conv, self.bn, relu=self.act)
        else:
            x = normed_conv2d(x, self.conv, self.bn, relu=self.act)
        return self.lab(x)  # type: ignore[no-any-return]  # a module


class LightConv(nn.Module):
    """A 1 x 1 convolution, then one per channel."""

    def __init__(self, inputs: int, outputs: int, kernel: int, style: Style) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 1, style, act=False)
        self.conv2 = ConvNorm(outputs, outputs, kernel, style, groups=outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        mixed: Tensor = self.conv2(self.conv1(x))
        return mixed


class Stem(nn.Module):
    """Stride 4, with two branches at stride 2: a maximum, and two 2 x 2 convolutions."""

    def __init__(self, middle: int, outputs: int, style: Style) -> None:
        super().__init__()
        self.stem1 = ConvNorm(3, middle, 3, style, stride=2)
        self.stem2a = ConvNorm(middle, middle // 2, 2, style)
        self.stem2b = ConvNorm(middle // 2, middle, 2, style)
        self.stem3 = ConvNorm(2 * middle, middle, 3, style, stride=2)
        self.stem4 = ConvNorm(middle, outputs, 1, style)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, outputs, H / 4, W / 4)."""
        right_and_below = (0, 1, 0, 1)
        x = F.pad(self.stem1(images), right_and_below)
        branch = self.stem2b(F.pad(self.stem2a(x), right_and_below))
        x = torch.cat((F.max_pool2d(x, kernel_size=2, stride=1), branch), dim=1)
        features: Tensor = self.stem4(self.stem3(x))
        return features


class Block(nn.Module):
    """Layers one after the other; their outputs and the input are concatenated and mixed."""

    def __init__(self, inputs: int, stage: Stage, style: Style, *, kernel: int, light: bool, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        layer = LightConv if light else ConvNorm
        widths = [inputs] + [stage.middle] * stage.layers
        self.layers = nn.ModuleList(layer(width, stage.middle, kernel, style) for width in widths[:-1])
        self.aggregation = nn.Sequential(
            ConvNorm(sum(widths), stage.outputs // 2, 1, style), ConvNorm(stage.outputs // 2, stage.outputs, 1, style)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        mixed: Tensor = self.aggregation(torch.cat(outputs, dim=1))
        return mixed + x if self.residual else mixed


class HGStage(nn.Module):
    """Blocks of one stride. Stages 3 and 4 use light convolutions of 5 x 5."""

    def __init__(self, number: int, inputs: int, stage: Stage, style: Style) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if number > 0:
            self.downsample = ConvNorm(inputs, inputs, 3, style, stride=2, groups=inputs, act=False)
        light = number >= 2
        self.blocks = nn.Sequential(
            *(
                Block(
                    stage.outputs if index else inputs,
                    stage,
                    style,
                    kernel=5 if light else 3,
                    light=light,
                    residual=index > 0,
                )
                for index in range(stage.blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / 2, W / 2); the first stage keeps the size."""
        features: Tensor = self.blocks(self.downsample(x))
        return features


class HGNetV2(nn.Module):
    """Images to the maps of the last `levels` stages, finest first."""

    def __init__(self, size: str, levels: int, style: Style) -> None:
        super().__init__()
        stem, stages = SIZES[size]
        self.levels = levels
        self.stem = Stem(*stem, style)
        inputs = (stem[1], *(stage.outputs for stage in stages))
        self.stages = nn.ModuleList(HGStage(n, inputs[n], stage, style) for n, stage in enumerate(stages))
        self.channels = [stage.outputs for stage in stages[-levels:]]
        if style.frozen:
            self.stem.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps of (B, C, H / stride, W / stride)."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[-self.levels :]
