"""Find the trained models in a store: `<prefix>/<run>/model/config.json`, and `<prefix>/<run>/run.json` of the run.

Read-only. A model that cannot be used is left out with a reason and does not affect other models. Contents are cached
until the object changes.
"""

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from cvat_client.errors import BridgeError
from cvat_client.subject import Kind, Subject
from detr_job.errors import JobError
from detr_job.training.run_folder import RUN
from detr_job.weights.model_folder import CONFIG, WEIGHTS, read_info
from object_store import InvalidKey, ObjectInfo, ObjectStore, StoreError, StoreUnavailable, open_store
from run_config.errors import ConfigError
from run_config.job.stored_config import stored_config
from run_config.json_text import read_json

log = logging.getLogger(__name__)

PINS = "cvat-models"
MOST_RUNS = 1000
"""At most this many runs are read, newest first."""
MOST_CONFIG_BYTES = 4 << 20
MOST_WEIGHTS_BYTES = 2 << 30
"""Size limit of one model's weights, which are read into memory. Detectors take a few hundred megabytes."""
READERS = 8
RETRY_FOR_S = 5.0
_PIN = re.compile(rf"{PINS}/(project|task)-([1-9][0-9]{{0,9}})\.json")
_MODEL_FILES = f"{re.escape(CONFIG)}|{re.escape(WEIGHTS)}"
_FILE = re.compile(rf"(?P<run>.+)/(?:model/(?P<model>{_MODEL_FILES})|(?P<lineage>{re.escape(RUN)}))")


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that CVAT can use. `version` changes when its files are replaced."""

    url: str
    run: str
    version: str
    made: datetime
    classes: tuple[str, ...]
    preset: str
    ap: float | None
    """AP on the validation split, 0…1."""
    subject: Subject | None
    """The CVAT tasks or project that it was trained on. None: the run was not started in CVAT."""
    threshold: str = ""
    """The model's own score thresholds as text. Empty: it has none."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A model that is left out of the list, and the reason. `kind`: one word, a label of a metric."""

    url: str
    version: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The models to list, newest first; the newest model of each subject; pinned models; models that are left out."""

    models: tuple[ListedModel, ...] = ()
    newest: tuple[tuple[Subject, ListedModel], ...] = ()
    pinned: tuple[tuple[Subject, ListedModel], ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(slots=True)
class _Run:
    """The files of a run in the store. folder: its `model/`; files: name → file, for the names in `_FILE`."""

    folder: ObjectStore
    files: dict[str, ObjectInfo] = field(default_factory=dict)
    subject: Subject | None = None

    def version(self, name: str) -> str:
        """Changes when the file is replaced. Empty: there is no such file."""
        info = self.files.get(name)
        return "" if info is None else info.etag or f"{info.size_bytes}-{info.last_modified.timestamp()}"


@dataclass(slots=True)
class _Known:
    """Cached contents: URL and version → content."""

    models: dict[tuple[str, str], ListedModel] = field(default_factory=dict)
    subjects: dict[tuple[str, str], Subject | None] = field(default_factory=dict)


class TrainedModels:
    """All trained models below some prefixes of a store. Not thread-safe."""

    def __init__(self, store: ObjectStore, prefixes: Iterable[str], most: int, readable: Iterable[str] = ()) -> None:
        """`readable`: URL prefixes outside the store that pinned models may be below. Empty: only the store."""
        self.store = store
        self.prefixes = tuple(prefixes)
        self.most = most
        self.readable = tuple(readable)
        self._known = _Known()

    def read(self, faulty: dict[tuple[str, str], str] | None = None) -> Choice:
        """Read the store. `faulty`: models that failed to load, (URL, version) → reason.

        StoreError: the store cannot be listed.
        """
        fresh = _Known()
        runs = sorted(self._list(), key=lambda run: run.files[CONFIG].last_modified, reverse=True)[:MOST_RUNS]
        with ThreadPoolExecutor(READERS, "lineage") as pool:
            for run, subject in zip(runs, pool.map(lambda run: self._subject(run, fresh), runs), strict=True):
                run.subject = subject
        left_out: dict[str, LeftOut] = {}

        def usable(run: _Run | LeftOut) -> ListedModel | None:
            model = run if isinstance(run, LeftOut) else self._model(run, fresh, faulty or {})
            if isinstance(model, LeftOut):
                left_out[model.url] = model
                return None
            return model

        models: dict[str, ListedModel] = {}
        for run in runs:
            if len(models) < self.most and (model := usable(run)) is not None:
                models[model.url] = model
        newest: dict[Subject, ListedModel] = {}
        for run in runs:
            subject = run.subject
            # There are few projects, but about as many tasks as runs: a task needs a model that is listed anyway.
            wanted = subject is not None and (subject.kind is Kind.PROJECT or run.folder.url in models)
            if subject is not None and wanted and subject not in newest and (model := usable(run)) is not None:
                newest[subject] = model
        by_url = {run.folder.url: run for run in runs}
        pinned = {
            subject: model
            for subject, url in self._pins()
            if (model := usable(by_url.get(url) or _elsewhere(url))) is not None
        }
        offered = {model.url: model for model in (*models.values(), *pinned.values())}
        self._known = fresh
        return Choice(
            tuple(sorted(offered.values(), key=lambda model: (model.made, model.url), reverse=True)),
            tuple(newest.items()),
            tuple(pinned.items()),
            tuple(left_out.values()),
        )

    def _list(self) -> list[_Run]:
        """The runs that have a model's config.json."""
        runs: dict[str, _Run] = {}
        for prefix in self.prefixes:
            for info in self.store.list(prefix):
                place = _FILE.fullmatch(info.key)
                # Other programs may write keys to the bucket that no folder can have.
                with contextlib.suppress(InvalidKey):
                    if place is not None:
                        run = runs.setdefault(place["run"], _Run(self.store.child(f"{place['run']}/model")))
                        run.files[place["model"] or place["lineage"]] = info
        return [run for run in runs.values() if CONFIG in run.files]

    def _pins(self) -> Iterator[tuple[Subject, str]]:
        """Yield each subject and the URL of its pinned model. Invalid pins are skipped."""
        for info in list(self.store.list(PINS)):
            name = _PIN.fullmatch(info.key)
            if name is None or info.size_bytes > MOST_CONFIG_BYTES:
                continue
            try:
                content = read_json(self.store.get_bytes(info.key), info.key)
            except StoreUnavailable:
                raise
            except ConfigError as error:
                log.warning("a pin cannot be read: %s", error, extra={"key": info.key})
                continue
            except StoreError:
                continue
            url = content.get("model") if isinstance(content, dict) else None
            if isinstance(url, str) and self._may_read(url):
                yield Subject(Kind(name[1]), (int(name[2]),)), url.rstrip("/")

    def _may_read(self, url: str) -> bool:
        places = (self.store.url, *self.readable)
        inside = any(url.startswith(f"{place.rstrip('/')}/") for place in places)
        return inside and ".." not in unquote(url).split("/")

    def _subject(self, run: _Run, fresh: _Known) -> Subject | None:
        info = run.files.get(RUN)
        if info is None or info.size_bytes > MOST_CONFIG_BYTES:
            return None
        name = (info.key, run.version(RUN))
        if name not in self._known.subjects:
            try:
                self._known.subjects[name] = subject_in(self.store.get_bytes(info.key))
            except StoreUnavailable:
                raise
            except StoreError:
                return None
        fresh.subjects[name] = self._known.subjects[name]
        return fresh.subjects[name]

    def _model(self, run: _Run, fresh: _Known, faulty: dict[tuple[str, str], str]) -> ListedModel | LeftOut:
        name = (run.folder.url, f"{run.version(CONFIG)} {run.version(WEIGHTS)}")
        if name in faulty:
            return LeftOut(*name, "load", faulty[name])
        model = self._known.models.get(name) or _described(run, name[1])
        if isinstance(model, ListedModel):  # reasons for leaving out are not cached: a fault of the store may pass
            fresh.models[name] = self._known.models[name] = model
        return model


def _elsewhere(url: str) -> _Run | LeftOut:
    """The run of a pinned model that is outside the prefixes, or too old to be listed."""
    try:
        folder = open_store(url, retry_for_s=RETRY_FOR_S)
        return _Run(folder, {name: folder.head(name) for name in (CONFIG, WEIGHTS)})
    except StoreUnavailable:
        raise
    except StoreError as error:
        return LeftOut(url, "", "missing", f"a user chose this model, and it cannot be read: {error}")


def _described(run: _Run, version: str) -> ListedModel | LeftOut:
    """Read the model's config.json. StoreUnavailable is raised: it says nothing about the model."""
    url, config, weights = run.folder.url, run.files[CONFIG], run.files.get(WEIGHTS)
    if weights is None or not weights.size_bytes:
        return LeftOut(url, version, "weights", f"{url} has no {WEIGHTS}: its upload was cut short")
    if weights.size_bytes > MOST_WEIGHTS_BYTES:
        return LeftOut(url, version, "weights", f"{url}/{WEIGHTS} is larger than {MOST_WEIGHTS_BYTES >> 30} GiB")
    if config.size_bytes > MOST_CONFIG_BYTES:
        return LeftOut(url, version, "config", f"{url}/{CONFIG} is too large to be a model's")
    try:
        info = read_info(run.folder)
        stored_config(info.job, f"{url}/{CONFIG}")
    except StoreUnavailable:
        raise
    except (JobError, StoreError, ConfigError, RecursionError) as error:
        return LeftOut(url, version, "config", " ".join(str(error).split()))
    if len(set(info.classes)) != len(info.classes) or not info.classes:
        return LeftOut(url, version, "classes", f"{url}/{CONFIG} has no classes, or one of them twice")
    return ListedModel(
        url=url,
        run=unquote(url.removesuffix("/model").rpartition("/")[2]),
        version=version,
        made=config.last_modified.astimezone(UTC),
        classes=info.classes,
        preset=info.preset,
        ap=info.metrics.get("val_ap"),
        subject=run.subject,
        threshold="" if info.operating_point is None else " ".join(info.operating_point.describe().split()),
    )


def subject_in(lineage: bytes) -> Subject | None:
    """The subject of a run, from its run.json. None: it was not started in CVAT."""
    try:
        content: Any = json.loads(lineage)
    except (ValueError, RecursionError):
        return None
    parameters = content.get("parameters") if isinstance(content, dict) else None
    text = parameters.get("cvat-subject") if isinstance(parameters, dict) else None
    try:
        return Subject.parse(text) if isinstance(text, str) and text else None
    except BridgeError:
        return None
