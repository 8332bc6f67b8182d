"""Files in the store that pages show: the latest AP and the report of runs, pinned models, published weights.

Files are read in threads, and most of them cached for seconds.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from cvat_bridge.short_cache import ShortCache
from object_store import NoSuchKey, ObjectStore, open_store
from published_weights.errors import WeightsError
from published_weights.stored import FOLDER, Card, card_of, names
from run_config import set_warnings
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.json_text import read_json
from run_config.model_quality import decisive_ap, poor_warning, threshold_in_use, threshold_text
from run_config.set_warnings import SetWarnings
from run_config.weights.catalogue import is_allowed
from workflows.cluster.ap_so_far import Ap, read_ap

log = logging.getLogger(__name__)

PINS = "cvat-models"
_AP_S, _PINS_S, _MODELS_S, _WEIGHTS_S, _WARNINGS_S = 10.0, 5.0, 300.0, 20.0, 300.0
MOST_WEIGHTS = 50
_MOST_CONFIG_BYTES = 4 << 20
_RETRY_S = 5.0
_THREADS = 8


class OwnThreshold(msgspec.Struct, frozen=True):
    """The score threshold of a model, and of its classes that have their own."""

    threshold: float
    classes: dict[str, float] = {}


class ModelConfig(msgspec.Struct, frozen=True):
    """The parts of a model's config.json that are shown with a run."""

    preset: str = ""
    classes: frozenset[str] = frozenset()
    metrics: dict[str, float] = {}
    operating_point: OwnThreshold | None = None

    def threshold(self, installation: float | None) -> str:
        """The threshold that applies if a user sets none. installation: its setting."""
        point = self.operating_point
        return threshold_in_use(installation, threshold_text(point.threshold, point.classes) if point else "")

    @property
    def warning(self) -> str:
        """A sentence for users if the model's AP is very low. Else empty."""
        return poor_warning(decisive_ap(self.metrics))


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


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The published weights in the store. `names`: of all; `cards`: of those whose licences are allowed, by name."""

    names: frozenset[str]
    cards: tuple[Card, ...]


class RunFiles:
    """Asynchronous access to the installation's store."""

    def __init__(self, installation: Installation) -> None:
        self.url = installation.store.rstrip("/")
        self._store: ObjectStore = open_store(installation.store, retry_for_s=_RETRY_S)
        self._in_thread = partial(anyio.to_thread.run_sync, limiter=anyio.CapacityLimiter(_THREADS))
        self._aps: ShortCache[Ap | None] = ShortCache(_AP_S)
        self._pins: ShortCache[Pin | None] = ShortCache(_PINS_S)
        self._models: ShortCache[ModelConfig | None] = ShortCache(_MODELS_S)
        self._weights: ShortCache[StoredWeights] = ShortCache(_WEIGHTS_S)
        self._warnings: ShortCache[SetWarnings | None] = ShortCache(_WARNINGS_S)
        self._licences = installation.weights.allowed_licences

    async def ap_so_far(self, folder: str) -> Ap | None:
        """The latest AP of the run in `folder`, a key below the store. None: not yet measured."""
        return await self._aps.get(folder, lambda: self._in_thread(read_ap, self._store, folder))

    async def model_config(self, folder: str) -> ModelConfig | None:
        """What the model of the run in `folder` says about itself. None: missing or unreadable."""
        return await self._models.get(folder, lambda: self._in_thread(self._read_model_config, folder))

    async def warnings(self, set_id: str) -> SetWarnings | None:
        """The warnings about the data of a prepared set. None: there is no such set, or an earlier release made it."""
        return await self._warnings.get(set_id, lambda: self._in_thread(self._read_warnings, set_id))

    async def published_weights(self) -> StoredWeights:
        """The published weights in the store, without damaged ones."""
        return await self._weights.get("all", lambda: self._in_thread(self._read_weights))

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

    def _read_model_config(self, folder: str) -> ModelConfig | None:
        try:
            data = self._store.get_bytes(f"{folder}/model/config.json", end=_MOST_CONFIG_BYTES)
            return msgspec.json.decode(data, type=ModelConfig)
        except (NoSuchKey, ValueError, RecursionError):  # ValueError: not JSON, or not of this form
            return None

    def _read_warnings(self, set_id: str) -> SetWarnings | None:
        key = set_warnings.key_of(set_id)
        try:
            return set_warnings.decode(self._store.get_bytes(key, end=set_warnings.MAX_BYTES)) if key else None
        except NoSuchKey:
            return None

    def _read_weights(self) -> StoredWeights:
        cards = []
        there = list(names(self._store))
        for name in sorted(there[:MOST_WEIGHTS]):
            try:
                card = card_of(self._store.child(f"{FOLDER}/{name}"))
            except WeightsError as error:
                log.warning("published weights are not offered: %s", error)
                continue
            if card and card.name == name:
                cards.append(card)
        allowed = tuple(one for one in cards if is_allowed(one.code_licence, one.weights_licence, self._licences))
        # A damaged card counts: `check` does not read it either.
        return StoredWeights(frozenset(there), allowed)

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
