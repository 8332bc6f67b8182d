"""Read third-party weights: tensors only, and no code in the file is ever executed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from detr_job.errors import JobError
from detr_job.weights.pickled_files import load_pickled
from published_weights.contents import is_safetensors, plain_names, state_dict_in
from published_weights.pickle_scan import Unreadable, refuse_other_files
from run_config.wording import shortened


def read_tensors(path: Path, name: str = "") -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint, by name, on the host.

    name: the file's name in messages, if it is not its path.

    From a checkpoint that also holds optimizer and arguments (`{"model": …}`, as DETR's own), only the
    weights are returned, or their moving average (`{"ema": {"module": …}}`). Prefixes of wrappers such as
    `module.` are removed from the names. Raises JobError when the file is missing, broken, or holds code.
    """
    name = name or str(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
            if is_safetensors(path, start):
                return plain_names(tensors_in(path.read_bytes()))
            file.seek(0)
            content = load_pickled(file)
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise JobError(
            f"{name}: not a file of weights that can be read safely ({reason}); "
            "give a .safetensors file, or a .pth file that holds tensors only"
        ) from error
    content = state_dict_in(content)
    if isinstance(content, dict) and not content:
        raise JobError(f"{name}: holds no tensors; give a file of weights")
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        entries = (
            f" (its entries are {shortened([str(key)[:60] for key in content])})" if isinstance(content, dict) else ""
        )
        raise JobError(f"{name}: holds no state dict{entries}; give a file with named tensors")
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


def refuse_not_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise JobError when weights hold NaN or infinities: every prediction of such a model is lost."""
    bad = [name for name, one in weights.items() if one.is_floating_point() and not torch.isfinite(one).all()]
    if bad:
        raise JobError(
            f"{where}: values that are not finite in {shortened(bad)}: the file is damaged, or its training had "
            "failed; give other weights"
        )


def _is_plain(tensor: Tensor) -> bool:
    """Whether the values are in host memory: not on another device, not sparse, not an expanded view."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
