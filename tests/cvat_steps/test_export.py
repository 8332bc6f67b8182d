"""The step `export` in one process: what lies in the store in the end, whatever CVAT does meanwhile."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cvat_client.api import BackgroundRequest, CvatApi
from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError, CvatUnavailableError, GrantError
from cvat_client.settings import load_settings
from cvat_steps import export_command
from cvat_steps.export_command import export
from object_store import NoSuchKey
from run_config.errors import ConfigError
from tests.cvat_double.exports import Export
from tests.cvat_double.world import CloudStorage, Task
from tests.cvat_steps.export_step import FAST, KEY, Step, either, step, task, until

__all__ = ["either", "step", "task"]


@pytest.fixture(autouse=True)
def nothing_stays_in_scratch(step: Step) -> Iterator[None]:
    yield
    assert list((step.folder / "scratch").iterdir()) == []


def while_it_runs(action: Callable[[], object], after_s: float = 0.15) -> threading.Timer:
    timer = threading.Timer(after_s, action)
    timer.start()
    return timer


def test_a_tasks_export_is_in_the_store_and_the_next_step_is_told(either: Step, task: Task) -> None:
    [url] = either.run(f"task:{task.id}")

    assert url == f"{either.store_url}/{either.key(task)}"
    assert {"annotations/instances_default.json", f"images/default/{task.frames[0].name}"} <= either.files(task)
    assert Path(either.environment["OUT"], "outputs", "dataset").read_text() == url
    assert Path(either.environment["OUT"], "outputs", "pods").read_text() == "1"
    info, mark = either.store.head(either.key(task)), either.mark(task)
    assert (mark["size_bytes"], mark["etag"], mark["format"]) == (info.size_bytes, info.etag, "COCO 1.0")
    assert mark["rq_id"].startswith(f"action=export&target=task&target_id={task.id}&")
    assert (mark["user"], mark["subject"]) == ("ann", f"task:{task.id}")


def test_a_stores_prefix_is_part_of_the_key_whatever_it_holds(step: Step, task: Task) -> None:
    step.store_url = f"{step.store_url}/a b#c?d%20e"
    assert step.run(f"task:{task.id}") == [f"{step.store_url}/{step.key(task)}"]


def test_several_tasks_are_several_objects(either: Step, task: Task) -> None:
    other = either.cvat.add_drawn_task("Parts 2", images=1, seed=1)
    urls = either.run(f"task:{task.id},task:{other.id}")
    assert urls == [f"{either.store_url}/{either.key(one)}" for one in (task, other)]
    assert f"images/default/{other.frames[0].name}" in either.files(other)


def test_a_project_is_one_object(either: Step) -> None:
    project = either.cvat.add_project("Parts")
    for seed in range(2):
        either.cvat.add_drawn_task(f"Parts {seed}", images=1, seed=seed, project=project, subset=f"part{seed}")
    [url] = either.run(f"project:{project.id}")
    assert url.endswith(f"/cvat-exports/project-{project.id}/cvat-train-abc/dataset.zip")


def test_a_store_that_is_a_folder_takes_exports_too(step: Step, task: Task) -> None:
    step.store_url = f"file://{step.folder}/a store"
    [url] = step.run(f"task:{task.id}")
    assert url.endswith(f"/cvat-exports/task-{task.id}/cvat-train-abc/dataset.zip")
    assert len(step.files(task)) > 3


def test_a_second_attempt_does_nothing_twice(either: Step, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    first = either.run(f"task:{task.id}")
    asked = len(either.cvat.seen)
    assert either.run(f"task:{task.id}") == first
    assert len(either.cvat.seen) == asked
    assert "exists already" in capsys.readouterr().err


def test_a_zip_without_its_mark_is_taken_over_when_it_is_whole(either: Step, task: Task) -> None:
    either.run(f"task:{task.id}")
    either.store.delete(either.key(task, name="dataset.json"))
    either.run(f"task:{task.id}")
    assert len(either.asked()) == 1
    assert either.mark(task)["rq_id"] == ""


@pytest.mark.parametrize("what", ["another zip", "no zip", "no mark that can be read", "a key twice"])
def test_a_zip_that_was_replaced_is_exported_again(either: Step, task: Task, what: str) -> None:
    either.run(f"task:{task.id}")
    other = either.cvat.add_drawn_task("Parts 2", images=1)
    either.run(f"task:{other.id}")
    whole = either.store.get_bytes(either.key(other))
    match what:
        case "another zip":
            either.store.put_bytes(either.key(task), whole)
        case "no zip":
            either.store.put_bytes(either.key(task), b"something else")
        case "a key twice":
            mark = either.store.get_bytes(either.key(task, name="dataset.json"))
            twice = mark.replace(b"{", b'{"format": "another",', 1)
            either.store.put_bytes(either.key(task, name="dataset.json"), twice)
        case _:
            either.store.put_bytes(either.key(task, name="dataset.json"), b"\xff{")
    either.run(f"task:{task.id}")
    assert len(either.asked()) == 3
    assert f"images/default/{task.frames[1].name}" in either.files(task)


def test_an_export_that_lost_its_end_is_asked_for_again(step: Step, task: Task) -> None:
    step.cvat.faults.export_truncated = 2
    step.run(f"task:{task.id}")
    assert len(step.asked()) == 3
    assert len(step.files(task)) > 3


def test_an_export_that_never_gets_whole_is_a_sentence(step: Step, task: Task) -> None:
    step.cvat.faults.export_truncated = 99
    with pytest.raises(
        CvatRefusedError, match=r"finished the export of task \d+ 5 times, but the object .* not a complete zip"
    ):
        step.run(f"task:{task.id}")
    assert not step.store.exists(step.key(task, name="dataset.json"))


def test_an_export_that_goes_elsewhere_is_a_sentence(
    step: Step, task: Task, cvat_bucket: CloudStorage, s3_client
) -> None:
    """The bucket's name is right, and CVAT's endpoint is another server, on which it is as well."""
    s3_client.create_bucket(Bucket=f"{cvat_bucket.bucket}-other")
    start = step.cvat.exports.start

    def start_elsewhere(one: Export) -> bool:
        one.storage = replace(cvat_bucket, bucket=f"{cvat_bucket.bucket}-other")
        return start(one)

    step.cvat.exports.start = start_elsewhere  # type: ignore[method-assign]
    with pytest.raises(CvatRefusedError, match="there is no object at its key"):
        step.run(f"task:{task.id}")


def test_a_storage_that_is_another_bucket_is_found_before_anything_is_exported(step: Step, task: Task) -> None:
    other = step.cvat.add_cloud_storage("pictures", endpoint="http://127.0.0.1:9", access_key="a", secret_key="s")
    step.settings(cloudStorageId=other.id)
    with pytest.raises(BridgeError, match=r"cloud storage \d+ is 'pictures' .* set cvat\.cloudStorageId"):
        step.run(f"task:{task.id}")
    assert step.cvat.exports.asked == []


def test_another_runs_export_is_waited_for_and_not_taken_for_ours(either: Step, task: Task) -> None:
    either.cvat.faults.export_takes_s = 0.3
    results: dict[str, object] = {}

    def run(name: str) -> None:
        results[name] = either.run(f"task:{task.id}", name)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("run-a", "run-b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert {name: len(urls) for name, urls in results.items()} == {"run-a": 1, "run-b": 1}
    for name in results:
        assert len(either.files(task, name)) > 3
    assert len(either.asked()) >= 2


def test_two_attempts_of_one_run_at_once_export_once(step: Step, task: Task) -> None:
    """As after a node that went away and came back."""
    step.cvat.faults.export_takes_s = 0.3
    other = threading.Thread(target=step.run, args=(f"task:{task.id}",))
    other.start()
    until(lambda: bool(step.cvat.exports.asked))
    step.run(f"task:{task.id}")
    other.join(60)
    assert len(step.asked()) == 1
    assert len(step.files(task)) > 3


def test_a_bucket_that_cvats_proxy_refuses_is_explained(step: Step, task: Task) -> None:
    step.cvat.faults.export_fails = "cvat.NotFound: The resource parts not found. It may have been deleted."
    with pytest.raises(CvatRefusedError, match="The resource parts not found") as raised:
        step.run(f"task:{task.id}")
    assert "smokescreen" in str(raised.value)
    assert "SMOKESCREEN_OPTS" in str(raised.value)


def test_the_same_words_about_a_local_export_are_not_taken_for_the_proxy(step: Step, task: Task) -> None:
    step.settings()
    step.cvat.faults.export_fails = "cvat.NotFound: The resource parts not found. It may have been deleted."
    with pytest.raises(CvatRefusedError) as raised:
        step.run(f"task:{task.id}")
    assert "smokescreen" not in str(raised.value)


def test_a_failed_export_says_what_cvat_said(either: Step, task: Task) -> None:
    either.cvat.faults.export_fails = "cvat.apps.engine.NoSpace: the disk\nis <b>full</b>"
    with pytest.raises(CvatRefusedError, match=r"as 'COCO 1.0': cvat\.apps\.engine\.NoSpace: the disk is <b>full</b>$"):
        either.run(f"task:{task.id}")
    assert len(either.asked()) == 1


def test_anothers_failed_export_is_not_ours(step: Step, task: Task) -> None:
    step.cvat.faults.export_hangs = True
    step.cvat.faults.export_fails, step.cvat.faults.export_failures = "no", 1

    def run_of_another() -> None:
        # It fails, or finds our export under the id of its own and asks again.
        with contextlib.suppress(CvatRefusedError):
            step.run(f"task:{task.id}", "run-b")

    other = threading.Thread(target=run_of_another)
    other.start()
    until(lambda: bool(step.cvat.exports.asked))
    going_on = while_it_runs(lambda: step.cvat.faults.set("export_hangs", False))
    step.run(f"task:{task.id}")
    going_on.join()
    other.join(60)
    assert len(step.files(task)) > 3


def test_another_runs_failure_under_the_same_id_is_not_ours(step: Step, task: Task) -> None:
    """Ours had ended and was in the bucket when another run asked for the same and failed, between two looks."""
    request = CvatApi.request

    def look(api: CvatApi, rq_id: str) -> BackgroundRequest | None:
        seen = request(api, rq_id)
        return replace(seen, status="failed", message="not yours") if seen and seen.status == "finished" else seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CvatApi, "request", look)
        step.run(f"task:{task.id}")
    assert len(step.files(task)) > 3


def test_an_export_in_the_bucket_is_enough_when_cvat_forgets_its_request(step: Step, task: Task) -> None:
    step.cvat.faults.export_forgotten, step.cvat.faults.export_takes_s = 1, 0.1
    step.run(f"task:{task.id}")
    assert len(step.asked()) == 1


def test_an_export_whose_file_cvat_keeps_no_longer_is_asked_for_again(step: Step, task: Task) -> None:
    step.settings()
    step.cvat.faults.export_forgotten, step.cvat.faults.export_takes_s = 1, 0.1
    step.run(f"task:{task.id}")
    assert len(step.asked()) == 2


@pytest.mark.parametrize("how", ["closed", "502"])
def test_cvat_may_be_away_while_it_exports(
    either: Step, task: Task, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    either.cvat.faults.export_hangs = True

    def leave() -> None:
        until(lambda: either.cvat.exports.by_id)
        either.cvat.away_for(0.4, how=how)
        time.sleep(0.8)
        either.cvat.faults.export_hangs = False

    leaving = while_it_runs(leave)
    either.run(f"task:{task.id}")
    leaving.join()
    assert len(either.files(task)) > 3
    assert "asking again for up to 1800 s" in capsys.readouterr().err


def test_cvat_may_be_away_when_the_step_begins_and_break_off_downloads(step: Step, task: Task) -> None:
    step.settings()
    step.cvat.faults.cut_downloads = 3
    step.cvat.faults.errors = 2
    step.cvat.away_for(0.3)
    step.run(f"task:{task.id}")
    assert len(step.files(task)) > 3


def test_cvat_that_stays_away_is_a_passing_fault(step: Step, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    step.cvat.stop()
    set_exports(monkeypatch, save_for_s=0.2)
    with pytest.raises(CvatUnavailableError, match=r"does not answer .* the step ends and is retried") as caught:
        step.run(f"task:{task.id}")
    assert caught.value.exit_code == 75


def test_an_export_that_never_ends_is_a_sentence(either: Step, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    either.cvat.faults.export_hangs = True
    set_exports(monkeypatch, longest_s=1.0)
    with pytest.raises(BridgeError, match=rf"not finished the export of task {task.id} within .* h: look at") as caught:
        either.run(f"task:{task.id}")
    assert caught.value.exit_code == 2


def set_exports(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Shorter than settings may say."""

    def impatient(environment):
        settings = load_settings(environment)
        return settings.model_copy(update={"exports": settings.exports.model_copy(update=seconds)})

    monkeypatch.setattr(export_command, "load_settings", impatient)


def test_a_revoked_token_ends_the_step_at_once(either: Step, task: Task) -> None:
    either.cvat.faults.export_hangs = True
    revoking = while_it_runs(lambda: either.cvat.revoke(either.cvat.service))
    with pytest.raises(CvatTokenError, match="access token: it is wrong, has expired or was revoked"):
        either.run(f"task:{task.id}")
    revoking.join()


def test_a_task_that_is_gone_or_a_format_that_is_none_is_a_sentence(either: Step, task: Task) -> None:
    with pytest.raises(CvatRefusedError, match="CVAT has no tasks/4242/dataset/export"):
        either.run("task:4242")
    with pytest.raises(CvatRefusedError, match="Unknown format specified for the request"):
        either.run(f"task:{task.id}", format="CVAT TFRecord 1.0")


def test_without_a_signature_nothing_is_asked(step: Step, task: Task) -> None:
    order = step.order(f"task:{task.id}")
    other = step.cvat.add_blank_task("Parts 2")
    for wrong, words in [
        (replace(order, grant=""), "missing"),
        (replace(order, subject=f"task:{other.id}"), "is for"),
        (replace(order, grant=order.grant[:-4] + "AAAA"), "was not signed by this installation"),
    ]:
        with pytest.raises(GrantError, match=words):
            export(wrong, step.environment, FAST)
    assert step.cvat.seen == []


@pytest.mark.parametrize("run", ["../other", "a/b", "", "Run 1", "a..b"])
def test_a_runs_name_that_is_none_is_refused(step: Step, task: Task, run: str) -> None:
    with pytest.raises(BridgeError, match="--run must be a workflow's name"):
        step.run(f"task:{task.id}", run)


def test_the_installation_decides_where_exports_go(
    step: Step, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps({"store": step.store_url, "writable": ["workflow-data/output"]}))
    monkeypatch.setenv("DETR_WORKFLOWS_SETTINGS", str(settings))

    assert len(step.run(f"task:{task.id}")) == 1  # the bridge's own prefix, which nobody can choose
    with pytest.raises(ConfigError, match="--into: 'elsewhere' may not be written here"):
        step.run(f"task:{task.id}", into="elsewhere")
    assert step.run(f"task:{task.id}", into="workflow-data/output/in")[0].endswith("/workflow-data/output/in")
    assert step.run(f"task:{task.id}", into=f"cvat-exports/task-{task.id}/cvat-train-abc/dataset")
    step.store_url = f"{step.store_url}-other"
    with pytest.raises(ConfigError, match="store must be"):
        step.run(f"task:{task.id}")


def test_progress_reaches_argo(step: Step, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    other = step.cvat.add_drawn_task("Parts 2", images=1)
    step.run(f"task:{task.id},task:{other.id}")
    assert (tmp_path / "progress").read_text() == "200/200\n"


def test_no_secret_is_said(either: Step, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    either.cvat.faults.errors = 1
    order = either.order(f"task:{task.id}")
    export(order, either.environment, FAST)
    said = "".join(capsys.readouterr())
    for secret in (either.cvat.service.token, KEY, order.grant):
        assert secret not in said


def test_nothing_is_at_a_key_before_it_is_whole(step: Step, task: Task) -> None:
    """The next step starts when this one has ended, but people look into buckets."""
    step.settings()
    step.cvat.faults.cut_downloads = 99
    step.cvat.faults.export_takes_s = 0.1
    giving_up = while_it_runs(lambda: step.cvat.revoke(step.cvat.service), 0.5)
    with pytest.raises(CvatTokenError):
        step.run(f"task:{task.id}")
    giving_up.join()
    with pytest.raises(NoSuchKey):
        step.store.head(step.key(task))
