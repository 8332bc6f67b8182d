"""`data-prep check`: find in seconds what would otherwise fail after hours.

It checks the parameters, the configuration, the sources, the models, the limits of the installation, and whether the
store can be written. Of the data only names are read: `prepare` checks the contents. The parameters of a template
decide which checks apply.
"""

import contextlib
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from data_prep.errors import DataPrepError
from object_store import ObjectStore, StoreError, StoreUnavailable
from prepared_set.errors import PreparedSetError
from published_weights.automatic_start import Begun, automatic_start, begun, model_of, require_family
from published_weights.start import start_from
from run_check import places as check_places
from run_check.errors import CheckError
from run_check.installation import machine, naming_the_secret, require_keys, trains_on_gpu
from run_config import cvat_formats, prepare_pods
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.job.places import PLACES, places
from run_config.job.presets import base_preset, load_job_config
from run_config.locations import resolve
from run_config.parameters import TEMPLATES, Parameter, Type, Value, lines, overrides_of, parse_valid
from run_config.weights.automatic import AUTO, NONE

SOURCES = ("cvat-annotation-path", "cvat-test-path")
CHECKPOINT = "cvat-finetune-checkpoint"
MODEL = "trained-model"
OUTPUT = "cvat-output-path"
MACHINE = frozenset({"sys-node-pool", "gpu-count", "device"})


@dataclass(frozen=True, slots=True)
class Passed:
    """The result of a check without mistakes."""

    findings: list[str]
    """One sentence each."""
    model: str
    """The preset or configuration file that the run trains, never `auto`. Empty: the template trains nothing."""
    pods: int = 0
    """The number of pods that prepare the data. 0: the template prepares nothing, or does not know its size yet."""


def check(
    texts: Mapping[str, str],
    run: str,
    workflow_uid: str = "",
    *,
    template: str = "detr-train",
    installation: Installation | None = None,
) -> Passed:
    """Check the parameters of the run `run`, and choose the model and the weights that are `auto`.

    Raises CheckError: one sentence for each mistake, because a wrong parameter hides no mistake in the others. Raises
    StoreUnavailable: when a store cannot be reached and nothing else is wrong.
    """
    values, wrong = parse_valid(texts, _parameters(template))
    mistakes = _Mistakes(wrong)
    findings: list[str] = []
    with mistakes.collected():
        if values.get("model", AUTO) != AUTO:
            values |= _places_of_the_job(values)
            findings.append(f"model: {values['model']}")
    start = str(values.get(CHECKPOINT) or "")
    if start in (AUTO, NONE):
        values[CHECKPOINT] = None
    if installation is not None:
        values = _allowed(values, installation, mistakes)
        if values.keys() >= MACHINE:
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
    if CHECKPOINT in values and OUTPUT in values:
        values |= _named_start(start, values, store, run, installation, mistakes)
        if "model" in values:
            before = None
            with mistakes.needed(OUTPUT):
                before = begun(store.child(folder), store)
            findings += _choose(values, start, before, store, installation, mistakes)
    sizes: list[int] = []
    source = functools.partial(
        check_places.source, chosen_format=str(values.get("annotation-format", cvat_formats.AUTO)), sizes=sizes
    )
    # Weights of the backbone are not read if all weights come from a checkpoint.
    read = {name: look for name, look in _LOOKS.items() if name not in PLACES or not values.get(CHECKPOINT)}
    read = dict.fromkeys(SOURCES, source) | read
    for name, look in read.items():
        for line in lines(values.get(name)):
            with mistakes.collected(name):
                findings.append(f"{name}: {look(line, store.url)}")
    if {"prepared-set", "split"} <= values.keys():
        with mistakes.collected("prepared-set"):
            found = check_places.prepared_set(store, str(values["prepared-set"]), str(values["split"]))
            findings.append(f"prepared-set: {found}")
    mistakes.raise_any()
    pods = _pods(values, sum(sizes), installation)
    if pods > 1:
        findings.append(f"pods that prepare the data: {pods}")
    return Passed(findings, str(values.get("model") or ""), pods)


def _pods(values: Mapping[str, Value], size_bytes: int, installation: Installation | None) -> int:
    """The number of pods that prepare sources of this size. See `Passed`."""
    if not values.keys() >= {SOURCES[0], prepare_pods.PARAMETER}:
        return 0
    # Outside of a cluster there is one process.
    return 1 if installation is None else prepare_pods.pods_for(str(values[prepare_pods.PARAMETER]), size_bytes)


def _named_start(
    start: str,
    values: dict[str, Value],
    store: ObjectStore,
    run: str,
    installation: Installation | None,
    mistakes: "_Mistakes",
) -> dict[str, Value]:
    """The place that `cvat-finetune-checkpoint` names, if it is allowed. `values` loses the text."""
    text = values.pop(CHECKPOINT)
    place: dict[str, Value] = {}
    with mistakes.collected(CHECKPOINT):
        named = start_from(start, store, str(values[OUTPUT]), run) if text else start
        place = {CHECKPOINT: text if named == start else named}
        if installation is not None and named != start:
            place = _allowed(place, installation, mistakes)
    return place


def _choose(
    values: dict[str, Value],
    start: str,
    before: Begun | None,
    store: ObjectStore,
    installation: Installation | None,
    mistakes: "_Mistakes",
) -> list[str]:
    """Replace `auto` in `values`, and add the places that this implies. Return the finding about the model."""
    findings: list[str] = []
    url = ""
    if values.get(CHECKPOINT):
        look = check_places.checkpoint if before is None else resolve
        with mistakes.collected(CHECKPOINT):
            url = look(str(values[CHECKPOINT]), store.url)
        if not url:
            return []
    if values["model"] == AUTO:
        if not values.keys() >= {CHECKPOINT, *MACHINE}:
            return []  # a mistake about them was collected
        with mistakes.collected():
            gpu, laptop = trains_on_gpu(values, installation), installation is None
            chosen = model_of(start, url, before, store, check_places.opened, gpu=gpu, laptop=laptop)
            values["model"] = chosen.preset
            read: Mapping[str, Value] = _places_of_the_job(values)
            values |= read if installation is None else _allowed(read, installation, mistakes)
            findings.append(f"model: {chosen.preset} (auto: {chosen.reason})")
    # A run that has begun does not read its first weights again: they may be gone.
    if values["model"] != AUTO and (start == AUTO or (url and before is None)):
        with mistakes.collected():
            name = str(values["model"])
            config, preset = load_job_config(name, overrides_of(_texts(values))), base_preset(name)
            with mistakes.collected(CHECKPOINT):
                if url:
                    require_family(config.model, url, start, check_places.opened)
                else:
                    found = automatic_start(config.model, preset, before, store)
                    places = {CHECKPOINT: found.checkpoint, "model.backbone_weights": found.backbone}
                    values |= {key: place for key, place in places.items() if place and before is None}
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
        if len(self._sentences) > 1:  # the command line prints them in one line
            raise CheckError("\n".join(one if one.endswith((".", "?")) else f"{one}." for one in self._sentences))
        if self._sentences:
            raise CheckError(self._sentences[0])
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


def _allowed(values: Mapping[str, Value], installation: Installation, mistakes: "_Mistakes") -> dict[str, Value]:
    """The values that the installation allows. Places to read become URLs. The others are collected, and never read."""
    allowed: dict[str, Value] = {}
    for name, text in _texts(values).items():
        with mistakes.collected():
            allowed |= installation.allowed({name: text}, dict.fromkeys(PLACES, Type.LOCATION))
    return allowed
