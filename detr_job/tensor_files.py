"""Reading weights that somebody else wrote: tensors only, nothing in the file is ever executed."""

import argparse
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from detr_job.errors import JobError

WRAPPERS = ("model", "state_dict")  # where training checkpoints keep the weights


def read_tensors(path: Path, name: str = "") -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint, by name, on the host.

    `name` is what messages call the file, where it is not its path.

    A checkpoint with optimiser and arguments beside the weights (`{"model": …}`, as DETR's own) gives
    its weights alone. Raises JobError when the file is missing, broken, or holds code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # DETR's training checkpoints hold their command line, which is plain data
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(
            f"{name or path}: not a file of weights that can be read safely ({reason}); "
            "give a .safetensors file, or a .pth file that holds tensors only"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise JobError(f"{name or path}: holds no state dict; give a file with named tensors")
    return {str(name): value for name, value in content.items()}
