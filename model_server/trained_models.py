"""Find the trained models in a store: `<prefix>/<run>/model/config.json`, and `<prefix>/<run>/run.json` of the run.

Read-only. A model that cannot be used is left out with a reason and does not affect other models. Contents are cached
until the object changes.
"""

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
_FILE = re.compile(rf"(?P<run>.+)/(?P<file>model/{re.escape(CONFIG)}|model/{re.escape(WEIGHTS)}|{re.escape(RUN)})")


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
    """The files of a run in the store."""

    config: ObjectInfo | None = None
    weights: ObjectInfo | None = None
    lineage: ObjectInfo | None = None


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
        runs = self._list()
        pins = list(self._pins())
        newest_first = sorted(
            (key for key, run in runs.items() if run.config is not None), key=lambda key: _made(runs[key]), reverse=True
        )[:MOST_RUNS]
        with ThreadPoolExecutor(READERS, "lineage") as pool:
            subjects = dict(
                zip(newest_first, pool.map(lambda key: self._subject(key, runs[key], fresh), newest_first), strict=True)
            )
        left_out: dict[str, LeftOut] = {}

        def usable(key: str) -> ListedModel | None:
            model = self._model(key, runs[key], subjects.get(key), fresh, faulty or {})
            if isinstance(model, LeftOut):
                left_out[model.url] = model
                return None
            return model

        models: dict[str, ListedModel] = {}
        for key in newest_first:
            if len(models) < self.most and (model := usable(key)) is not None:
                models[key] = model
        newest: dict[Subject, ListedModel] = {}
        for key in newest_first:
            subject = subjects[key]
            # There are few projects, but about as many tasks as runs: a task needs a model that is listed anyway.
            wanted = subject is not None and (subject.kind is Kind.PROJECT or key in models)
            if subject is not None and wanted and subject not in newest and (model := usable(key)) is not None:
                newest[subject] = model
        pinned: dict[Subject, ListedModel] = {}
        keys = {f"{self.store.child(key).url}/model": key for key in newest_first} if pins else {}
        for subject, url in pins:
            if url in keys:
                found = self._model(keys[url], runs[keys[url]], subjects[keys[url]], fresh, faulty or {})
            else:
                found = self._elsewhere(url, fresh, faulty or {})
            if isinstance(found, LeftOut):
                left_out[found.url] = found
            else:
                pinned[subject] = found
        offered = {model.url: model for model in (*models.values(), *pinned.values())}
        self._known = fresh
        return Choice(
            tuple(sorted(offered.values(), key=lambda model: (model.made, model.url), reverse=True)),
            tuple(newest.items()),
            tuple(pinned.items()),
            tuple(left_out.values()),
        )

    def _list(self) -> dict[str, _Run]:
        """Key of a run's folder → the files that are read here."""
        runs: dict[str, _Run] = {}
        for prefix in self.prefixes:
            for info in self.store.list(prefix):
                place = _FILE.fullmatch(info.key)
                if place is None or not self._is_place(place["run"]):
                    continue
                run = runs.setdefault(place["run"], _Run())
                match place["file"].rpartition("/")[2]:
                    case name if name == CONFIG:
                        run.config = info
                    case name if name == WEIGHTS:
                        run.weights = info
                    case _:
                        run.lineage = info
        return runs

    def _is_place(self, key: str) -> bool:
        """Whether the key is valid: other programs may write keys to the bucket that no folder can have."""
        try:
            self.store.child(f"{key}/model")
        except InvalidKey:
            return False
        return True

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

    def _elsewhere(self, url: str, fresh: _Known, faulty: dict[tuple[str, str], str]) -> ListedModel | LeftOut:
        """A pinned model that is outside the prefixes, or too old to be listed."""
        try:
            folder = open_store(url, retry_for_s=RETRY_FOR_S)
            run = _Run(folder.head(CONFIG), folder.head(WEIGHTS))
            return self._read_model(folder, run, None, fresh, faulty)
        except StoreUnavailable:
            raise
        except StoreError as error:
            return LeftOut(url, "", "missing", f"a person chose it and it cannot be read: {error}")

    def _subject(self, key: str, run: _Run, fresh: _Known) -> Subject | None:
        info = run.lineage
        if info is None or info.size_bytes > MOST_CONFIG_BYTES:
            return None
        name = (info.key, _version(info))
        if name not in self._known.subjects:
            try:
                self._known.subjects[name] = subject_in(self.store.get_bytes(f"{key}/{RUN}"))
            except StoreUnavailable:
                raise
            except StoreError:
                return None
        fresh.subjects[name] = self._known.subjects[name]
        return fresh.subjects[name]

    def _model(
        self, key: str, run: _Run, subject: Subject | None, fresh: _Known, faulty: dict[tuple[str, str], str]
    ) -> ListedModel | LeftOut:
        return self._read_model(self.store.child(f"{key}/model"), run, subject, fresh, faulty)

    def _read_model(
        self,
        folder: ObjectStore,
        run: _Run,
        subject: Subject | None,
        fresh: _Known,
        faulty: dict[tuple[str, str], str],
    ) -> ListedModel | LeftOut:
        assert run.config is not None
        version = f"{_version(run.config)} {_version(run.weights)}"
        name = (folder.url, version)
        if name in faulty:
            return LeftOut(*name, "load", faulty[name])
        model = self._known.models.get(name) or _described(folder, run.config, run.weights, version, subject)
        if isinstance(model, ListedModel):  # reasons for leaving out are not cached: a fault of the store may pass
            fresh.models[name] = self._known.models[name] = model
        return model


def _described(
    folder: ObjectStore, config: ObjectInfo, weights: ObjectInfo | None, version: str, subject: Subject | None
) -> ListedModel | LeftOut:
    """Read the model's config.json. StoreUnavailable is raised: it says nothing about the model."""
    if weights is None or not weights.size_bytes:
        return LeftOut(folder.url, version, "weights", f"{folder.url} has no {WEIGHTS}: its upload was cut short")
    if weights.size_bytes > MOST_WEIGHTS_BYTES:
        most = MOST_WEIGHTS_BYTES >> 30
        return LeftOut(folder.url, version, "weights", f"{folder.url}/{WEIGHTS} is larger than {most} GiB")
    if config.size_bytes > MOST_CONFIG_BYTES:
        return LeftOut(folder.url, version, "config", f"{folder.url}/{CONFIG} is too large to be a model's")
    try:
        info = read_info(folder)
        stored_config(info.job, f"{folder.url}/{CONFIG}")
    except StoreUnavailable:
        raise
    except (JobError, StoreError, ConfigError, RecursionError) as error:
        return LeftOut(folder.url, version, "config", " ".join(str(error).split()))
    if len(set(info.classes)) != len(info.classes) or not info.classes:
        return LeftOut(folder.url, version, "classes", f"{folder.url}/{CONFIG} has no classes, or one of them twice")
    return ListedModel(
        url=folder.url,
        run=unquote(folder.url.removesuffix("/model").rpartition("/")[2]),
        version=version,
        made=config.last_modified.astimezone(UTC),
        classes=info.classes,
        preset=info.preset,
        ap=info.metrics.get("val_ap"),
        subject=subject,
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


def _version(info: ObjectInfo | None) -> str:
    return "" if info is None else info.etag or f"{info.size_bytes}-{info.last_modified.timestamp()}"


def _made(run: _Run) -> datetime:
    assert run.config is not None
    return run.config.last_modified
