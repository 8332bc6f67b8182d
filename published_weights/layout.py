"""Check that tensors are those of a preset: every name, every shape, nothing else."""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np

from published_weights.arrays import Array
from published_weights.errors import WeightsError
from published_weights.names import d_fine, deformable_detr, rf_detr
from run_config.wording import shortened

CLASSES = "classes"
"""The size of a dimension with one row per class; `classes+1`: with another one for "no object"."""
COUNTERS = ("num_batches_tracked", "total_params", "total_ops")
_OWN_NAMES: Mapping[str, Callable[..., dict[str, Array]]] = {
    "rf-detr-": rf_detr.own_names,
    "d-fine-": d_fine.own_names,
    "deformable-detr-": deformable_detr.own_names,
    "detr-": lambda tensors, _: dict(tensors),
}
"""The beginning of a preset's name → what converts the published names; DETR has those of its authors."""

Shape = tuple[int | str, ...]


def grouped(shapes: Mapping[str, Shape]) -> list[dict[str, Any]]:
    """Shapes in the form of the files: names that differ only in their last number are one entry."""
    groups: dict[tuple[str, Shape], list[int]] = {}
    for name, shape in shapes.items():
        pattern, numbers = name, list[int]()
        for found in re.finditer(r"(?<=\.)\d+(?=\.)", name):
            pattern, numbers = f"{name[: found.start()]}#{name[found.end() :]}", [int(found[0])]
        groups.setdefault((pattern, shape), []).extend(numbers)
    return [{"name": name, "numbers": numbers, "shape": shape} for (name, shape), numbers in groups.items()]


def layout(preset: str) -> dict[str, Shape]:
    """Name → shape of every tensor of a preset, under the network's own names."""
    found: dict[str, Shape] = {}
    for one in json.loads(files("published_weights.layouts").joinpath(f"{preset}.json").read_text("utf-8")):
        for name in [one["name"].replace("#", str(number)) for number in one["numbers"]] or [one["name"]]:
            found[name] = tuple(one["shape"])
    return found


def fitted(tensors: Mapping[str, Array], preset: str, classes: int, where: str) -> dict[str, Array]:
    """The tensors under the network's own names, without counters. `where` names the file in messages.

    Raises WeightsError with the first differences when a name or a shape is not that of the preset.
    """
    if any(name.startswith(d_fine.TEACHER_LINK) for name in tensors):
        raise WeightsError(
            f"{where}: these are weights of RT-DETRv4, which are not in the catalogue; give {preset}'s file"
        )
    own_names = next(convert for family, convert in _OWN_NAMES.items() if preset.startswith(family))
    own = own_names(tensors, partial(np.concatenate, axis=0))
    own = {name: array for name, array in own.items() if not name.endswith(COUNTERS)}
    rows = {CLASSES: classes, f"{CLASSES}+1": classes + 1}
    wanted = {
        name: tuple(rows[size] if isinstance(size, str) else size for size in shape)
        for name, shape in layout(preset).items()
        if not name.endswith(COUNTERS)
    }
    wrong = [
        f"{name} is {own[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in own and own[name].shape != shape
    ]
    wrong += [f"{name} is missing" for name in wanted if name not in own]
    wrong += [f"{name[:100]!r} is unknown" for name in own if name not in wanted]
    if wrong:
        raise WeightsError(
            f"{where}: not the weights of {preset}: {'; '.join(wrong[:3])}"
            + (f"; and {len(wrong) - 3} more differences" if len(wrong) > 3 else "")
            + ". Give the file that its authors publish, or name the weights that it holds"
        )
    if whole := [name for name, array in own.items() if array.dtype.kind != "f"]:
        raise WeightsError(
            f"{where}: whole numbers where {preset} has fractions, in {shortened(whole)}: the weights are quantised; "
            "give the file that their authors publish"
        )
    if bad := [name for name, array in own.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{where}: damaged: values that are not finite in {shortened(bad)}")
    return own
