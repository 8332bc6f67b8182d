"""Workers are as many as the shared memory has room for, and fewer are said."""

import logging
from pathlib import Path

import pytest
import torch

from detr_job.data.batches import (
    EpochBatches,
    EvaluationSamples,
    TrainingSamples,
    evaluation_loader,
    shared_memory,
    training_loader,
)
from detr_job.data.shared_memory import Workers, fitting, free_bytes
from tests.detr_job.pictures import mixed_split, small_config

MIB = 1 << 20
CPU = torch.device("cpu")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Let /dev/shm have this many free bytes."""
    shared_memory._say_once.cache_clear()
    return lambda size: monkeypatch.setattr(shared_memory, "free_bytes", lambda _: size)


def batch_of_a_mib(wanted: Workers) -> Workers:
    """4 bytes for each of 491,520 / 2 pixels, and 64 KiB."""
    return fitting(wanted, 1, 480, 512, Path("anywhere"))


@pytest.mark.parametrize(
    ("mib", "got"),
    [
        (1000, Workers(8, 4)),
        (44, Workers(8, 4)),
        (43, Workers(8, 3)),
        (23, Workers(8, 2)),
        (22, Workers(7, 2)),
        (4, Workers(1, 2)),
        (3, Workers(0, 2)),
        (0, Workers(0, 2)),
    ],
)
def test_workers_and_what_they_prepare_ahead_fit(free, mib: int, got: Workers):
    free(mib * MIB)
    found = batch_of_a_mib(Workers(8, 4))
    assert found == got
    if found.count:
        assert (found.count * found.prefetch + 1) * MIB <= 0.75 * mib * MIB


def test_fewer_workers_are_said_once(free, caplog: pytest.LogCaptureFixture):
    free(10 * MIB)
    with caplog.at_level(logging.WARNING):
        assert batch_of_a_mib(Workers(8, 2)) == batch_of_a_mib(Workers(8, 2)) == Workers(3, 2)
    (record,) = caplog.records
    assert record.getMessage() == (
        "data.workers: 8 processes need 22.7 MiB of shared memory for their batches, anywhere has 10.0 MiB free: "
        "using 3. More: docker run --shm-size, on a cluster roles.train.sharedMemory"
    )


def test_nothing_is_said_where_all_fit_or_none_are_wanted(free, caplog: pytest.LogCaptureFixture):
    free(0)
    assert batch_of_a_mib(Workers(0, 4)) == Workers(0, 4)
    free(1000 * MIB)
    batch_of_a_mib(Workers(8, 4))
    assert not caplog.records


def test_a_place_that_is_missing_has_no_room(tmp_path: Path):
    assert free_bytes(tmp_path) > 0
    assert free_bytes(tmp_path / "missing") == 0


def test_both_loaders_start_no_more_workers_than_fit_also_when_they_were_asked_for(free, tmp_path: Path):
    split = mixed_split(tmp_path)
    data = small_config("tiny", **{"data.workers": 2, "data.cache": "false"}).data
    order = EpochBatches(split, 4, seed=1)

    def counts() -> list[int]:
        samples = TrainingSamples(split, data, seed=1), EvaluationSamples(split, data)
        return [training_loader(samples[0], order, CPU).num_workers, evaluation_loader(samples[1], 4, CPU).num_workers]

    free(100 * MIB)
    assert counts() == [2, 2]
    free(0)
    assert counts() == [0, 0]
    free(1 << 20)
    assert counts() == [1, 1]
