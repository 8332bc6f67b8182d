"""Running many tasks: all of them, few at a time, lazily, and one error."""

import threading
from collections.abc import Iterator

import pytest

from object_store.parallel import Task, run_all


def test_all_tasks_and_their_follow_ups_run():
    done: list[str] = []
    lock = threading.Lock()

    def task(name: str, depth: int) -> Task:
        def run() -> list[Task]:
            with lock:
                done.append(name)
            return [task(f"{name}.{child}", depth - 1) for child in range(3)] if depth else []

        return run

    run_all((task(f"{number}", 2) for number in range(5)), 4)
    assert len(done) == len(set(done)) == 5 * (1 + 3 + 9)


@pytest.mark.parametrize("workers", [1, 8])
def test_no_tasks_is_no_work(workers: int):
    run_all([], workers)


def test_no_more_run_at_once_than_there_are_workers():
    running = 0
    most = 0
    lock = threading.Lock()
    three_are_here = threading.Barrier(3)

    def run() -> list[Task]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        three_are_here.wait(timeout=10)  # so three do run at once
        with lock:
            running -= 1
        return []

    run_all([run] * 30, 3)
    assert most == 3


def test_the_source_is_read_as_work_gets_done():
    taken = 0
    finished = 0
    furthest = 0

    def source() -> Iterator[Task]:
        nonlocal taken, furthest
        for _ in range(500):
            taken += 1
            furthest = max(furthest, taken - finished)
            yield run

    lock = threading.Lock()

    def run() -> list[Task]:
        nonlocal finished
        with lock:
            finished += 1
        return []

    run_all(source(), 4)
    assert finished == 500
    assert furthest <= 5


def test_the_first_error_stops_the_rest():
    started = 0

    def run() -> list[Task]:
        nonlocal started
        started += 1
        if started == 3:
            raise ValueError("three")
        return []

    with pytest.raises(ValueError, match="three"):
        run_all([run] * 100, 1)
    assert started == 3


def test_an_error_of_the_source_is_raised():
    def source() -> Iterator[Task]:
        yield list
        raise ValueError("listing failed")

    with pytest.raises(ValueError, match="listing failed"):
        run_all(source(), 4)
