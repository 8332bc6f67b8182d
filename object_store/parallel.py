"""Run many small tasks in a few threads, with bounded memory and a single error.

A task may return further tasks (the ranges of a large object, once its size is known). They run before new tasks are
taken from the source, so that few objects are unfinished at any time. The source is read lazily: there are never a
million tasks in memory.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

Task = Callable[[], "Iterable[Task]"]


def run_all(tasks: Iterable[Task], workers: int) -> None:
    """Run all tasks and the tasks that they return. The first error stops the rest and is raised here."""
    crew = _Crew(iter(tasks))
    threads = [threading.Thread(target=crew.work, name="object-store", daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        # After Ctrl-C, running tasks finish their current request, so that no file is left half written.
        crew.stop()
        for thread in threads:
            thread.join()
        raise
    if crew.error is not None:
        raise crew.error


class _Crew:
    """The state that the threads of one `run_all` share."""

    def __init__(self, source: Iterator[Task]) -> None:
        self._source = source
        self._follow_ups: deque[Task] = deque()
        self._running = 0
        self._exhausted = False
        self._stopped = False
        self._changed = threading.Condition()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Start no further tasks."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def work(self) -> None:
        """Run tasks until none are left, or until one has failed."""
        while (task := self._take()) is not None:
            try:
                follow_ups = tuple(task())
            except BaseException as error:  # noqa: BLE001 raised again in the calling thread
                self._finished((), error)
            else:
                self._finished(follow_ups, None)

    def _take(self) -> Task | None:
        with self._changed:
            while not self._stopped:
                if self._follow_ups:
                    self._running += 1
                    return self._follow_ups.popleft()
                if not self._exhausted:
                    try:
                        task = next(self._source)
                    except StopIteration:
                        self._exhausted = True
                    except BaseException as error:  # noqa: BLE001 raised again in the calling thread
                        self._fail(error)
                    else:
                        self._running += 1
                        return task
                elif self._running == 0:
                    return None
                else:
                    self._changed.wait()  # a running task may still return further tasks
            return None

    def _finished(self, follow_ups: tuple[Task, ...], error: BaseException | None) -> None:
        with self._changed:
            self._running -= 1
            self._follow_ups.extend(follow_ups)
            if error is not None:
                self._fail(error)
            if follow_ups or self._running == 0:
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """Store the first error and stop. The caller holds the lock."""
        self.error = self.error or error
        self._stopped = True
        self._changed.notify_all()
