"""A checkpoint is whole or it is none, whatever broke and whenever the process died."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detr_job.errors import JobError
from detr_job.weights import checkpoint as checkpoints
from detr_job.weights.checkpoint import Checkpoint, TrainingProgress
from object_store import AccessDenied, ObjectStore, StoreUnavailable, open_store
from tests.detr_job.training_runs import Run, assert_same_result


def state(step: int, best_step: int = 0) -> Checkpoint:
    """A training state as small as can be, different for each step."""
    weight = torch.nn.Parameter(torch.full((3, 2), float(step)))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    progress = TrainingProgress(step=step, elapsed_s=step / 3, evaluated_step=step, best_step=best_step, best_ap=0.25)
    weights = {"weight": weight.detach()}
    return Checkpoint(progress, weights, weights, optimizer.state_dict())


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "run")


def whole_steps(store: ObjectStore) -> list[int]:
    """Those that can really be read."""
    found = []
    for step in checkpoints.steps(store)[0]:
        try:
            found.append(checkpoints.read(store, step).progress.step)
        except checkpoints.DamagedCheckpoint:
            continue
    return found


def test_what_was_written_is_read_to_the_bit(store: ObjectStore):
    written = state(7, best_step=5)
    checkpoints.write(store, written)
    read = checkpoints.read(store, 7)
    assert read.progress == written.progress
    assert torch.equal(read.model["weight"], written.model["weight"])
    assert read.ema is not None
    assert read.optimizer["param_groups"] == written.optimizer["param_groups"]
    moment = read.optimizer["state"][0]["exp_avg"]
    assert torch.equal(moment, written.optimizer["state"][0]["exp_avg"])


def test_a_state_without_average_comes_back_without(store: ObjectStore):
    full = state(1)
    checkpoints.write(store, Checkpoint(full.progress, full.model, None, full.optimizer))
    assert checkpoints.read(store, 1).ema is None


def test_the_same_state_gives_the_same_bytes():
    assert state(3).files() == state(3).files()


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(folder: Path) -> None:
    path = folder / "trainer.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def without_a_file(folder: Path) -> None:
    (folder / "ema.safetensors").unlink()


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def half_a_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:20])


def a_manifest_that_forgets_a_file(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["files"]["trainer.pt"]
    path.write_text(json.dumps(manifest))


def a_manifest_of_another_step(folder: Path) -> None:
    shutil.copy(folder.parent / "step-00000002" / "manifest.json", folder)


def an_empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"")


DAMAGES = [
    truncated,
    flipped,
    without_a_file,
    without_manifest,
    half_a_manifest,
    a_manifest_that_forgets_a_file,
    a_manifest_of_another_step,
    an_empty_manifest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(
    store: ObjectStore, tmp_path: Path, damage: Callable[[Path], None]
):
    for step in (2, 4):
        checkpoints.write(store, state(step))
    damage(tmp_path / "run" / "checkpoints" / "step-00000004")
    found, complaints = checkpoints.newest(store)
    assert found is not None
    assert found.progress.step == 2
    assert len(complaints) == 1
    assert "step-00000004" in complaints[0]
    assert "not used" in complaints[0]


def test_nothing_whole_means_from_the_start_and_says_why(store: ObjectStore, tmp_path: Path):
    checkpoints.write(store, state(2))
    flipped(tmp_path / "run" / "checkpoints" / "step-00000002")
    found, complaints = checkpoints.newest(store)
    assert found is None
    assert len(complaints) == 1


def test_a_leftover_older_than_the_newest_is_not_worth_a_sentence(store: ObjectStore, tmp_path: Path):
    for step in (2, 4):
        checkpoints.write(store, state(step))
    without_manifest(tmp_path / "run" / "checkpoints" / "step-00000002")
    assert checkpoints.newest(store)[1] == []


def test_a_checkpoint_of_a_later_format_is_refused_not_replaced(store: ObjectStore, tmp_path: Path):
    checkpoints.write(store, state(2))
    manifest = tmp_path / "run" / "checkpoints" / "step-00000002" / "manifest.json"
    manifest.write_text('{"format": 99, "other": "things"}')
    with pytest.raises(JobError, match=r"format 99.*use the version that wrote it") as error:
        checkpoints.newest(store)
    assert not isinstance(error.value, checkpoints.DamagedCheckpoint)


@pytest.mark.parametrize("fault", [AccessDenied, StoreUnavailable])
def test_a_store_that_refuses_is_no_damaged_checkpoint(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
):
    checkpoints.write(store, state(2))

    def refuse(*_: object, **__: object) -> bytes:
        raise fault("no")

    monkeypatch.setattr(store, "get_bytes", refuse)
    with pytest.raises(fault):
        checkpoints.newest(store)


def test_the_newest_and_the_best_are_kept(store: ObjectStore):
    for step in range(1, 8):
        best = 2 if step >= 2 else 0
        checkpoints.write(store, state(step, best))
        checkpoints.prune(store, state(step, best).progress, keep=2)
    assert whole_steps(store) == [2, 6, 7]
    assert {info.key.split("/")[1] for info in store.list("checkpoints")} == {
        "step-00000002",
        "step-00000006",
        "step-00000007",
    }


def test_the_best_may_be_among_the_newest(store: ObjectStore):
    for step in (1, 2, 3):
        checkpoints.write(store, state(step))
    checkpoints.prune(store, state(3, best_step=3).progress, keep=1)
    assert whole_steps(store) == [3]


def test_pruning_removes_what_a_killed_process_left_and_what_was_cut_off(store: ObjectStore, tmp_path: Path):
    for step in (2, 4, 9):
        checkpoints.write(store, state(step))
    without_manifest(tmp_path / "run" / "checkpoints" / "step-00000002")
    checkpoints.prune(store, state(4).progress, keep=3)
    assert [info.key for info in store.list("checkpoints") if "step-00000004" not in info.key] == []


class Killed(BaseException):
    """Where the process would have died."""


def dies_at(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, operation: int) -> None:
    """Let a store die at its n-th change, before it happens."""
    left = operation

    def counted(name: str) -> None:
        real = getattr(store, name)

        def change(*arguments: object, **named: object) -> object:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*arguments, **named)

        monkeypatch.setattr(store, name, change)

    for name in ("put_bytes", "delete", "delete_prefix"):
        counted(name)


def test_a_death_at_any_change_leaves_a_whole_checkpoint(tmp_path: Path):
    """As restic and sqlite do it: die at each write in turn, then look."""
    survived = 0
    for operation in range(100):
        store = open_store(tmp_path / str(operation))
        for step in (2, 4):
            checkpoints.write(store, state(step, best_step=2))
        with pytest.MonkeyPatch.context() as patch:
            dies_at(store, patch, operation)
            try:
                checkpoints.write(store, state(6, best_step=6))
                checkpoints.prune(store, state(6, best_step=6).progress, keep=1)
                survived += 1
            except Killed:
                pass
        complete, _ = checkpoints.steps(store)
        assert whole_steps(store) == complete, operation
        newest, _ = checkpoints.newest(store)
        assert newest is not None
        assert newest.progress.step == (6 if 6 in complete else 4), operation
        best = newest.progress.best_step
        assert checkpoints.read(store, best).progress.step == best, operation
        if survived:
            break
    assert operation > 6
    assert survived


def test_writing_again_what_is_there_leaves_it_whole_all_the_while(tmp_path: Path):
    """An upload is repeated after a fault of the store, also when only its last answer was lost."""
    for operation in range(5):
        store = open_store(tmp_path / str(operation))
        checkpoints.write(store, state(6))
        with pytest.MonkeyPatch.context() as patch:
            dies_at(store, patch, operation)
            with contextlib.suppress(Killed):
                checkpoints.write(store, state(6))
        assert whole_steps(store) == [6]


def test_a_run_goes_on_from_the_older_checkpoint_when_the_newest_is_damaged(
    run: Run, undisturbed: Callable[[Run], Run]
):
    run = run.with_options({"schedule.steps": 8, "evaluation.interval": 4, "checkpoints.keep": 3})
    run.ends()
    newest, older = (run.checkpoints / f"step-{step:08d}" for step in (8, 6))
    flipped(newest)
    without_manifest(older)
    says = run.ends().says()
    assert re.search(
        r"warning: .*step-00000008/trainer\.pt is damaged: its content is not what was written; it is not used", says
    )
    assert re.search(r"warning: .*step-00000006 was never completed and is not used", says)
    assert "resuming at step 4 " in says
    assert_same_result(run, undisturbed(run))
    assert run.complete_steps() == [4, 6, 8]


def test_a_lost_best_checkpoint_is_said_and_the_best_of_the_rest_is_taken(run: Run):
    first_is_best = {"evaluation.min_delta": 1.0, "evaluation.interval": 2}
    run = run.with_options(first_is_best | {"schedule.steps": 6, "checkpoints.keep": 1})
    run.ends()
    assert run.complete_steps() == [2, 6]
    shutil.rmtree(run.checkpoints / "step-00000002")
    says = run.ends().says()
    assert "warning: the best weights are damaged" in says
    assert "training is complete" in says
