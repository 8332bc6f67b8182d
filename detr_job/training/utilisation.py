"""How much of a GPU's arithmetic a run uses: the model's FLOPs per second over the device's peak.

Only matrix products and convolutions are counted, with two FLOPs per multiply-add. The backward pass counts
as two forward passes, or as nothing for frozen layers.
"""

import math
from collections.abc import Sequence

import torch

from detr_job.family import build_family
from detr_job.models.layers import ONEDNN
from run_config.job.config import JobConfig

PEAK_TFLOPS = {
    "B200": (2250, 1125),
    "H200": (989, 495),
    "H100 PCIe": (756, 378),
    "H100 NVL": (835, 418),
    "H100": (989, 495),
    "A100": (312, 156),
    "A40": (150, 75),
    "A30": (165, 82),
    "A10G": (70, 35),
    "A10": (125, 62.5),
    "L40S": (362, 183),
    "L40": (181, 90.5),
    "L4": (121, 60),
}
"""Part of a device's name → dense TFLOP/s in bf16 and TF32, from NVIDIA's data sheets (A10G: from AWS).

The first match counts, so a name that is the beginning of another one comes after it.
"""


def peak_flops(device_name: str, *, bf16: bool) -> float | None:
    """Peak FLOP/s of the device for matrix products; None when unknown."""
    for name, (in_bf16, in_tf32) in PEAK_TFLOPS.items():
        if f"{name} " in f"{device_name.replace('-', ' ')} ":
            return 1e12 * (in_bf16 if bf16 else in_tf32)
    return None


def training_flops(config: JobConfig, num_classes: int, shape: tuple[int, ...]) -> float | None:
    """FLOPs of a forward and a backward pass over images of shape (B, 3, H, W). Runs no real computation.

    None: the network's work depends on the images.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    ours = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if ONEDNN else {}
    with FakeTensorMode():
        network = build_family(config, num_classes).network.train()
        padding = torch.zeros((shape[0], *shape[2:]), dtype=torch.bool)
        with FlopCounterMode(display=False, custom_mapping=ours) as counter:
            try:
                network(torch.zeros(shape), padding)
            except DataDependentOutputException:
                return None
    counted = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    frozen = 0
    for name, module in network.named_modules(prefix=type(network).__name__):
        innermost = name in counted and not any(other.startswith(f"{name}.") for other in counted)
        if innermost and not any(parameter.requires_grad for parameter in module.parameters()):
            frozen += counted[name]
    return float(3 * counter.get_total_flops() - 2 * frozen)


def _linear_flops(images: Sequence[int], weight: Sequence[int], *_rest: object, **_more: object) -> int:
    """FLOPs of oneDNN's product, which PyTorch's counter does not know. Shapes: (…, inputs) and (outputs, inputs)."""
    return 2 * math.prod(images) * weight[0]


class Utilisation:
    """The fraction of a device's peak that training uses; None when the peak is unknown."""

    def __init__(self, config: JobConfig, num_classes: int, device: torch.device, *, bf16: bool) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak_flops(name, bf16=bf16)
        self._config, self._num_classes = config, num_classes
        self._flops_per_pixel = 0.0

    def of(self, pixels_per_s: float, shape: tuple[int, ...]) -> float | None:
        """0…1. shape: of one batch; its FLOPs per pixel are used for all batches."""
        if self._peak is None:
            return None
        if not self._flops_per_pixel:
            flops = training_flops(self._config, self._num_classes, shape)
            if flops is None:
                self._peak = None
                return None
            self._flops_per_pixel = flops / (shape[0] * shape[2] * shape[3])
        return pixels_per_s * self._flops_per_pixel / self._peak
