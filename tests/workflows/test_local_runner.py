"""The local runner with small templates, real processes and a store in a folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.templates import container, task, template, text

COMMAND = Path(sys.executable).parent / "detr-workflows"
PATIENCE_S = 60

LEAVE = "import os, pathlib, sys; out = pathlib.Path(os.environ['OUT']); "
WAIT = "import time; time.sleep(600)"


class Local:
    """A scratch folder, a store, and `detr-workflows run-local` on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "store" / "runs"
        self._started: list[subprocess.Popen[str]] = []

    def command(self, tree: dict[str, Any], *options: str) -> list[str | Path]:
        path = self.folder / "small.yaml"
        path.write_text(text(tree))
        return [
            COMMAND,
            "run-local",
            path,
            "--store",
            self.folder / "store",
            "--scratch",
            self.folder / "scratch",
            *options,
        ]

    def run(self, tree: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(tree, *options),
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.folder,
        )

    def start(self, tree: dict[str, Any], *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(tree, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process

    def stop_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                # Not kill: that would leave the step behind.
                process.terminate()
            process.communicate()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    one = Local(tmp_path)
    yield one
    one.stop_all()


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended: it only waits for its parent to notice.
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def chain() -> dict[str, Any]:
    """`first` gives a word to `second`, which leaves a file with it, and an `ap`."""
    second = (
        f"{LEAVE}(out / 'report').mkdir(); (out / 'report' / 'index.html').write_text(sys.argv[1]); "
        "(out / 'outputs' / 'ap').write_text('0.58349\\n')"
    )
    return template(
        [task("first"), task("second", "first", word="{{tasks.first.outputs.parameters.word}}")],
        {
            "first": container(
                f"{LEAVE}(out / 'outputs' / 'word').write_text(sys.argv[1] + '\\n')",
                "{{workflow.parameters.word}}",
                outputs=("word",),
            ),
            "second": container(second, "{{inputs.parameters.word}}", inputs=("word",), outputs=("ap",)),
        },
        {"word": "seven"},
        {"ap": "{{tasks.second.outputs.parameters.ap}}"},
    )


def only_run(local: Local) -> Path:
    (run,) = local.runs.iterdir()
    return run


def test_outputs_travel_between_steps_and_files_into_the_run(local: Local):
    done = local.run(chain())
    assert done.returncode == 0, done.stderr
    run = only_run(local)
    assert (run / "report" / "index.html").read_text() == "seven"
    assert not (run / "outputs").exists()
    assert json.loads((run / "finished.json").read_text())["results"] == {"ap": "0.58349"}
    lines = done.stdout.splitlines()
    assert lines[0] == run.name
    assert "AP 0.583" in lines
    assert f"report and pictures: {run}/report/index.html" in lines
    assert list((local.folder / "scratch").iterdir()) == []


def test_values_reach_the_step_as_they_are(local: Local):
    words = [
        "",
        "two words",
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "'\"",
        "a\nb",
        "--help",
        "ünï→",
        "%s\\n",
    ]
    names = [f"word-{number}" for number in range(len(words))]
    code = f"import json; {LEAVE}(out / 'seen').write_text(json.dumps(sys.argv[1:]))"
    tags = [f"{{{{workflow.parameters.{name}}}}}" for name in names]
    tree = template([task("look")], {"look": container(code, *tags)}, dict.fromkeys(names, "default"))
    options = [option for name, word in zip(names, words, strict=True) for option in ("-p", f"{name}={word}")]
    done = local.run(tree, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads((only_run(local) / "seen").read_text()) == words
    assert not (local.folder / "pwned").exists()


def test_a_step_sees_the_name_the_uid_and_all_parameters(local: Local):
    code = f"{LEAVE}(out / 'seen').write_text('\\n'.join(sys.argv[1:]))"
    tags = ("{{workflow.name}}", "{{workflow.uid}}", "{{workflow.parameters.json}}")
    done = local.run(template([task("look")], {"look": container(code, *tags)}))
    assert done.returncode == 0, done.stderr
    run = only_run(local)
    name, uid, parameters = (run / "seen").read_text().splitlines()
    assert name == run.name
    assert len(uid) == 36
    assert {one["name"]: one["value"] for one in json.loads(parameters)} == {
        "store": (local.folder / "store").as_uri(),
        "cvat-output-path": "runs",
    }


@pytest.mark.parametrize(
    ("code", "said"), [(1, "failed with exit code 1"), (75, "the same command again"), (137, "memory")]
)
def test_a_failed_step_stops_the_run_with_its_exit_code(local: Local, code: int, said: str):
    tree = template(
        [task("first"), task("second", "first")],
        {
            "first": container(f"{LEAVE}(out / 'half').write_text('x'); sys.exit({code})"),
            "second": container(f"{LEAVE}(out / 'never').write_text('x')"),
        },
    )
    done = local.run(tree)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith("error: step first")
    assert said in done.stderr
    assert not local.runs.exists()
    assert list((local.folder / "scratch").iterdir()) == []


def test_a_refused_input_ends_with_the_steps_own_sentence(local: Local):
    code = "import sys; print('error: epochs must be a number', file=sys.stderr); sys.exit(2)"
    done = local.run(template([task("check")], {"check": container(code)}))
    assert done.returncode == 2
    assert done.stderr == "error: epochs must be a number\n"


def test_a_step_that_leaves_no_output_is_a_bug_of_the_step(local: Local):
    done = local.run(template([task("first")], {"first": container("pass", outputs=("word",))}))
    assert done.returncode == 1
    assert "did not write $OUT/outputs/word" in done.stderr


def leaving(code: str, *, optional: bool) -> dict[str, Any]:
    """One step with the artifact `model`."""
    tree = template([task("train")], {"train": container(LEAVE + code)})
    tree["spec"]["templates"][1]["outputs"]["artifacts"] = [
        {
            "name": "model",
            "path": "/mnt/out/model",
            "archive": {"none": {}},
            "s3": {"key": "{{workflow.parameters.cvat-output-path}}/{{workflow.name}}/model/"},
            "optional": optional,
        }
    ]
    return tree


@pytest.mark.parametrize("pods", ["1", "4"])
def test_only_one_pod_is_run(local: Local, pods: str):
    count = "{{tasks.first.outputs.parameters.pods}}"
    share = {**task("share", "first"), "when": f"{count} > 1", "withSequence": {"count": count}}
    write = f"import os; open(os.environ['OUT'] + '/outputs/pods', 'w').write('{pods}')"
    containers = {"first": container(write, outputs=("pods",)), "last": container("pass")}
    done = local.run(template([task("first"), share, task("last", "share")], containers))
    assert done.returncode == (0 if pods == "1" else 1)
    assert "share" not in done.stdout
    assert ("step first asks for 4 pods; the local runner has one" in done.stderr) == (pods == "4")


def test_an_artifact_lies_in_the_run_under_its_key(local: Local):
    done = local.run(leaving("(out / 'model').mkdir(); (out / 'model' / 'a').write_text('x')", optional=False))
    assert done.returncode == 0, done.stderr
    assert (only_run(local) / "model" / "a").read_text() == "x"


def test_an_artifact_that_a_good_step_did_not_leave_is_a_bug_of_the_step_unless_it_may_be_missing(local: Local):
    done = local.run(leaving("pass", optional=False))
    assert done.returncode == 1
    assert "step train succeeded but did not write $OUT/model: a bug of the step" in done.stderr
    assert local.run(leaving("pass", optional=True)).returncode == 0


def test_a_persons_own_variables_stand_for_those_of_the_cluster(local: Local, monkeypatch: pytest.MonkeyPatch):
    names = ["KEY_OF_STORE", "SETTINGS", "REGION"]
    code = f"import json; {LEAVE}(out / 'seen').write_text(json.dumps([os.environ.get(n) for n in {names}]))"
    tree = template([task("look")], {"look": container(code)})
    look = tree["spec"]["templates"][1]
    look["volumes"].append({"name": "settings", "configMap": {"name": "small", "optional": True}})
    look["container"]["volumeMounts"].append({"name": "settings", "mountPath": "/etc/small"})
    look["container"]["env"] += [
        {"name": "KEY_OF_STORE", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": True}}},
        {"name": "SETTINGS", "value": "/etc/small/settings.yaml"},
        {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b", "optional": True}}},
    ]
    monkeypatch.setenv("KEY_OF_STORE", "mine")
    monkeypatch.setenv("SETTINGS", "/home/mine.yaml")
    monkeypatch.delenv("REGION", raising=False)
    done = local.run(tree)
    assert done.returncode == 0, done.stderr
    assert json.loads((only_run(local) / "seen").read_text()) == ["mine", "/home/mine.yaml", None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-p", "wrod=x"], "'wrod' is not a parameter; did you mean word?"),
        (["-p", "word"], "is not of the form name=value"),
        (["-p", "word=a", "-p", "word=b"], "-p word is given twice"),
        (["-p", "cvat-output-path=../x"], "cvat-output-path: '../x' must be a key below the store"),
        (["--store", "gs://bucket"], "the scheme must be one of s3:// and file://"),
    ],
)  # fmt: skip
def test_wrong_parameters_start_nothing(local: Local, options: list[str], said: str):
    done = local.run(chain(), *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert not (local.folder / "store").exists()


def test_a_template_that_is_not_there_is_said_in_one_sentence():
    done = subprocess.run([COMMAND, "run-local", "detr-tain"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no template detr-tain; use one of cvat-train, detr-annotate, detr-evaluate, detr-prepare, "
        "detr-train, detr-weights, or the path of a .yaml file\n"
    )


def test_a_program_that_is_not_installed_is_found_before_anything_starts(local: Local):
    tree = chain()
    tree["spec"]["templates"][2]["container"]["command"] = ["train-everything"]
    done = local.run(tree)
    assert done.returncode == 2
    assert "step second: its program train-everything is not installed with" in done.stderr
    assert not (local.folder / "store").exists()


def one_step() -> dict[str, Any]:
    return template([task("only")], {"only": container(f"{LEAVE}(out / 'model').write_text('x')")}, {"word": ""})


def test_a_finished_run_stays_and_the_next_one_gets_a_suffix(local: Local):
    names = []
    for _ in range(3):
        done = local.run(one_step())
        assert done.returncode == 0, done.stderr
        assert ("finished already: this one begins anew" in done.stdout) is bool(names)
        names.append(done.stdout.splitlines()[0])
    assert names == [names[0], f"{names[0]}-2", f"{names[0]}-3"]
    assert {run.name for run in local.runs.iterdir()} == set(names)


def test_a_run_may_lie_in_a_bucket(local: Local, s3: Any, bucket: str):
    names = [local.run(one_step(), "--store", f"s3://{bucket}/project").stdout.splitlines()[0] for _ in range(2)]
    assert names[1] == f"{names[0]}-2"
    listed = {one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert listed == {f"project/runs/{name}/{file}" for name in names for file in ("model", "finished.json")}


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_one_sentence(local: Local):
    done = local.run(one_step(), "--store", "s3://no-such-bucket-of-ours")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no-such-bucket-of-ours" in line


def test_other_parameters_are_another_run(local: Local):
    first = local.run(one_step(), "-p", "word=a").stdout.splitlines()[0]
    second = local.run(one_step(), "-p", "word=b").stdout.splitlines()[0]
    assert first != second
    assert {run.name for run in local.runs.iterdir()} == {first, second}


RESUMING = (
    "import os, pathlib, signal, sys, time\n"
    "state = pathlib.Path(sys.argv[1])\n"
    "started = state / 'started'\n"
    "if (state / 'saved').exists():\n"
    "    (pathlib.Path(os.environ['OUT']) / 'model').write_text((state / 'saved').read_text())\n"
    "    sys.exit(0)\n"
    "def save(*_):\n"
    "    (state / 'saved').write_text('step 7 of ' + sys.argv[2])\n"
    "    sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "started.write_text(str(os.getpid()))\n"
    "time.sleep(600)\n"
)


def resuming(local: Local) -> dict[str, Any]:
    return template([task("train")], {"train": container(RESUMING, str(local.folder), "{{workflow.name}}")})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_step_saves_and_the_same_command_goes_on(local: Local, number: int, code: int):
    process = local.start(resuming(local))
    until((local.folder / "started").exists)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert "stopping: waiting for the step to save its state" in stderr
    assert stderr.splitlines()[-1] == "error: interrupted; run the same command again to resume"
    name = stdout.splitlines()[0]

    again = local.run(resuming(local))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == name
    assert (only_run(local) / "model").read_text() == f"step 7 of {name}"


def test_a_second_interrupt_kills_a_step_that_does_not_stop(local: Local):
    code = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (folder / 'asked').write_text('x'))\n"
        f"helper = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n"
        "(folder / 'pids.new').write_text(f'{os.getpid()} {helper.pid}')\n"
        "(folder / 'pids.new').rename(folder / 'pids')\n"
        "while True: time.sleep(1)\n"
    )
    process = local.start(template([task("train")], {"train": container(code, str(local.folder))}))
    until((local.folder / "pids").exists)
    process.send_signal(signal.SIGINT)
    until((local.folder / "asked").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 130
    for process_id in (local.folder / "pids").read_text().split():
        until(lambda process_id=process_id: not alive(int(process_id)))


def test_what_a_step_started_ends_with_it(local: Local):
    code = (
        "import pathlib, subprocess, sys\n"
        f"helper = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n"
        "(pathlib.Path(sys.argv[1]) / 'helper').write_text(str(helper.pid))\n"
    )
    done = local.run(template([task("first")], {"first": container(code, str(local.folder))}))
    assert done.returncode == 0, done.stderr
    helper = int((local.folder / "helper").read_text())
    until(lambda: not alive(helper))


def test_the_same_run_at_the_same_time_is_refused(local: Local):
    local.start(resuming(local))
    until((local.folder / "started").exists)
    owner = (local.folder / "started").read_text()
    second = local.run(resuming(local))
    assert second.returncode == 2
    assert f"is already running (process {owner})" in second.stderr


def test_a_step_that_outlives_a_killed_runner_keeps_its_run_to_itself(local: Local):
    process = local.start(resuming(local))
    until((local.folder / "started").exists)
    step = int((local.folder / "started").read_text())
    process.kill()
    process.wait()
    try:
        refused = local.run(resuming(local))
        assert refused.returncode == 2
        assert f"is already running (process {step})" in refused.stderr
    finally:
        os.kill(step, signal.SIGTERM)
    until(lambda: not alive(step))
    again = local.run(resuming(local))
    assert again.returncode == 0, again.stderr


def test_steps_write_to_the_terminal_itself(local: Local):
    code = f"{LEAVE}(out / 'tty').write_text(str(sys.stdout.isatty()))"
    controller, terminal = os.openpty()
    try:
        process = subprocess.Popen(
            local.command(template([task("look")], {"look": container(code)})), stdout=terminal, stderr=terminal
        )
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        os.close(terminal)
        os.close(controller)
    assert (only_run(local) / "tty").read_text() == "True"


@pytest.mark.parametrize("option", ["--store", "--scratch"])
def test_the_command_tries_its_folders_before_the_first_step(tmp_path: Path, option: str):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    folders = {"--store": tmp_path / "store", "--scratch": tmp_path / "scratch"} | {option: blocked}
    arguments = [str(word) for pair in folders.items() for word in pair]
    command = [str(COMMAND), "run-local", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option}: {blocked} cannot be written: ")
    assert done.stderr.count("\n") == 1
