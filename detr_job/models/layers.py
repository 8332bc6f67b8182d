"""Linear layers and dropout: PyTorch's own on a GPU, faster replacements on a CPU.

In fp32, PyTorch's matrix product is MKL's, which on non-Intel processors runs at less than half the speed of
oneDNN's; and drawing the random numbers of a dropout costs more than the layer before it. Parameters and
their names are those of `nn.Linear`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# the operator through which torch.compile uses oneDNN; without it, PyTorch's own code runs
ONEDNN: bool = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
    if not training or probability in (0, 1) or not _on_cpu(x):
        return F.dropout(x, probability, training)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    threshold = round(probability * 65536) - 32768
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= threshold
    return x * keep.to(x.dtype).mul_(1 / (1 - probability))
