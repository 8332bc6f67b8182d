"""Fixtures of the training job's tests: a prepared set in a store, and runs on it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from object_store import open_store
from tests.detr_job.job_server import Gate, JobServer
from tests.detr_job.training_runs import Run, make_set


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that is a store, and the id of the set in it."""
    folder = tmp_path_factory.mktemp("prepared")
    return folder / "store", make_set(folder, open_store(folder / "store"))


@pytest.fixture(scope="session")
def undisturbed(
    job_server: JobServer, prepared: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Run], Run]:
    """The same training as a run's, to its end and with nothing in its way; done once."""
    done: dict[str, Run] = {}

    def result(run: Run) -> Run:
        # How often it saves must not matter; that it does not is what the tests compare.
        options = {key: value for key, value in run.options.items() if not key.startswith("checkpoints.")}
        name = repr((run.model, sorted(options.items())))
        if name not in done:
            folder = tmp_path_factory.mktemp("undisturbed")
            store_url = _own_store(prepared, folder)
            reference = Run(job_server, folder, store_url, run.set_id, folder.name, run.model, options)
            reference.with_options({"checkpoints.interval": 1000}).ends()
            done[name] = reference
        return done[name]

    return result


@pytest.fixture
def run(job_server: JobServer, prepared: tuple[Path, str], tmp_path: Path) -> Run:
    """A small run of the tiny model in a store of its own, on the set that all tests share."""
    return Run(job_server, tmp_path, _own_store(prepared, tmp_path), prepared[1])


def _own_store(prepared: tuple[Path, str], folder: Path) -> str:
    """The address of a new store with the shared set in it."""
    store = folder / "store"
    shutil.copytree(prepared[0], store, copy_function=os.link)
    return f"file://{store}"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Holds a job at every line of its log."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()
