"""Find the weights within the contents of a checkpoint."""

import re
from typing import TypeVar

WRAPPERS = ("model", "state_dict")  # keys under which training checkpoints keep the weights
# DistributedDataParallel, Lightning and similar tools, and DETR's segmentation models around the detector;
# torch.compile adds `_orig_mod.` anywhere.
_WRAPPER_PREFIXES = re.compile(r"^((module|model|detr)\.)+")
Array = TypeVar("Array")


def state_dict_in(content: object) -> object:
    """The state dict in a checkpoint, or its moving average (`{"ema": {"module": …}}`); else the content itself."""
    # D-FINE, DEIM and RT-DETRv4 publish the moving average of the weights, which detects better than the weights
    if isinstance(content, dict) and isinstance(content.get("ema"), dict):
        content = content["ema"].get("module", content)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return content


def plain_names(tensors: dict[str, Array]) -> dict[str, Array]:
    """Remove the prefixes that wrappers of a network add to the names of its tensors."""
    plain = {_WRAPPER_PREFIXES.sub("", name.replace("_orig_mod.", "")): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else dict(tensors)
