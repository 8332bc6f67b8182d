"""Uploads never hold up or end training; only `finish` insists."""

import logging
import threading

import pytest

from detr_job.errors import JobError, StoreLeftBehind, StoreRefused
from detr_job.training import uploads as module
from detr_job.training.uploads import Uploads, store_patience_s
from object_store import AccessDenied, StoreUnavailable

PATIENCE_S = 30.0


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    uploads = Uploads()
    yield uploads
    uploads.close()


class Held:
    """A job that tells when it runs and waits until it may end."""

    def __init__(self) -> None:
        self.runs, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.runs.set()
        assert self.may_end.wait(PATIENCE_S)


class Failing:
    """A job whose store is away for some times."""

    def __init__(self, times: int) -> None:
        self.left, self.done = times, threading.Event()

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise StoreUnavailable("nobody there")
        self.done.set()


def test_put_does_not_wait(uploads: Uploads):
    held = Held()
    uploads.put("checkpoint", held)
    assert held.runs.wait(PATIENCE_S)
    uploads.put("metrics", lambda: None)
    assert uploads.waiting("checkpoint")
    assert uploads.waiting("metrics")
    held.may_end.set()
    uploads.finish(PATIENCE_S)
    assert not uploads.waiting("checkpoint")
    assert not uploads.waiting("metrics")


def test_jobs_run_in_the_order_they_came(uploads: Uploads):
    held, order = Held(), []
    uploads.put("first", held)
    for name in "cab":
        uploads.put(name, lambda name=name: order.append(name))
    held.may_end.set()
    uploads.finish(PATIENCE_S)
    assert order == ["c", "a", "b"]


def test_a_newer_job_replaces_one_that_waits_but_not_one_that_runs(uploads: Uploads):
    held, done = Held(), []
    uploads.put("checkpoint", held)
    assert held.runs.wait(PATIENCE_S)
    for step in (1, 2, 3):
        uploads.put("checkpoint", lambda step=step: done.append(step))
    held.may_end.set()
    uploads.finish(PATIENCE_S)
    assert done == [3]


def test_a_job_is_repeated_until_the_store_is_back(uploads: Uploads, caplog: pytest.LogCaptureFixture):
    failing = Failing(3)
    with caplog.at_level(logging.WARNING):
        uploads.put("checkpoint", failing)
        assert failing.done.wait(PATIENCE_S)
        uploads.finish(PATIENCE_S)
    assert [record.message for record in caplog.records] == [
        *["the store is unreachable; training continues and the upload is retried: nobody there"] * 3,
        "the store is reachable again",
    ]


def test_a_job_that_failed_does_not_overwrite_its_successor(uploads: Uploads):
    held, done = Held(), []

    def fails() -> None:
        held()
        raise StoreUnavailable("nobody there")

    uploads.put("checkpoint", fails)
    assert held.runs.wait(PATIENCE_S)
    uploads.put("checkpoint", lambda: done.append("newer"))
    held.may_end.set()
    uploads.finish(PATIENCE_S)
    assert done == ["newer"]


def test_finish_gives_up_after_its_time_with_the_reason(uploads: Uploads):
    failing = Failing(10**9)
    uploads.put("checkpoint", failing)
    with pytest.raises(StoreLeftBehind, match=r"within 0 s.*nobody there") as error:
        uploads.finish(0.3)
    assert error.value.exit_code == 75


def test_finish_does_not_sit_through_a_long_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 3600.0)
    uploads, failing = Uploads(), Failing(30)
    uploads.put("checkpoint", failing)
    uploads.finish(PATIENCE_S)  # with doubling pauses, 30 failures would take years
    assert failing.done.is_set()
    uploads.close()


def test_a_bug_in_a_job_surfaces_in_training_and_at_the_end(uploads: Uploads):
    def broken() -> None:
        raise KeyError("our bug")

    uploads.put("checkpoint", broken)
    with pytest.raises(KeyError, match="our bug"):
        uploads.finish(PATIENCE_S)
    with pytest.raises(KeyError, match="our bug"):
        uploads.put("metrics", lambda: None)
    with pytest.raises(KeyError, match="our bug"):
        uploads.finish(PATIENCE_S)


class Refused:
    """A job that the store refuses until somebody has mended it."""

    def __init__(self) -> None:
        self.tries, self.mended = 0, False

    def __call__(self) -> None:
        self.tries += 1
        if not self.mended:
            raise AccessDenied("no right to write: check the credentials")


def test_what_the_store_refuses_is_not_repeated_and_ends_with_2(uploads: Uploads):
    refused = Refused()
    uploads.put("checkpoint", refused)
    with pytest.raises(StoreRefused, match="no right to write: check the credentials") as error:
        uploads.finish(PATIENCE_S)
    assert error.value.exit_code == 2
    assert 1 <= refused.tries <= 2
    assert uploads.waiting("checkpoint")


def test_what_was_refused_is_tried_again_with_the_next_upload(uploads: Uploads):
    refused, done = Refused(), threading.Event()
    uploads.put("checkpoint", refused)
    uploads.put("metrics", done.set)
    assert done.wait(PATIENCE_S)
    refused.mended = True
    done.clear()
    uploads.put("metrics", done.set)
    uploads.finish(PATIENCE_S)
    assert not uploads.waiting("checkpoint")


def test_finish_with_nothing_to_do_returns(uploads: Uploads):
    uploads.finish(0.0)


def test_close_drops_what_waits_and_ends_the_thread(uploads: Uploads):
    held, done = Held(), []
    uploads.put("checkpoint", held)
    assert held.runs.wait(PATIENCE_S)
    uploads.put("checkpoint", lambda: done.append("never"))
    held.may_end.set()
    uploads.close()
    uploads._thread.join(PATIENCE_S)
    assert not uploads._thread.is_alive()
    assert done == []


def test_patience_can_be_shortened_from_outside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DETR_JOB_STORE_PATIENCE_S", raising=False)
    assert store_patience_s(60) == 60
    monkeypatch.setenv("DETR_JOB_STORE_PATIENCE_S", "2.5")
    assert store_patience_s(60) == 2.5
    assert store_patience_s(1) == 1
    monkeypatch.setenv("DETR_JOB_STORE_PATIENCE_S", "soon")
    with pytest.raises(JobError, match="DETR_JOB_STORE_PATIENCE_S must be a number of seconds, not 'soon'"):
        store_patience_s(60)
