"""Linear layers, dropout and convolutions: PyTorch's own on a GPU, faster or safer replacements on a CPU.

In fp32, PyTorch's matrix product is MKL's, which on non-Intel processors runs at less than half the speed of
oneDNN's; and drawing the random numbers of a dropout costs more than the layer before it. Parameters and
their names are those of `nn.Linear`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# the operator through which torch.compile uses oneDNN; without it, PyTorch's own code runs
ONEDNN: bool = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")

SAFE_CHANNELS = 16
SMALL_MAP = 256
"""Cells of a batch up to which the backward pass of a 1 x 1 convolution is faster as matrix products."""
HALF_RANGE = 32768  # of a 16-bit number


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias by oneDNN, without autograd."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    """F.linear and its gradients as three oneDNN products."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]  # set by save_for_backward
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]  # set by autograd
            grad_x = _product(rows, weight.t(), None).view(x.shape)
        return grad_x, _product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None), rows.sum(0)


def _on_cpu(x: Tensor) -> bool:
    """Whether to use this module's CPU code. torch.compile must capture PyTorch's own operators."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(…, inputs) to (…, outputs), like F.linear."""
    if ONEDNN and _on_cpu(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        out: Tensor = _OneDnnLinear.apply(x, weight, bias)
        return out
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear that uses `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return linear(x, self.weight, self.bias)


def dropout(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Like F.dropout. On a CPU, one 64-bit random number is used for four elements, with a resolution of 1/65536."""
    threshold = round(probability * 2 * HALF_RANGE) - HALF_RANGE
    # A threshold beyond the range would wrap around, and keep everything.
    if not training or probability == 0 or threshold == HALF_RANGE or not _on_cpu(x):
        return F.dropout(x, probability, training)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= threshold
    return x * keep.to(x.dtype).mul_(1 / (1 - probability))


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Like F.conv2d, around two faults of oneDNN on CPUs with AVX-512.

    With fewer than 16 input channels, the backward pass of a 1 x 1 convolution with a stride writes beyond its memory.
    In bf16, a larger convolution with a stride gives garbage, forward or backward, if its result is one pixel wide.
    """
    if _on_cpu(x) and stride != (1, 1):
        if weight.shape[2:] == (1, 1) and x.shape[1] < SAFE_CHANNELS:
            return F.conv2d(x[..., :: stride[0], :: stride[1]], weight, bias, groups=groups)
        reach = dilation[1] * (weight.shape[-1] - 1) + 1
        one_wide = x.shape[-1] + 2 * padding[1] - reach < stride[1]
        if one_wide and weight.shape[-1] > 1 and torch.is_autocast_enabled("cpu"):
            wider = F.pad(x, (0, stride[1]))  # one column more, which is cut off again
            return F.conv2d(wider, weight, bias, stride, padding, dilation, groups)[..., :1]
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


class Geometry(NamedTuple):
    """What describes a convolution besides its weights."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class _OneDnnConv(torch.autograd.Function):
    """`scaled_conv2d` as one oneDNN operation; the gradient of the weights is scaled in place."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        residual: Tensor | None,
        geometry: Geometry,
        act: str,
    ) -> Tensor:
        folded = weight * scale
        rest = (folded, shift, geometry.padding, geometry.stride, geometry.dilation, geometry.groups)
        if residual is None:
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *rest, act, [], "")
        else:
            out = torch.ops.mkldnn._convolution_pointwise.binary(x, residual, *rest, "add", None, act, [], "")
        ctx.save_for_backward(x, folded, scale, *((out,) if act == "relu" else ()))
        ctx.geometry = geometry  # type: ignore[attr-defined]  # any attribute may be set
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, folded, scale, *rectified = ctx.saved_tensors  # type: ignore[attr-defined]  # set by save_for_backward
        stride, padding, dilation, groups = ctx.geometry  # type: ignore[attr-defined]  # set in forward
        needs = ctx.needs_input_grad  # type: ignore[attr-defined]  # set by autograd
        if rectified:
            grad = torch.ops.aten.threshold_backward(grad, *rectified, 0)
        cells = grad.numel() // grad.shape[1]
        if folded.shape[2:] == (1, 1) and stride == (1, 1) and groups == 1 and cells <= SMALL_MAP:
            rows, matrix = grad.permute(0, 2, 3, 1).reshape(cells, -1), folded.flatten(1)
            grad_x = grad_weight = None
            if needs[0]:
                columns = _product(rows, matrix.t(), None)
                grad_x = columns.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
            if needs[1]:
                grad_weight = _product(rows.t(), x.permute(0, 2, 3, 1).reshape(cells, -1).t(), None).view_as(folded)
        else:
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, folded, None, stride, padding, dilation, False, (0, 0), groups, (needs[0], needs[1], False)
            )
        if grad_weight is not None:
            grad_weight.mul_(scale)
        return grad_x, grad_weight, None, None, grad if needs[4] else None, None, None


def scaled_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    geometry: Geometry,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """The convolution with weight * scale, plus shift and the residual, then ReLU.

    scale (outputs, 1, 1, 1) and shift (outputs,) are constants.
    """
    if (
        ONEDNN
        and _on_cpu(x)
        # counters of FLOPs know only PyTorch's own operators
        and not torch._C._len_torch_dispatch_stack()
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and weight.shape[1] >= SAFE_CHANNELS
    ):
        out: Tensor = _OneDnnConv.apply(x, weight, scale, shift, residual, geometry, "relu" if relu else "none")
        return out
    out = conv2d(x, weight * scale, shift, *geometry)
    if residual is not None:
        out = out.add_(residual)
    return out.relu_() if relu else out


def normed_conv2d(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool = False) -> Tensor:
    """norm(conv(x)), then ReLU; as one convolution in prediction."""
    assert not isinstance(conv.padding, str)
    if norm.training or torch.is_grad_enabled():
        out: Tensor = norm(conv(x))
        return F.relu(out, inplace=True) if relu else out
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    geometry = Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    return scaled_conv2d(
        x, conv.weight, scale[:, None, None, None], norm.bias - norm.running_mean * scale, geometry, relu=relu
    )


class Conv2d(nn.Conv2d):
    """nn.Conv2d that uses `conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        assert not isinstance(self.padding, str)
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
