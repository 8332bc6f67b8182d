"""Find the weights within the contents of a checkpoint."""

import re
from pathlib import Path
from typing import TypeVar

WRAPPERS = ("model", "state_dict")  # keys under which training checkpoints keep the weights
AVERAGES = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema")  # … and their moving average
# DistributedDataParallel, Lightning and similar tools, and DETR's segmentation models around the detector;
# torch.compile adds `_orig_mod.` anywhere.
_WRAPPER_PREFIXES = re.compile(r"^((module|model|detr)\.)+")
Array = TypeVar("Array")


def state_dict_in(content: object) -> object:
    """The state dict in a checkpoint, or its moving average (`{"ema": {"module": …}}`); else the content itself."""
    if not isinstance(content, dict) or _has_tensors(content):
        return content
    # D-FINE, DEIM and RT-DETRv4 publish the moving average of the weights, which detects better than the weights.
    for key in AVERAGES:
        average = content.get(key)
        inner = average.get("module", average) if isinstance(average, dict) else None
        if _has_tensors(inner):
            return inner
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if isinstance(content, dict) and not _has_tensors(content):
        named = [value for value in content.values() if _has_tensors(value)]
        return named[0] if len(named) == 1 else content
    return content


def _has_tensors(content: object) -> bool:
    """Whether it is a state dict: all entries have a shape, as tensors of any library."""
    return isinstance(content, dict) and bool(content) and all(hasattr(value, "shape") for value in content.values())


def is_safetensors(path: Path, start: bytes) -> bool:
    """Whether a file that begins with `start` is a safetensors file: a length and JSON, or at least the name.

    A zip is what `torch.save` writes, whatever its name.
    """
    by_content = start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") < 100_000_000
    return by_content or (path.suffix == ".safetensors" and not start.startswith(b"PK"))


def plain_names(tensors: dict[str, Array]) -> dict[str, Array]:
    """Remove the prefixes that wrappers of a network add to the names of its tensors."""
    plain = {_WRAPPER_PREFIXES.sub("", name.replace("_orig_mod.", "")): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else dict(tensors)
