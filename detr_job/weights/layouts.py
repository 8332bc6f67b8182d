"""Write the layouts of the presets in the catalogue, which are checked without torch: names and shapes of tensors.

Run `python -m detr_job.weights.layouts` after a network's tensors changed. A test holds the files to the networks.
"""

import json
from pathlib import Path

import torch

import published_weights.layouts
from detr_job.family import build_family
from published_weights.layout import CLASSES, Shape, grouped
from run_config.job.presets import load_job_config
from run_config.weights.catalogue import CATALOGUE

PROBE = 7
"""Number of classes while measuring: heads have 7 or 8 rows."""


def shapes(preset: str) -> dict[str, Shape]:
    """Name → shape of every tensor of the preset's network. The size of a dimension may be `classes` or `classes+1`."""
    with torch.device("meta"):
        family = build_family(load_job_config(preset), PROBE)
    found: dict[str, Shape] = {}
    for name, tensor in family.network.state_dict().items():
        sizes: Shape = tuple(tensor.shape)
        if name in family.class_heads:
            sizes = (CLASSES if sizes[0] == PROBE else f"{CLASSES}+1", *sizes[1:])
        found[name] = sizes
    return found


def text(preset: str) -> str:
    """Contents of a preset's file, one line per group of tensors."""
    lines = ",\n".join(json.dumps(one) for one in grouped(shapes(preset)))
    return f"[\n{lines}\n]\n"


def main() -> None:
    """Write all files."""
    (folder,) = published_weights.layouts.__path__
    for preset in {one.preset for one in CATALOGUE}:
        Path(folder, f"{preset}.json").write_text(text(preset), encoding="utf-8")


if __name__ == "__main__":
    main()
