"""Watch a run to its end: print a line for each change.

It polls instead of keeping a connection open. So nothing is lost when the API restarts, a laptop sleeps or a proxy cuts
long responses, and the permission to read workflows is enough.
"""

import time
from collections.abc import Callable

from workflows.cluster.errors import (
    ClusterError,
    NotThereError,
    UnreachableError,
    WatchEndedError,
    WatchInterruptedError,
)
from workflows.cluster.run_status import RunStatus, StepStatus, read_status
from workflows.cluster.templates import Api

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 5.0
UNTOUCHED_AFTER_S = 30.0
"""If a workflow has no phase this long after its creation, no controller watches it."""


class Watch:
    """Watches one run. `uid` identifies it if its name is used again."""

    def __init__(
        self,
        source: Api,
        name: str,
        uid: str,
        say: Callable[[str], None],
        *,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._name = name
        self._uid = uid
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._timeout_s = timeout_s
        self._seen: dict[str, StepStatus] = {}
        self._phase = ""
        self._lost = False
        self._told_untouched = False

    def to_the_end(self) -> RunStatus:
        """Print every change, and return the final status.

        Raises WatchEndedError: when the timeout is over, or the run cannot be read any more. Raises
        WatchInterruptedError: after Ctrl-C. The run continues in both cases.
        """
        try:
            return self._follow()
        except KeyboardInterrupt:
            raise WatchInterruptedError(
                f"no longer watching; {self._name} continues. See it with {self._argo('get')}, "
                f"stop it with {self._argo('stop')}"
            ) from None

    def _follow(self) -> RunStatus:
        pause = SHORTEST_PAUSE_S
        while True:
            status = self._read()
            if status is not None:
                changed = self._tell(status)
                if status.finished:
                    return status
                pause = SHORTEST_PAUSE_S if changed else min(pause * 1.5, LONGEST_PAUSE_S)
            self._wait(pause)

    def _read(self) -> RunStatus | None:
        """Read the current status. None: the API is temporarily unreachable."""
        try:
            workflow = self._source.workflow(self._name)
        except UnreachableError as error:
            if not self._lost:
                self._say(f"lost the connection, retrying ({error})")
            self._lost = True
            return None
        except NotThereError as error:
            raise WatchEndedError(f"{self._name} was deleted while it ran") from error
        except ClusterError as error:
            raise WatchEndedError(f"{self._name} can no longer be read; the run continues: {error}") from error
        if workflow["metadata"].get("uid") != self._uid:
            raise WatchEndedError(f"{self._name} was deleted, and another workflow has its name now")
        if self._lost:
            self._say("connected again")
        self._lost = False
        return read_status(workflow)

    def _tell(self, status: RunStatus) -> bool:
        """Print the changes. Return whether there were any."""
        changed = False
        for step in status.steps():
            if self._seen.get(step.key) != step:
                self._say(step.line())
                self._seen[step.key] = step
                changed = True
        if status.phase != self._phase:
            self._phase = status.phase
            changed = True
            if status.finished:
                self._say(f"{self._name}  {status.phase}")
        if not status.phase and not self._told_untouched and self._clock() - self._began > UNTOUCHED_AFTER_S:
            self._told_untouched = True
            self._say(
                f"no Argo controller has started {self._name} yet: check that Argo's controller runs and watches "
                f"the namespace {self._source.namespace}"
            )
        return changed

    def _wait(self, pause_s: float) -> None:
        if self._timeout_s is not None:
            left_s = self._timeout_s - (self._clock() - self._began)
            if left_s <= 0:
                raise WatchEndedError(
                    f"{self._timeout_s:g} s are over; {self._name} continues. See it with {self._argo('get')}"
                )
            pause_s = min(pause_s, left_s)
        self._sleep(pause_s)

    def _argo(self, verb: str) -> str:
        return f"`argo {verb} {self._name} -n {self._source.namespace}`"
