"""`cvat-bridge export` as a process: exit codes and last lines, and being killed between any two things it does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cvat_double.world import Task
from tests.cvat_steps.export_step import Step, either, step, task, until

__all__ = ["either", "step", "task"]


PROGRAM = "from cvat_bridge.cli import main; main()"


def start(step: Step, subject: str, *more: str, grant: str | None = None) -> subprocess.Popen[str]:
    """The step as its container starts it."""
    order = step.order(subject)
    command = [
        *(sys.executable, "-c", PROGRAM, "export", f"--store={step.store_url}", f"--subject={subject}"),
        *(f"--grant={order.grant if grant is None else grant}", f"--run={order.run}", *more),
    ]
    scratch = {"TMPDIR": str(step.folder / "scratch")}
    environment = {**os.environ, **step.environment, **scratch}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def run(step: Step, subject: str, *more: str, grant: str | None = None) -> tuple[int, str, str]:
    with start(step, subject, *more, grant=grant) as process:
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


def test_the_urls_are_printed_and_the_exit_code_is_0(either: Step, task: Task) -> None:
    code, out, err = run(either, f"task:{task.id}")
    assert (code, out) == (0, f"{either.store_url}/{either.key(task)}\n"), err
    assert f"task {task.id}: exported" in err
    assert len(either.files(task)) > 3


def test_killed_while_cvat_exports_it_joins_that_export(step: Step, task: Task) -> None:
    step.cvat.faults.export_hangs = True
    with start(step, f"task:{task.id}") as first:
        until(lambda: bool(step.cvat.exports.asked))
        first.kill()
    with start(step, f"task:{task.id}") as second:
        until(lambda: sum(one.method == "POST" for one in step.cvat.seen) == 2)
        step.cvat.faults.export_hangs = False
        _, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert len(step.asked()) == 1
    assert len(step.files(task)) > 3


def test_killed_while_it_downloads_it_begins_again(step: Step, task: Task) -> None:
    step.settings()
    step.cvat.faults.download_pause_s = 3.0
    with start(step, f"task:{task.id}") as first:
        until(lambda: any("/download" in one.path for one in step.cvat.seen))
        first.kill()
    assert not step.store.exists(step.key(task))
    step.cvat.faults.download_pause_s = 0.0
    code, _, err = run(step, f"task:{task.id}")
    assert code == 0, err
    assert len(step.files(task)) > 3


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGTERM, 143, "error: stopped by SIGTERM; run the same command again to resume"),
        (signal.SIGINT, 130, "error: interrupted; run the same command again to resume"),
    ],
)
def test_told_to_stop_it_leaves_nothing_half(
    step: Step, task: Task, number: signal.Signals, code: int, words: str
) -> None:
    step.settings()
    step.cvat.faults.download_pause_s = 3.0
    with start(step, f"task:{task.id}") as process:
        until(lambda: any((step.folder / "scratch").glob("cvat-export-*/dataset.zip")))
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (code, words)
    assert list((step.folder / "scratch").iterdir()) == []
    assert list(step.store.list()) == []


def test_mistakes_are_one_line_and_exit_code_2(step: Step, task: Task) -> None:
    subject = f"task:{task.id}"
    wrong = {
        "error: cvat-grant is missing": run(step, subject, grant=""),
        "error: 'task:x' is not of the form": run(step, "task:4", "--subject=task:x"),
        "error: --unpack and --into=KEY belong together": run(step, subject, "--unpack"),
    }
    step.cvat.revoke(step.cvat.service)
    wrong["error: CVAT does not accept the service account's access token"] = run(step, subject)
    for words, (code, out, err) in wrong.items():
        assert (code, out) == (2, ""), err
        assert err.splitlines()[-1].startswith(words)
        assert "Traceback" not in err


def test_missing_secrets_are_said(step: Step, task: Task) -> None:
    for name, words in [
        ("CVAT_BRIDGE_SIGNING_KEY", "error: CVAT_BRIDGE_SIGNING_KEY must have 16 characters or more"),
        ("CVAT_ACCESS_TOKEN", "error: CVAT_ACCESS_TOKEN is not set"),
    ]:
        environment = dict(step.environment)
        step.environment[name] = ""
        code, _, err = run(step, f"task:{task.id}")
        assert (code, err.splitlines()[-1][: len(words)]) == (2, words)
        step.environment = environment
