"""What a run will train, said in the form before it starts.

The rules are those of the step `check`. The sentences for all choices are made here, so that the page only picks one.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from cvat_bridge.cluster import PoolChoice
from cvat_bridge.http.schemas import NoteSchema, PlanSchema, StartSchema, SubjectSchema
from cvat_bridge.runs.run_files import StoredWeights
from cvat_bridge.templates.catalog import OfferedTemplate
from cvat_bridge.templates.start_choices import TrainedModel
from published_weights.automatic_start import no_weights
from run_config.errors import ConfigError
from run_config.families.model import ModelConfig
from run_config.job.preset_files import preset_names
from run_config.job.presets import load_job_config, presets_from_scratch
from run_config.weights.automatic import FROM_SCRATCH, NONE, WEIGHTS, automatic_model, automatic_weights
from run_config.wording import cut, plural

OPERATOR = "The operator of this installation can run the command; it takes a few minutes."


def plan(
    offered: OfferedTemplate,
    pools: Sequence[PoolChoice],
    subject: SubjectSchema,
    models: Sequence[TrainedModel],
    weights: StoredWeights | None,
    store: str,
) -> PlanSchema | None:
    """The sentences for each choice. None: the template trains nothing of ours, or the weights are unknown.

    models: of earlier runs. store: URL of the store.
    """
    model = next((field.parameter for field in offered.fields if field.name == "model"), None)
    if not offered.template.ours or model is None or weights is None:
        return None
    said = _Sentences(_amount(subject), weights, store)
    return {
        "by_pool": {one.value: said.automatic(f"{one.title} has", gpu=one.gpus > 0) for one in pools}
        or {"": said.automatic("the machine has", gpu=True)},
        "without_gpu": said.automatic("the run uses", gpu=False),
        "by_model": {name: said.chosen(name) for name in model.choices if name in preset_names()},
        "by_start": {
            NONE: said.random(),
            **{
                f"{WEIGHTS}{card.name}": said.start(card.preset, f"the published weights {card.name}")
                for card in weights.cards
            },
            **{one.value: said.start(one.preset, f"the model of {one.run}") for one in models},
        },
    }


@dataclass(frozen=True, slots=True)
class _Sentences:
    data: str
    weights: StoredWeights
    store: str

    def automatic(self, machine: str, *, gpu: bool) -> NoteSchema:
        """Model and start are `auto`. machine: a subject and verb, such as `One T4 has`."""
        try:
            model = automatic_model(gpu=gpu, present=self.weights.names, store=self.store)
        except ConfigError as error:
            return _warn(f"{error}.".removeprefix("model: "), OPERATOR)
        start = "published" if model.preset in self.weights.names else "random"
        return _tell(
            f"Will train {model.preset} from {start} weights on {self.data}, because {machine} {model.reason}."
        )

    def chosen(self, preset: str) -> NoteSchema:
        """A preset that starts from `auto`."""
        model = _model_of(preset)
        if not model.needs_weights:
            return _tell(f"Will train {preset} from random weights on {self.data}.")
        name = automatic_weights(preset, self.weights.names, model.imagenet_backbone)
        if not name:
            reason = no_weights(model, preset, self.store)
            return _warn(f"{preset}: {reason}.", OPERATOR if "`" in reason else "Choose another start or model.")
        kind = (
            "ImageNet weights of its backbone" if name == model.imagenet_backbone else f"the published weights {name}"
        )
        return _tell(f"Will train {preset} from {kind} on {self.data}.")

    def random(self) -> StartSchema:
        """The start `none`."""
        presets = " and ".join(presets_from_scratch())
        return {
            "model": FROM_SCRATCH,
            "note": _tell(f"Will train {FROM_SCRATCH} from random weights on {self.data}."),
            "other": _warn(
                f"Will train from random weights on {self.data}.", f"Only {presets} learns from few images this way."
            ),
        }

    def start(self, preset: str, what: str) -> StartSchema:
        """Weights of a preset. Empty: unknown."""
        preset = cut(preset, 60)
        if preset and preset not in preset_names():
            told = f"{what[0].upper()}{what[1:]} was trained with the configuration file {preset}.yaml."
            return {
                "model": "",
                "note": _warn(told, "Choose that file as the model, or the run is refused."),
                "other": _tell(f"Will train from {what} on {self.data}."),
            }
        known = f"{preset} from {what}" if preset else f"from {what}"
        other = f"Will train from {what} on {self.data}."
        return {
            "model": preset,
            "note": _tell(f"Will train {known} on {self.data}."),
            "other": _warn(other, f"It is of the model {preset}: choose auto or {preset}, or the run may be refused.")
            if preset
            else _tell(other),
        }


@functools.cache
def _model_of(preset: str) -> ModelConfig:
    return load_job_config(preset).model


def _amount(subject: SubjectSchema) -> str:
    """`364 images with 4,888 boxes`."""
    images = plural(subject["images"], "image")
    return images if subject["boxes"] is None else f"{images} with {plural(subject['boxes'], 'box', 'boxes')}"


def _tell(text: str) -> NoteSchema:
    return {"level": "info", "text": text, "advice": ""}


def _warn(text: str, advice: str) -> NoteSchema:
    return {"level": "warning", "text": text, "advice": advice}
