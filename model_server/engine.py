"""Run models: separate threads read files, decode images and run networks.

One thread runs all networks of the device. The models used last stay in memory. Everything outside the threads runs
in one event loop, so there are no locks.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cvat_client.errors import BridgeError
from detr_job.errors import JobError
from detr_job.prediction.predictor import Device, Found, NoMemory, Predictor, UnreadableImage, still_answers
from detr_job.prediction.repeated import without_repeated
from model_server.trained_models import ListedModel
from object_store import StoreError, StoreUnavailable
from run_config.errors import ConfigError
from run_config.exit_codes import PASSING_FAULT

DECODERS = 2
"""Images decoded at the same time. Each may take half a gigabyte."""

log = logging.getLogger(__name__)
Key = tuple[str, str]


class ModelFaulty(BridgeError):
    """A model's files are invalid. A retry does not help until they change."""


class ModelNotNow(BridgeError):
    """The store is unreachable, or memory is short. A retry may succeed."""

    exit_code = PASSING_FAULT


class ImageRefused(BridgeError):
    """The image of a call cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Duration of each part of a call in seconds, including the wait for other calls."""

    load: float
    decode: float
    detect: float


class Engine:
    """Loads and runs models on one device."""

    def __init__(
        self,
        device: Device,
        most_loaded: int,
        *,
        keep_repeated: bool = False,
        load: Callable[[str, Device], Predictor] = Predictor,
    ) -> None:
        """keep_repeated: return boxes that repeat a better one."""
        self.device = device
        self.keep_repeated = keep_repeated
        self.broken = ""
        """Why this process can no longer use the device. Empty: it can."""
        self._most, self._load = most_loaded, load
        self._models: OrderedDict[Key, asyncio.Task[Predictor]] = OrderedDict()
        self._loading = ThreadPoolExecutor(1, "load-model")
        self._decoding = ThreadPoolExecutor(DECODERS, "decode")
        self._detecting = ThreadPoolExecutor(1, "detect")

    def close(self) -> None:
        """Stop the threads."""
        for pool in (self._loading, self._decoding, self._detecting):
            pool.shutdown(wait=False, cancel_futures=True)

    def loaded(self) -> int:
        """Number of models in memory or being loaded."""
        return len(self._models)

    async def detect(self, model: ListedModel, image: bytes, threshold: float | None) -> tuple[list[Found], Timing]:
        """Detect boxes in an image file. threshold: None means the model's own.

        Raises ModelFaulty, ModelNotNow, ImageRefused.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        predictor = await self._predictor(model)
        loaded = loop.time()
        try:
            ready = await loop.run_in_executor(self._decoding, predictor.read, image)
        except UnreadableImage as error:
            raise ImageRefused(str(error)) from error
        except MemoryError:
            raise ModelNotNow("there is not enough memory to decode the image: try again later") from None
        decoded = loop.time()
        try:
            found = await loop.run_in_executor(self._detecting, predictor.detect, ready, threshold)
        except NoMemory as error:
            self._models.clear()  # all models, to free memory; they are loaded again on demand
            raise ModelNotNow(f"{error}. Try again later, or ask the operator to lower models.loaded") from error
        except Exception as error:
            if not await loop.run_in_executor(self._detecting, still_answers, self.device):
                self.broken = f"{self.device} no longer responds ({type(error).__name__})"
                raise ModelNotNow(f"{self.broken}: the server restarts") from error
            raise
        if predictor.at_limit(found, threshold):
            log.warning("boxes cut", extra={"model": model.url, "reason": predictor.limit_sentence()})
        if not self.keep_repeated:
            found = without_repeated(found)
        return found, Timing(loaded - start, decoded - loaded, loop.time() - decoded)

    async def _predictor(self, model: ListedModel) -> Predictor:
        key = (model.url, model.version)
        if key not in self._models:
            for other in [each for each in self._models if each[0] == model.url]:
                del self._models[other]  # an older version: its files were replaced
            while len(self._models) >= self._most:
                self._models.popitem(last=False)
            self._models[key] = asyncio.create_task(self._read(model))
            self._models[key].add_done_callback(_seen)
        self._models.move_to_end(key)
        task = self._models[key]
        try:
            # A cancelled call must not cancel loading for the other calls that wait for it.
            return await asyncio.shield(task)
        except BridgeError:
            if self._models.get(key) is task:
                del self._models[key]
            raise

    async def _read(self, model: ListedModel) -> Predictor:
        loop = asyncio.get_running_loop()
        try:
            predictor = await loop.run_in_executor(self._loading, self._load, model.url, self.device)
        except (StoreUnavailable, NoMemory) as error:
            raise ModelNotNow(f"the model of run {model.run} cannot be read at the moment: {error}") from error
        except (JobError, StoreError, ConfigError) as error:
            raise ModelFaulty(f"the model of run {model.run} cannot be used: {error}") from error
        except Exception as error:
            log.exception("loading a model failed", extra={"model": model.url})
            raise ModelFaulty(f"the model of run {model.run} cannot be loaded ({type(error).__name__})") from error
        log.info("model loaded", extra={"model": model.url, "device": str(self.device)})
        return predictor


def _seen(task: asyncio.Task[Predictor]) -> None:
    """Retrieve the error, so that asyncio does not log it if no call waits any more."""
    if not task.cancelled():
        task.exception()
