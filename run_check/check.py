"""`data-prep check`: everything that can be known in seconds before a run costs hours.

Parameters, configuration, sources, models, what the installation allows, and whether the store takes
what the run will write. Nothing of the data is read beyond names: `prepare` looks into it. Which checks
apply follows from the parameters that a template has.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping

from data_prep.errors import DataPrepError
from object_store import StoreError, StoreUnavailable
from prepared_set.errors import PreparedSetError
from run_check import places as check_places
from run_check.errors import CheckError
from run_check.installation import machine, naming_the_secret, require_keys
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.job.places import PLACES, places
from run_config.job.presets import load_job_config
from run_config.parameters import TEMPLATES, Parameter, Type, Value, lines, overrides_of, parse

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
    """Check the parameters of the run called `run` and say what was found, a sentence each.

    Raises ConfigError for values that are wrong by themselves; CheckError for places that are, with one
    sentence each; StoreUnavailable when a store cannot be reached and nothing else is wrong.
    """
    values = parse(texts, _parameters(template))
    mistakes = _Mistakes()
    findings: list[str] = []
    with mistakes.collected():
        if "model" in values:
            values |= _places_of_the_job(values)
            findings.append(f"model: {values['model']}")
    if installation is not None:
        findings += _allowed(values, installation, mistakes)
    mistakes.stop_here()
    store = check_places.opened(str(values["store"]))
    folder = f"{values[OUTPUT]}/{run}"
    with mistakes.collected(OUTPUT), naming_the_secret(installation):
        check_places.try_to_write(store, folder)
        findings.append(f"output: {store.url}/{folder}")
        check_places.require_same_workflow(store, folder, workflow_uid)
    mistakes.stop_here()
    # Weights of the backbone are not read where all weights come from a checkpoint.
    read = {name: look for name, look in _LOOKS.items() if name not in PLACES or not values.get(CHECKPOINT)}
    for name, look in read.items():
        for line in lines(values.get(name)):
            with mistakes.collected(name):
                findings.append(f"{name}: {look(line, store.url)}")
    if "prepared-set" in values:
        with mistakes.collected("prepared-set"):
            found = check_places.prepared_set(store, str(values["prepared-set"]), str(values["split"]))
            findings.append(f"prepared-set: {found}")
    mistakes.stop_here()
    return findings


_LOOKS: Mapping[str, Callable[[str, str], str]] = {
    **dict.fromkeys(SOURCES, check_places.source),
    CHECKPOINT: check_places.checkpoint,
    MODEL: check_places.model_folder,
    **dict.fromkeys(PLACES, check_places.backbone),
}
"""What is read → how one of its lines is looked at, given the URL of the store."""


class _Mistakes:
    """Sentences gathered so that a person can mend all of them at once."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._unavailable: StoreUnavailable | None = None

    @contextlib.contextmanager
    def collected(self, parameter: str = "") -> Iterator[None]:
        """Note what is wrong inside the block, under the parameter's name."""
        try:
            yield
        except StoreUnavailable as error:
            self._unavailable = self._unavailable or error
        except (CheckError, ConfigError, DataPrepError, PreparedSetError, StoreError) as error:
            sentences = (f"{parameter}: {error}" if parameter else str(error)).splitlines()
            self._sentences += [one for one in sentences if one not in self._sentences]

    def stop_here(self) -> None:
        """Raise what was noted. Wrong input comes before faults that pass: a retry would not mend it."""
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
    """Key → place that the job would read: the preset or file with all that is set, read as the job does."""
    return places(load_job_config(str(values["model"]), overrides_of(_texts(values))))


def _texts(values: Mapping[str, Value]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _allowed(values: dict[str, Value], installation: Installation, mistakes: _Mistakes) -> list[str]:
    """Note what the installation does not allow; what may be read becomes a URL in `values`."""
    findings: list[str] = []
    with mistakes.collected():
        require_keys(installation)
    with mistakes.collected():
        values |= installation.allowed(_texts(values), dict.fromkeys(PLACES, Type.LOCATION))
    if "sys-node-pool" in values:
        with mistakes.collected():
            findings += machine(values, installation)
    return findings
