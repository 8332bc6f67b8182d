"""What `auto` means for `model` and `cvat-finetune-checkpoint`: it depends on the machine and the stored weights."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from run_config.environment import SETTINGS
from run_config.errors import ConfigError
from run_config.weights.catalogue import CATALOGUE

AUTO, NONE = "auto", "none"
"""Values of `cvat-finetune-checkpoint`: published weights of the model, or random weights. `auto` is also a `model`."""

WEIGHTS, RUN = "weights:", "run:"
"""What begins the value of `cvat-finetune-checkpoint` when it names published weights, or an earlier run."""

PROGRAM = "DETR_WORKFLOWS_PROGRAM"
"""Variable of the environment: what a person types to run `detr-workflows`; without it, its name."""

FOR_GPU = ("rf-detr-small", "d-fine-nano")
FOR_CPU = ("d-fine-nano",)
"""The presets that `auto` chooses from, the best first. Each needs the published weights of its name."""
FROM_SCRATCH = "tiny"
"""The preset that learns from random weights."""


@dataclass(frozen=True, slots=True)
class AutomaticModel:
    """A preset, and why it was chosen: one line for people."""

    preset: str
    reason: str


def automatic_model(*, gpu: bool, present: Collection[str], store: str, laptop: bool = False) -> AutomaticModel:
    """The preset that `model=auto` means.

    gpu: whether training gets a GPU. present: the names of the published weights in the store at the URL `store`.
    laptop: the run has no installation; it may then train `tiny` on a GPU.

    Raises ConfigError, with the command that brings weights, if a GPU of a cluster would have none to start from.
    """
    machine, presets = ("a GPU", FOR_GPU) if gpu else ("no GPU", FOR_CPU)
    best = presets[0]
    for preset in presets:
        if preset in present:
            reason = f"{machine}, and the store has the weights of {preset}"
            if preset != best:
                reason += f"; {best} is better: `{pull_command(best, store)}` brings its weights"
            return AutomaticModel(preset, reason)
    if gpu and not laptop:
        raise ConfigError(
            f"model: auto needs published weights on a GPU, and the store has none of {' or '.join(presets)}; run "
            f"`{pull_command(best, store)}`, or choose a model"
        )
    return AutomaticModel(
        FROM_SCRATCH,
        f"{machine}, and the store has no weights of {' or '.join(presets)}; "
        f"`{pull_command(best, store)}` brings those of a better model",
    )


def automatic_weights(preset: str, present: Collection[str], backbone: str = "") -> str:
    """The name of the weights that a preset starts from by itself; empty if the store has none of them.

    backbone: the network of the preset whose ImageNet weights are the second choice.
    """
    names = (preset, *(one.name for one in CATALOGUE if one.preset == preset), backbone)
    return next((name for name in names if name and name in present), "")


def pull_command(name: str, store: str) -> str:
    """The command that brings published weights into the store at this URL; an installation has a template for it."""
    if os.environ.get(SETTINGS):
        return f"detr-workflows submit detr-weights -p weights={name}"
    return f"{os.environ.get(PROGRAM, 'detr-workflows')} weights pull {name} --store {store}"


def is_bare(text: str) -> bool:
    """Whether the text is one word: not a path, a URL, `auto` or `none`, nor `weights:` or `run:` with a name."""
    return (
        text not in ("", AUTO, NONE)
        and "/" not in text
        and not text.startswith((".", "~", WEIGHTS, RUN))
        and "://" not in text
    )
