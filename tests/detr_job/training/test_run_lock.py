"""Two processes never train one run, and a dead one keeps nobody waiting for long."""

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from detr_job.training import run_lock
from detr_job.training.run_lock import LOCK, RunInUse, RunStillInUse, _Lease, locked
from object_store import ObjectStore, StoreUnavailable, open_store
from tests.detr_job.job_server import Gate
from tests.detr_job.training_runs import Run


def nothing(_: str) -> None:
    pass


def test_a_second_trainer_of_a_run_is_refused_and_the_first_goes_on(run: Run, gate: Gate):
    first = replace(run, environment=gate.environment).start()
    gate.pass_one(first)
    before = run.stored.get_bytes("run.json")
    second = replace(run, folder=run.folder / "second")
    second.folder.mkdir()
    assert f"another process trains {run.stored.url}: wait until it ends" in second.refused()
    assert run.stored.get_bytes("run.json") == before
    gate.stay_open()
    assert first.ends() == 0, first.says()
    gate.close()


def test_a_killed_trainer_keeps_no_lock(run: Run, gate: Gate):
    run = run.with_options({"schedule.steps": 3, "data.workers": 1})
    first = replace(run, environment=gate.environment).start()
    gate.pass_one(first)
    first.send(signal.SIGKILL)
    first.ends()
    gate.close()
    started_s = time.monotonic()
    assert "done: 3 steps" in run.ends().says()
    assert time.monotonic() - started_s < run_lock.DEAD_S


def test_a_folder_is_free_again_after_the_block(tmp_path: Path):
    store = open_store(tmp_path / "run")
    for _ in range(2):
        with locked(store, nothing):
            with pytest.raises(RunInUse) as error, locked(store, nothing):
                pass
            assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists(), "an empty folder of a run that never began is removed"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store that is locked as a bucket is, in a tenth of the time."""
    monkeypatch.setattr(run_lock, "local_path", lambda _: None)
    for name, seconds in {"RENEW_S": 0.05, "DEAD_S": 0.6, "POLL_S": 0.05}.items():
        monkeypatch.setattr(run_lock, name, seconds)
    return open_store(tmp_path / "bucket")


def test_in_a_bucket_a_living_trainer_is_found_by_its_signs_of_life(bucket: ObjectStore):
    said: list[str] = []
    with locked(bucket, nothing) as check:
        with pytest.raises(RunStillInUse, match="another process trains") as error, locked(bucket, said.append):
            pass
        check()
        assert error.value.exit_code == 75
    assert "waiting up to" in said[0]
    assert not bucket.exists(LOCK)


def test_in_a_bucket_the_lock_of_a_dead_trainer_is_removed(bucket: ObjectStore):
    bucket.put_bytes(LOCK, b'{"owner": "dead"}')
    with locked(bucket, nothing) as check:
        assert b"dead" not in bucket.get_bytes(LOCK)
        check()
    assert not bucket.exists(LOCK)


def test_in_a_bucket_a_trainer_that_ends_in_the_meantime_makes_room(bucket: ObjectStore):
    bucket.put_bytes(LOCK, b'{"owner": "ending"}')
    threading.Timer(0.1, bucket.delete, [LOCK]).start()
    started_s = time.monotonic()
    with locked(bucket, nothing):
        assert time.monotonic() - started_s < 0.5


def test_in_a_bucket_of_two_that_start_at_once_one_is_let_through(bucket: ObjectStore):
    first, second = _Lease(bucket), _Lease(bucket)
    second._read = lambda: None  # type: ignore[method-assign]  # it looked before the first one wrote
    first.take(nothing)
    with pytest.raises(RunStillInUse):
        second.take(nothing)
    first.close()


def test_a_trainer_that_was_taken_for_dead_stops(bucket: ObjectStore):
    with locked(bucket, nothing) as check:
        bucket.put_bytes(LOCK, b'{"owner": "another"}')
        time.sleep(0.5)
        with pytest.raises(RunStillInUse):
            check()
    assert bucket.get_bytes(LOCK) == b'{"owner": "another"}', "the lock of the other process stays"


def test_an_unreachable_bucket_does_not_end_the_lock(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    with locked(bucket, nothing) as check:
        with monkeypatch.context() as away:
            away.setattr(type(bucket), "put_bytes", lambda *_, **__: (_ for _ in ()).throw(StoreUnavailable("away")))
            time.sleep(0.3)
        check()
        before = bucket.get_bytes(LOCK)
        time.sleep(0.5)
        assert bucket.get_bytes(LOCK) != before
