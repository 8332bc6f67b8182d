"""What `auto` means for a run: its model, and the weights that it starts from.

A run that has begun keeps both, whatever the store has by now.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from object_store import NoSuchKey, ObjectStore
from published_weights.start import missing
from published_weights.stored import CARD, FOLDER, WEIGHTS, names
from run_config.errors import ConfigError
from run_config.families.model import ModelConfig
from run_config.job.preset_files import preset_names
from run_config.job.presets import load_job_config
from run_config.json_text import load_json
from run_config.weights.automatic import (
    FROM_SCRATCH,
    NONE,
    AutomaticModel,
    automatic_model,
    automatic_weights,
    pull_command,
)
from run_config.weights.catalogue import CATALOGUE

RUN = "run.json"
DESCRIPTIONS = {
    "config.json": "preset",
    CARD: "preset",
    "model/config.json": "preset",
    "best/config.json": "preset",
    RUN: "model",
}
"""Files of a run, a model folder and published weights, and the key that holds the name of the preset."""
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Start:
    """A location of weights, or the URL of ImageNet weights for the backbone. Neither: random weights."""

    checkpoint: str = ""
    backbone: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """How a run in the store began."""

    preset: str
    """The name of the preset, or of the configuration file without its suffix."""
    start: Start


def begun(run: ObjectStore, store: ObjectStore) -> Begun | None:
    """How the run in the folder `run` began, from its run.json. None: it has none, or a damaged one."""
    told = _object(run, RUN)
    config = told.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict):
        return None
    backbone = str(model.get("backbone_weights") or "")
    ours = backbone.startswith(f"{store.url}/{FOLDER}/")
    return Begun(str(told.get("model") or ""), Start(str(told.get("finetune") or ""), backbone if ours else ""))


def model_of(
    start: str,
    url: str,
    before: Begun | None,
    store: ObjectStore,
    opened: Callable[[str], ObjectStore],
    *,
    gpu: bool,
    laptop: bool,
) -> AutomaticModel:
    """The preset that `model=auto` means.

    start: `cvat-finetune-checkpoint`. url: the location that it names; empty for `auto` and `none`. before: how the run
    began, if it has. opened: opens the store at a URL. gpu, laptop: see `automatic_model`.

    Raises ConfigError when weights are given and their preset is unknown, or a GPU of a cluster has none.
    """
    if before is not None and before.preset in preset_names():
        return AutomaticModel(before.preset, "this run began with it")
    if start == NONE:
        return AutomaticModel(FROM_SCRATCH, "it learns from random weights")
    if url:
        return AutomaticModel(_preset_at(url, start, opened), f"{start} is of this model")
    return automatic_model(gpu=gpu, present=set(names(store)), store=store.url, laptop=laptop)


def automatic_start(model: ModelConfig, preset: str, before: Begun | None, store: ObjectStore) -> Start:
    """What a run starts from if `cvat-finetune-checkpoint` is `auto`.

    preset: the name of the preset, or of the one that the configuration file is based on; may be empty. Its weights are
    used only if they fit `model`.

    Raises ConfigError, with the command that brings the weights, if the model needs some and the store has none.
    """
    if before is not None:
        return before.start
    if not model.needs_weights:
        return Start()
    if preset and not model.fits(load_job_config(preset).model):
        preset = ""
    name = automatic_weights(preset, set(names(store)), model.imagenet_backbone)
    if not name:
        raise ConfigError(no_weights(model, preset, store.url))
    if name == model.imagenet_backbone:
        return Start(backbone=f"{store.url}/{FOLDER}/{name}/{WEIGHTS}")
    return Start(checkpoint=f"{FOLDER}/{name}")


def no_weights(model: ModelConfig, preset: str, store: str) -> str:
    """The sentence that the store has no weights of a preset, with the command that brings them. store: its URL."""
    wanted = [one.name for one in CATALOGUE if one.preset == preset]
    if not wanted:
        return (
            f"auto knows no published weights that fit this model: give others, or {NONE} to start from random weights"
        )
    others = f" (or {' or '.join(wanted[1:])})" if wanted[1:] else ""
    return (
        f"the store has no weights of {wanted[0]}{others}, and {model.title} needs some: run "
        f"`{pull_command(wanted[0], store)}`, or choose {NONE} to start from random weights, which need more than "
        f"{model.from_scratch_images:,} images"
    )


def _preset_at(url: str, start: str, opened: Callable[[str], ObjectStore]) -> str:
    """The preset of the model at a URL."""
    for preset, found in _descriptions(url, opened):
        if preset in preset_names():
            _require_settings_of(preset, found, start)
            return preset
        raise ConfigError(
            f"model: {start} was trained with the configuration file {preset}.yaml: set model to that file"
        )
    raise ConfigError(missing(url) or f"model: auto cannot tell the model of {start}: choose the model that it is of")


def require_family(model: ModelConfig, url: str, start: str, opened: Callable[[str], ObjectStore]) -> None:
    """Raise ConfigError if the weights at a URL say that they are of another family than the model.

    The job compares the rest when it has read the tensors.
    """
    preset = next((preset for preset, _ in _descriptions(url, opened)), "")
    if preset in preset_names() and load_job_config(preset).model.family != model.family:
        raise ConfigError(
            f"{start} is a model of {preset}, and another architecture than {model.title}: choose the model {preset}, "
            "or weights of this one"
        )


def _descriptions(url: str, opened: Callable[[str], ObjectStore]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a run, a model folder, a file in one, or published weights say of themselves, and the name of the preset."""
    folder, _, name = url.rpartition("/")
    place = opened(folder)
    if not place.exists(name):
        place = opened(url)
    for key, entry in DESCRIPTIONS.items():
        found = _object(place, key)
        if preset := str(found.get(entry) or ""):
            yield preset, found


def _require_settings_of(preset: str, found: Mapping[str, Any], start: str) -> None:
    """Raise ConfigError if the model was trained with other settings than those of the preset."""
    job = found.get("job") or found.get("config")  # of a model folder, or of a run
    trained = job.get("model") if isinstance(job, Mapping) else None
    if not isinstance(trained, Mapping):
        return
    model = load_job_config(preset).model
    other = sorted(
        f"model.{key}"
        for key, value in model.model_dump(mode="json", exclude=set(model.beside_weights)).items()
        if key in trained and trained[key] != value
    )
    if other:
        raise ConfigError(
            f"model: {start} is of {preset} with other settings ({', '.join(other)}): set model to {preset}, and "
            "overrides to these settings"
        )


def _object(store: ObjectStore, key: str) -> dict[str, Any]:
    """A JSON object; an empty one if there is none, or something else."""
    try:
        found = load_json(store.get_bytes(key, end=MAX_BYTES))
    except (NoSuchKey, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
