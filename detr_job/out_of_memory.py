"""Out-of-memory errors of a device or this machine: how they are recognised and reported.

How they are handled is decided where the memory is used: micro_batches.py, split_predictions.py.
"""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from detr_job.errors import OutOfMemory
from detr_job.hardware import hardware_name, memory_gib

# PyTorch has its own exception type only for its GPU allocator.
_SENTENCES = (
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory: you tried to allocate",  # the same on other systems
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
# oneDNN reports nothing else when it has found an implementation but has no memory for it.
_WHOLE_SENTENCES = ("could not create a primitive", "could not create a memory object")


class DoesNotFit(Exception):
    """Something did not fit into memory, and its memory was released. `in_use` says how much was in use."""

    def __init__(self, in_use: str) -> None:
        super().__init__(in_use)
        self.in_use = in_use


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this exception of PyTorch, NumPy or Python means out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return said in _WHOLE_SENTENCES or any(sentence in said for sentence in _SENTENCES)


@contextmanager
def released(device: torch.device) -> Iterator[None]:
    """Turn out-of-memory errors in this block into DoesNotFit, after releasing what the block computed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        in_use = memory_in_use(device)
        traceback.clear_frames(error.__traceback__)  # the frames' variables hold the activations
    else:
        return
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise DoesNotFit(in_use) from None


@contextmanager
def explained(device: torch.device, lower: str) -> Iterator[None]:
    """Turn out-of-memory errors in this block into OutOfMemory. `lower`: the settings to lower, for the message."""
    try:
        with released(device):
            yield
    except DoesNotFit as full:
        raise OutOfMemory(f"out of memory: {full.in_use}; lower {lower}") from None


def memory_in_use(device: torch.device) -> str:
    """`NVIDIA T4: 14.2 GiB in use by this process, 0.1 of 14.6 GiB free`."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        return (
            f"{hardware_name(device)}: {own / 2**30:.1f} GiB in use by this process, "
            f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        )
    return f"this machine: {memory_gib(device):.1f} GiB in use by this process at most"
