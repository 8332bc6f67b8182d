"""A store that goes away does not stop training: uploads catch up, and only the end insists."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from object_store import open_store
from tests.detr_job.job_server import Gate
from tests.detr_job.store_outage import Relay
from tests.detr_job.training_runs import Run, assert_same_result
from tests.object_store.conftest import start_s3_server

SHORT = {"schedule.steps": 8, "evaluation.interval": 4}


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    for url in start_s3_server():
        yield urlsplit(url).port


@pytest.fixture
def relay(s3_port: int) -> Iterator[Relay]:
    relay = Relay(s3_port)
    yield relay
    relay.down()


@pytest.fixture
def s3_run(run: Run, relay: Relay, prepared: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose store is a bucket behind the relay; its set is copied there."""
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{relay.port}"
    store = open_store(f"s3://{bucket}", retry_for_s=5)
    store._connection.client.create_bucket(Bucket=bucket)
    store.put_folder(prepared[0] / "datasets", "datasets")
    return replace(run.with_options(SHORT), store_url=f"s3://{bucket}", environment=environment)


def manifests(run: Run) -> list[str]:
    return [info.key for info in run.stored.list("checkpoints") if info.key.endswith("manifest.json")]


def test_training_goes_on_without_its_store_and_uploads_catch_up(
    s3_run: Run, relay: Relay, gate: Gate, undisturbed: Callable[[Run], Run]
):
    """The best checkpoint (the first that is evaluated) is replaced by a newer one while it waits, and not lost."""
    run = s3_run.with_options({"evaluation.min_delta": 1.0})
    job = replace(run, environment={**run.environment, **gate.environment}).start()
    for _ in range(3):
        gate.pass_one(job)
    relay.down()
    for _ in range(5):
        gate.pass_one(job)
    assert "step 4: val AP" in job.says()
    assert "step 7/8" in job.says()
    relay.up()
    assert manifests(run) == []
    gate.stay_open()
    assert job.ends() == 0, job.says()
    gate.close()
    assert [key.split("/")[1] for key in manifests(run)][-1] == "step-00000008"
    assert "checkpoints/step-00000004/manifest.json" in manifests(run)
    run.ends()  # from the store alone, the best weights with it
    assert_same_result(run, undisturbed(run))


def test_a_store_that_stays_away_is_said_at_the_end_with_75(s3_run: Run, relay: Relay, gate: Gate):
    impatient = {"DETR_JOB_STORE_PATIENCE_S": "1"}
    run = replace(s3_run, environment={**s3_run.environment, **gate.environment, **impatient}, to_the_end=True)
    job = run.start()
    for _ in range(2):
        gate.pass_one(job)
    relay.down()
    gate.stay_open()
    assert job.ends() == 75, job.says()
    assert "the store did not accept the last uploads within 1 s; start the run again to resume" in job.says()
    assert "Traceback" not in job.says()
    assert (run.out / "model" / "model.safetensors").exists()
    relay.up()
    gate.close()
    replace(s3_run, environment=s3_run.environment).ends()


def test_a_store_that_hangs_does_not_hold_up_a_second_ctrl_c(s3_run: Run, relay: Relay, gate: Gate):
    run = replace(s3_run, environment={**s3_run.environment, **gate.environment})
    job = run.start()
    for _ in range(2):
        gate.pass_one(job)
    relay.down()
    job.send(signal.SIGINT)
    gate.stay_open()
    job.reaches_line("SIGINT: saving step")
    job.send(signal.SIGINT)
    assert job.ends() == 130, job.says()
