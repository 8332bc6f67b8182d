"""The list of functions, refreshed in the background: reading it never waits for the store.

One refresh runs at a time. While the store is unreachable, the last list stays, and `trouble` gives the reason.
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
"""An unknown name causes a refresh if the list is older than this."""
FAULTY_FOR_S = 600.0
"""A model that failed to load is retried after this, or when its files change."""

log = logging.getLogger(__name__)


class FunctionList:
    """The functions by name, from the last successful refresh."""

    def __init__(
        self,
        models: TrainedModels,
        *,
        threshold: float | None = None,
        fresh_for_s: float = FRESH_FOR_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`threshold`: the installation's threshold, which overrides the models' own."""
        self.models = models
        self.functions: Mapping[str, Function] = {}
        self.left_out: tuple[LeftOut, ...] = ()
        self.trouble = ""
        """Why the last refresh failed. Empty: it succeeded."""
        self.read_at: float | None = None
        self._threshold = threshold
        self._fresh_for_s, self._now = fresh_for_s, now
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._faulty: dict[tuple[str, str], tuple[str, float]] = {}

    async def keep_fresh(self) -> None:
        """Refresh periodically until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._fresh_for_s)

    async def refresh(self) -> None:
        """Read the store now, or wait for the refresh that is running."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._read())
        await asyncio.shield(self._look)

    async def find(self, name: str) -> Function | None:
        """Return a function by name. Refreshes the list if the name is unknown."""
        if name not in self.functions and self._now() - self._looked_at > LOOK_AGAIN_S:
            await self.refresh()
        return self.functions.get(name)

    def mark_faulty(self, model: ListedModel, reason: str) -> None:
        """Remove a model that cannot be loaded from the list."""
        log.error("model left out", extra={"model": model.url, "reason": reason})
        self._faulty[model.url, model.version] = (reason, self._now() + FAULTY_FOR_S)
        self.functions = {name: each for name, each in self.functions.items() if each.model != model}
        self.left_out = (*self.left_out, LeftOut(model.url, model.version, "load", reason))
        self._look_soon()

    def age_s(self) -> float | None:
        """Seconds since the last successful refresh."""
        return None if self.read_at is None else self._now() - self.read_at

    def _look_soon(self) -> None:
        # The newest model of a project may now be another one.
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
            # A bug that one object triggers must not stop the refreshes.
            log.exception("looking for models failed")
            self.trouble = "internal error; see the server's log"
            return
        places = [self.models.store.child(prefix).url for prefix in self.models.prefixes]
        before = {one.url for one in self.left_out}
        for one in choice.left_out:
            if one.url not in before:
                log.warning("model left out", extra={"model": one.url, "reason": one.reason})
        # Models that were marked faulty during this refresh are not yet excluded.
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
