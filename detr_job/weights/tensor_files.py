"""Read third-party weights: tensors only, and no code in the file is ever executed."""

from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from detr_job.errors import JobError
from detr_job.weights.pickled_files import load_pickled
from published_weights.contents import plain_names, state_dict_in
from published_weights.pickle_scan import Unreadable, refuse_other_files


def read_tensors(path: Path, name: str = "") -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint, by name, on the host.

    name: the file's name in messages, if it is not its path.

    From a checkpoint that also holds optimizer and arguments (`{"model": …}`, as DETR's own), only the
    weights are returned, or their moving average (`{"ema": {"module": …}}`). Prefixes of wrappers such as
    `module.` are removed from the names. Raises JobError when the file is missing, broken, or holds code.
    """
    name = name or str(path)
    try:
        if path.suffix == ".safetensors":
            return plain_names(tensors_in(path.read_bytes()))
        with path.open("rb") as file:
            content = load_pickled(file)
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise JobError(
            f"{name}: not a file of weights that can be read safely ({reason}); "
            "give a .safetensors file, or a .pth file that holds tensors only"
        ) from error
    content = state_dict_in(content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise JobError(f"{name}: holds no state dict; give a file with named tensors")
    for key, tensor in content.items():
        if not isinstance(key, str):
            raise JobError(f"{name}: holds no state dict: the name {str(key)[:60]!r} of a tensor is not text")
        if not _is_plain(tensor):
            raise JobError(
                f"{name}: the tensor {key[:60]!r} is sparse, quantised, on a device, or smaller than its shape; save "
                "the weights again as plain tensors on the CPU"
            )
    return plain_names(content)


def tensors_in(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `Unreadable` when it is damaged or another kind of file."""
    refuse_other_files(data[:512])
    try:
        return load_safetensors(data)
    except Exception as error:
        # safetensors raises its own error, PyTorch others for unknown types and shapes.
        raise Unreadable("it is damaged, or not a safetensors file") from error


def _is_plain(tensor: Tensor) -> bool:
    """Whether the values are in host memory: not on another device, not sparse, not an expanded view."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
