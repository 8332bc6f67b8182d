"""Files of runs in the store that pages show: the latest AP, the report, and pinned models.

Files are read in threads. AP and pins are cached for seconds.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from cvat_bridge.short_cache import ShortCache
from object_store import NoSuchKey, ObjectStore, open_store
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.json_text import read_json
from workflows.cluster.ap_so_far import Ap, read_ap

log = logging.getLogger(__name__)

PINS = "cvat-models"
_AP_S, _PINS_S, _CLASSES_S = 10.0, 5.0, 600.0
_RETRY_S = 5.0
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Pin:
    """The pinned model of a task or project."""

    model: str
    run: str


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A project, or a task outside of projects, for which a model can be pinned."""

    kind: str
    number: int

    @property
    def key(self) -> str:
        """Key of the pin below the store."""
        return f"{PINS}/{self.kind}-{self.number}.json"


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report in the store."""

    key: str
    size_bytes: int
    etag: str | None


class RunFiles:
    """Asynchronous access to the installation's store."""

    def __init__(self, installation: Installation) -> None:
        self.url = installation.store.rstrip("/")
        self._store: ObjectStore = open_store(installation.store, retry_for_s=_RETRY_S)
        self._in_thread = partial(anyio.to_thread.run_sync, limiter=anyio.CapacityLimiter(_THREADS))
        self._aps: ShortCache[Ap | None] = ShortCache(_AP_S)
        self._pins: ShortCache[Pin | None] = ShortCache(_PINS_S)
        self._classes: ShortCache[frozenset[str]] = ShortCache(_CLASSES_S)

    async def ap_so_far(self, folder: str) -> Ap | None:
        """The latest AP of the run in `folder`, a key below the store. None: not yet measured."""
        return await self._aps.get(folder, lambda: self._in_thread(read_ap, self._store, folder))

    async def model_classes(self, folder: str) -> frozenset[str]:
        """The classes of the model of the run in `folder`, a key below the store. Empty: it cannot be read."""
        return await self._classes.get(folder, lambda: self._in_thread(self._read_classes, folder))

    async def pin(self, place: RunPlace) -> Pin | None:
        """The model pinned for `place`, if any."""
        return await self._pins.get(place, lambda: self._in_thread(self._read_pin, place))

    async def set_pin(self, place: RunPlace, pin: Pin) -> None:
        """Pin a model. It replaces the previous pin."""
        content = json.dumps({"model": pin.model, "run": pin.run}).encode()
        await self._in_thread(self._store.put_bytes, place.key, content)
        self._pins.forget(place)

    async def clear_pin(self, place: RunPlace) -> None:
        """Remove the pin. The newest model is used again."""
        await self._in_thread(self._store.delete, [place.key])
        self._pins.forget(place)

    async def report(self, folder: str) -> ReportFile | None:
        """The run's report. None: there is none."""
        key = f"{folder}/report/index.html"
        try:
            found = await self._in_thread(self._store.head, key)
        except NoSuchKey:
            return None
        return ReportFile(key, found.size_bytes, found.etag)

    def parts(self, report: ReportFile, part_bytes: int = 4 * 2**20) -> Iterator[bytes]:
        """Yield the report's bytes. Blocks, so it must run in a thread."""
        for start in range(0, report.size_bytes, part_bytes):
            yield self._store.get_bytes(report.key, start=start, end=min(start + part_bytes, report.size_bytes))

    def _read_classes(self, folder: str) -> frozenset[str]:
        key = f"{folder}/model/config.json"
        try:
            tree = read_json(self._store.get_bytes(key), key)
        except (NoSuchKey, ConfigError):
            return frozenset()
        classes = tree.get("classes") if isinstance(tree, Mapping) else None
        return frozenset(map(str, classes)) if isinstance(classes, list) else frozenset()

    def _read_pin(self, place: RunPlace) -> Pin | None:
        try:
            tree = read_json(self._store.get_bytes(place.key), place.key)
        except NoSuchKey:
            return None
        except ConfigError as error:
            log.warning("a pin cannot be read: %s", error, extra={"key": place.key})
            return None
        if not isinstance(tree, Mapping) or not isinstance(tree.get("model"), str):
            return None
        return Pin(tree["model"], str(tree.get("run") or ""))
