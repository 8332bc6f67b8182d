"""The device of a job, its precision, and its name in reports."""

import os
import platform
from contextlib import AbstractContextManager

import torch

from detr_job.errors import JobError
from run_config.job.config import Training
from run_config.wording import plural


def choose_device(name: str) -> torch.device:
    """The device for `cuda`, `cpu` or `auto`. `cuda` without a usable GPU raises JobError instead of running slowly."""
    if name not in ("auto", "cuda", "cpu"):
        raise JobError(f"device: {name!r} is not one of auto, cuda, cpu")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise JobError(
            "device: cuda was requested, but PyTorch finds no GPU. Set device to auto or cpu; on a cluster, choose a "
            "node pool with GPUs, and check that the container requests one"
        )
    device = torch.device("cuda", 0)
    major, minor = torch.cuda.get_device_capability(device)
    built_for = torch.cuda.get_arch_list()
    if built_for and not any(_runs(arch, major, minor) for arch in built_for):
        raise JobError(
            f"device: {torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, which this build "
            f"of PyTorch {torch.__version__} does not support ({', '.join(built_for)}): choose another node pool"
        )
    return device


def _runs(arch: str, major: int, minor: int) -> bool:
    """Machine code runs on the same major version, from its minor version on; PTX on that GPU and any newer one."""
    kind, _, digits = arch.partition("_")
    number = "".join(character for character in digits if character.isdigit())
    if not number:  # not an NVIDIA name, for example `gfx90a`
        return True
    built = divmod(int(number), 10)
    if kind == "compute":
        return (major, minor) >= built
    return major == built[0] and minor >= built[1]


def use_bf16(settings: Training, device: torch.device, *, insist: bool = True) -> bool:
    """Whether convolutions and matrix products run in bf16.

    Raises JobError when the settings require bf16 and the device has none. With `insist=False`, as for
    prediction, fp32 is used instead. `auto` on a CPU is bf16 with AMX alone; training measures other processors
    (`detr_job.training.precision`).
    """
    if settings.precision == "fp32":
        return False
    if settings.precision == "auto" and device.type == "cpu":
        return torch.cpu._is_amx_tile_supported()
    has = has_bf16(device)
    if settings.precision == "bf16" and insist and not has:
        raise JobError(f"training.precision: {hardware_name(device)} has no bf16; set it to auto or fp32")
    return has


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16, on a processor perhaps more slowly than in fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # no public API yet
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """The context in which the network runs. Losses and matching disable it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def prepare(device: torch.device) -> None:
    """Apply process-wide settings. Call this before the first tensor is created."""
    if device.type == "cpu":
        # Some scatter operations on the CPU add in the order in which threads arrive, but interrupted and
        # uninterrupted runs must agree bit for bit. use_deterministic_algorithms sets the same flag, but also imports
        # the compiler, which takes more than a second.
        torch.set_deterministic_debug_mode("error")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by a module property
    else:
        torch.backends.cudnn.benchmark = False  # shapes change from batch to batch
        torch.set_float32_matmul_precision("high")


def hardware_name(device: torch.device) -> str:
    """`NVIDIA H100 80GB HBM3`, or the processor and its number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {plural(torch.get_num_threads(), 'thread')}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - a fixed system file
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib(device: torch.device) -> float:
    """Peak memory use in GiB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        return 0.0
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30
