"""The list of functions, kept fresh in the background: asking for it never waits for the store.

One look at a time; an outage of the store leaves the last list in place and is told by `trouble`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from model_server.functions import Function, functions
from model_server.trained_models import LeftOut, ListedModel, TrainedModels
from object_store import StoreError

FRESH_FOR_S = 30.0
LOOK_AGAIN_S = 2.0
"""A name that is not in the list is looked for once more, when the list is older than this."""
FAULTY_FOR_S = 600.0
"""A model that failed to load is tried again after this, or when its files change."""

log = logging.getLogger(__name__)


class FunctionList:
    """The functions by name, as of the last look that succeeded."""

    def __init__(
        self,
        models: TrainedModels,
        *,
        threshold: float | None = None,
        fresh_for_s: float = FRESH_FOR_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`threshold`: the installation's, which stands before the models' own."""
        self.models = models
        self.functions: Mapping[str, Function] = {}
        self.left_out: tuple[LeftOut, ...] = ()
        self.trouble = ""
        """Why the last look failed; empty: it did not."""
        self.read_at: float | None = None
        self._threshold = threshold
        self._fresh_for_s, self._now = fresh_for_s, now
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._faulty: dict[tuple[str, str], tuple[str, float]] = {}

    async def keep_fresh(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._fresh_for_s)

    async def refresh(self) -> None:
        """Look at the store now, or wait for the look that is on its way."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._read())
        await asyncio.shield(self._look)

    async def find(self, name: str) -> Function | None:
        """The function, which may have appeared since the last look."""
        if name not in self.functions and self._now() - self._looked_at > LOOK_AGAIN_S:
            await self.refresh()
        return self.functions.get(name)

    def mark_faulty(self, model: ListedModel, reason: str) -> None:
        """Leave out a model that cannot be loaded, from now on."""
        log.error("model left out", extra={"model": model.url, "reason": reason})
        self._faulty[model.url, model.version] = (reason, self._now() + FAULTY_FOR_S)
        self.functions = {name: each for name, each in self.functions.items() if each.model != model}
        self.left_out = (*self.left_out, LeftOut(model.url, model.version, "load", reason))
        self._look_soon()

    def age_s(self) -> float | None:
        """Seconds since the last look that succeeded."""
        return None if self.read_at is None else self._now() - self.read_at

    def _look_soon(self) -> None:
        # The newest of a project is now another one.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().create_task(self.refresh())

    async def _read(self) -> None:
        self._looked_at = self._now()
        self._faulty = {name: entry for name, entry in self._faulty.items() if entry[1] > self._looked_at}
        faulty = {name: reason for name, (reason, _) in self._faulty.items()}
        try:
            choice = await asyncio.to_thread(self.models.read, faulty)
        except StoreError as error:
            self._tell(str(error))
            return
        except Exception:
            # A bug met in one object of the store must not end the looking for all others.
            log.exception("looking for models failed")
            self.trouble = "an internal error, which the log has"
            return
        places = [self.models.store.child(prefix).url for prefix in self.models.prefixes]
        before = {one.url for one in self.left_out}
        for one in choice.left_out:
            if one.url not in before:
                log.warning("model left out", extra={"model": one.url, "reason": one.reason})
        # What was found to be faulty during the look is not in it yet.
        late = {name for name in self._faulty if name not in faulty}
        listed = functions(choice, places, self._threshold)
        self.functions = {
            name: each for name, each in listed.items() if (each.model.url, each.model.version) not in late
        }
        self.left_out, self.trouble, self.read_at = choice.left_out, "", self._now()

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("the store cannot be listed; the last list stays", extra={"reason": trouble})
        self.trouble = trouble
