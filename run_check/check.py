"""`data-prep check`: find in seconds what would otherwise fail after hours.

It checks the parameters, the configuration, the sources, the models, the limits of the installation, and whether the
store can be written. Of the data only names are read: `prepare` checks the contents. The parameters of a template
decide which checks apply.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping

from data_prep.errors import DataPrepError
from object_store import StoreError, StoreUnavailable
from prepared_set.errors import PreparedSetError
from published_weights.start import start_from
from run_check import places as check_places
from run_check.errors import CheckError
from run_check.installation import machine, naming_the_secret, require_keys
from run_config.cvat_formats import AUTO
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.job.places import PLACES, places
from run_config.job.presets import load_job_config
from run_config.parameters import TEMPLATES, Parameter, Type, Value, lines, overrides_of, parse_valid

SOURCES = ("cvat-annotation-path", "cvat-test-path")
CHECKPOINT = "cvat-finetune-checkpoint"
MODEL = "trained-model"
OUTPUT = "cvat-output-path"


def check(
    texts: Mapping[str, str],
    run: str,
    workflow_uid: str = "",
    *,
    template: str = "detr-train",
    installation: Installation | None = None,
) -> list[str]:
    """Check the parameters of the run `run`. Return one sentence for each finding.

    Raises CheckError: one sentence for each mistake, because a wrong parameter hides no mistake in the others. Raises
    StoreUnavailable: when a store cannot be reached and nothing else is wrong.
    """
    values, wrong = parse_valid(texts, _parameters(template))
    mistakes = _Mistakes(wrong)
    findings: list[str] = []
    with mistakes.collected():
        if "model" in values:
            values |= _places_of_the_job(values)
            findings.append(f"model: {values['model']}")
    start = str(values.get(CHECKPOINT) or "")
    if installation is not None:
        values = _allowed(values, installation, mistakes)
        if {"sys-node-pool", "gpu-count", "device"} <= values.keys():
            with mistakes.collected():
                findings += machine(values, installation)
        with mistakes.needed():
            require_keys(installation)
    if "store" not in values:
        mistakes.raise_any()
    store = check_places.opened(str(values["store"]))
    if OUTPUT in values:
        folder = f"{values[OUTPUT]}/{run}"
        with mistakes.needed(OUTPUT), naming_the_secret(installation):
            check_places.try_to_write(store, folder)
        findings.append(f"output: {store.url}/{folder}")
        with mistakes.collected(OUTPUT):
            check_places.require_same_workflow(store, folder, workflow_uid)
    if start and {CHECKPOINT, OUTPUT} <= values.keys():
        place = {CHECKPOINT: values.pop(CHECKPOINT)}
        with mistakes.collected(CHECKPOINT):
            named = start_from(start, store, str(values[OUTPUT]), run)
            if named != start:
                place = {CHECKPOINT: named}
                place = place if installation is None else _allowed(place, installation, mistakes)
            values |= place
    # Weights of the backbone are not read if all weights come from a checkpoint.
    read = {name: look for name, look in _LOOKS.items() if name not in PLACES or not values.get(CHECKPOINT)}
    chosen_format = str(values.get("annotation-format", AUTO))
    for name in SOURCES:
        for line in lines(values.get(name)):
            with mistakes.collected(name):
                findings.append(f"{name}: {check_places.source(line, store.url, chosen_format)}")
    for name, look in read.items():
        for line in lines(values.get(name)):
            with mistakes.collected(name):
                findings.append(f"{name}: {look(line, store.url)}")
    if {"prepared-set", "split"} <= values.keys():
        with mistakes.collected("prepared-set"):
            found = check_places.prepared_set(store, str(values["prepared-set"]), str(values["split"]))
            findings.append(f"prepared-set: {found}")
    mistakes.raise_any()
    return findings


_LOOKS: Mapping[str, Callable[[str, str], str]] = {
    CHECKPOINT: check_places.checkpoint,
    MODEL: check_places.model_folder,
    **dict.fromkeys(PLACES, check_places.backbone),
}
"""Parameter or key → the function that checks one of its lines, given the line and the URL of the store."""


class _Mistakes:
    """Collects the error messages, so that a person can fix all of them at once."""

    def __init__(self, sentences: list[str]) -> None:
        self._sentences = sentences
        self._unavailable: StoreUnavailable | None = None

    @contextlib.contextmanager
    def collected(self, parameter: str = "") -> Iterator[None]:
        """Collect the errors raised in the block, prefixed with the parameter's name."""
        try:
            yield
        except StoreUnavailable as error:
            self._unavailable = self._unavailable or error
        except (ConfigError, DataPrepError, PreparedSetError, StoreError) as error:
            sentences = (f"{parameter}: {error}" if parameter else str(error)).splitlines()
            self._sentences += [one for one in sentences if one not in self._sentences]

    @contextlib.contextmanager
    def needed(self, parameter: str = "") -> Iterator[None]:
        """As `collected`, for what everything later needs: raise all errors at once instead of repeating this one."""
        before = (len(self._sentences), self._unavailable)
        with self.collected(parameter):
            yield
        if (len(self._sentences), self._unavailable) != before:
            self.raise_any()

    def raise_any(self) -> None:
        """Raise the collected errors. Wrong input comes before temporary faults, because a retry cannot fix it."""
        if self._sentences:
            raise CheckError("\n".join(self._sentences))
        if self._unavailable is not None:
            raise self._unavailable


def _parameters(template: str) -> tuple[Parameter, ...]:
    if template not in TEMPLATES:
        near = difflib.get_close_matches(template, TEMPLATES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TEMPLATES)}."
        raise ConfigError(f"--template: {template!r} is not a template; {hint}")
    return TEMPLATES[template]


def _places_of_the_job(values: Mapping[str, Value]) -> dict[str, str]:
    """The places that the job would read, by key, from the same configuration that the job will load."""
    return places(load_job_config(str(values["model"]), overrides_of(_texts(values))))


def _texts(values: Mapping[str, Value]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _allowed(values: Mapping[str, Value], installation: Installation, mistakes: _Mistakes) -> dict[str, Value]:
    """The values that the installation allows. Places to read become URLs. The others are collected, and never read."""
    allowed: dict[str, Value] = {}
    for name, text in _texts(values).items():
        with mistakes.collected():
            allowed |= installation.allowed({name: text}, dict.fromkeys(PLACES, Type.LOCATION))
    return allowed
