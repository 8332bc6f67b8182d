"""The choices for the start of a training: automatic, published weights, earlier runs, random weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cvat_bridge.http.schemas import ChoiceSchema
from published_weights.stored import Card
from run_config.job.presets import presets_from_scratch
from run_config.weights.automatic import AUTO, NONE, WEIGHTS
from run_config.wording import cut, shortened

MOST_CLASSES = 6
_MOST_TEXT = 60
HELP = (
    "Weights to start from, of the same architecture. Another location is the `s3://` or `file://` URL of a `model/` "
    "folder or of a file, its key below the store, or `run:NAME` for an earlier run."
)
PUBLISHED, EARLIER = "Published weights", "Earlier runs"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The model of an earlier run, or its folder for a third-party template."""

    value: str
    run: str
    title: str
    classes: tuple[str, ...] = ()
    """Empty: unknown."""
    preset: str = ""
    """Empty: unknown."""


def model_choices(models: Iterable[TrainedModel]) -> list[ChoiceSchema]:
    """Earlier runs, in their order. The detail names the classes."""
    return [choice(one.value, one.title, _classes(one.classes), EARLIER) for one in models]


def start_choices(models: Sequence[TrainedModel], cards: Iterable[Card]) -> list[ChoiceSchema]:
    """What a training may start from, in the order of the list."""
    return [
        choice(AUTO, "Automatic", "Published weights of the model. The sentence above “Start run” says which."),
        *(_published(card) for card in cards),
        *model_choices(models),
        choice(
            NONE,
            "Random weights",
            f"Without a trained model. From few images, only {' and '.join(presets_from_scratch())} learns this way.",
        ),
    ]


def _published(card: Card) -> ChoiceSchema:
    licences = " and ".join(dict.fromkeys(cut(one, _MOST_TEXT) for one in (card.weights_licence, card.code_licence)))
    known = tuple(name for name in card.classes if name is not None)
    classes = _classes(known) or f"Classes: {len(card.classes)}, whose names are not known."
    ap = f", AP {card.coco_ap / 100:.3f} there" if card.coco_ap else ""
    trained_on = f"Trained on {cut(card.trained_on, _MOST_TEXT)}{ap}"
    detail = f"For the model {cut(card.preset, _MOST_TEXT)}. {trained_on}. {classes}"
    return choice(f"{WEIGHTS}{card.name}", f"{card.name}, {licences}", f"{detail} Licence: {licences}.", PUBLISHED)


def _classes(names: Sequence[str]) -> str:
    return f"Classes: {shortened([cut(name, _MOST_TEXT) for name in names], MOST_CLASSES)}." if names else ""


def choice(value: str, title: str, detail: str = "", group: str = "", *, available: bool | None = None) -> ChoiceSchema:
    """An entry of a list."""
    return {"value": value, "title": title, "detail": detail, "group": group, "available": available}
