"""Following a run: a line for each change, and the exit that belongs to its end."""

import base64
import gzip
import json
from typing import Any

import pytest

from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cluster.errors import (
    ForbiddenError,
    NotThereError,
    UnreachableError,
    WatchEndedError,
    WatchInterruptedError,
)
from workflows.cluster.run_status import RunStatus, read_status
from workflows.cluster.watching import Watch

__all__ = ["api", "command"]


def workflow(phase: str = "Running", *nodes: Json, uid: str = "one", **status: Any) -> Json:
    return {
        "metadata": {"name": "run", "uid": uid},
        "status": {"phase": phase, "nodes": {node["id"]: node for node in nodes}, **status},
    }


def pod(name: str, phase: str, message: str = "", second: int = 1, **rest: Any) -> Json:
    return {
        "id": f"run-{name}",
        "name": f"run.{name}",
        "displayName": name,
        "type": "Pod",
        "phase": phase,
        "message": message,
        "startedAt": f"2026-01-01T00:00:{second:02}Z",
        **({"finishedAt": f"2026-01-01T00:01:{second:02}Z"} if phase in ("Succeeded", "Failed", "Error") else {}),
        **rest,
    }


def retried(name: str, phase: str, *attempts: Json, message: str = "") -> tuple[Json, ...]:
    """A step with a retry strategy, as Argo lays it out: the text is in the pods."""
    children = [attempt["id"] for attempt in attempts]
    return ({**pod(name, phase, message), "type": "Retry", "children": children}, *attempts)


class Recording:
    """Answers one after the other; an exception is raised, the last one stays."""

    namespace = "ml"

    def __init__(self, *answers: Json | BaseException) -> None:
        self._answers = list(answers)

    def workflow(self, name: str) -> Json:
        assert name == "run"
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def follow(*answers: Json | BaseException, timeout_s: float | None = None) -> tuple[RunStatus, list[str]]:
    lines: list[str] = []
    time = Time()
    watch = Watch(Recording(*answers), "run", "one", lines.append, timeout_s=timeout_s, clock=time, sleep=time.sleep)
    return watch.to_the_end(), lines


def test_each_change_is_one_line_and_nothing_is_said_twice():
    running = workflow("Running", pod("train", "Running", progress="0/40"))
    further = workflow("Running", pod("train", "Running", progress="20/40"))
    status, lines = follow(
        workflow("Running", pod("train", "Pending")),
        workflow("Running", pod("train", "Pending", "Unschedulable: 0/2 nodes are available")),
        running,
        running,
        further,
        workflow("Succeeded", pod("train", "Succeeded", progress="40/40")),
    )
    assert lines == [
        "train  Pending",
        "train  Pending: Unschedulable: 0/2 nodes are available",
        "train  Running 0/40",
        "train  Running 20/40",
        "train  Succeeded 40/40",
        "run  Succeeded",
    ]
    assert status.phase == "Succeeded"


def test_a_step_without_progress_of_its_own_shows_none():
    _, lines = follow(workflow("Succeeded", pod("check", "Succeeded", progress="1/1")))
    assert lines[0] == "check  Succeeded"


def test_what_was_left_out_is_said_without_a_reason():
    omitted = {**pod("train", "Omitted", "omitted: depends condition not met"), "type": "Skipped"}
    assert follow(workflow("Failed", omitted))[1][0] == "train  Omitted"


def test_attempts_are_counted_and_waiting_says_for_what():
    lost = pod("train(0)", "Error", "pod deleted", second=2)
    _, lines = follow(
        workflow("Running", *retried("train", "Pending", message="Waiting for ml/ConfigMap/x/pool.small lock")),
        workflow("Running", *retried("train", "Running", lost, message="Backoff for 10 seconds")),
        workflow("Succeeded", *retried("train", "Succeeded", lost, pod("train(1)", "Succeeded", second=3))),
    )
    assert lines == [
        "train  Pending: Waiting for ml/ConfigMap/x/pool.small lock",
        "train  Running: Backoff for 10 seconds",
        "train  Error: pod deleted",
        "train (attempt 2)  Succeeded",
        "run  Succeeded",
    ]


def test_a_lost_connection_is_said_once_and_the_watching_goes_on():
    gone = UnreachableError("nobody answers")
    _, lines = follow(workflow("Running"), gone, gone, gone, workflow("Succeeded"))
    assert lines == ["lost the connection, retrying (nobody answers)", "connected again", "run  Succeeded"]


def test_a_run_that_no_controller_takes_up_is_said_once():
    untouched = [workflow("") for _ in range(30)]
    _, lines = follow(*untouched, workflow("Succeeded"))
    assert [line.startswith("no Argo controller has started run yet") for line in lines] == [True, False]


def test_the_time_limit_ends_the_watching_and_not_the_run():
    with pytest.raises(
        WatchEndedError, match=r"7 s are over; run continues\. See it with `argo get run -n ml`"
    ) as ending:
        follow(workflow("Running"), timeout_s=7)
    assert ending.value.exit_code == 75


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_stop_it():
    with pytest.raises(WatchInterruptedError, match="`argo stop run -n ml`") as ending:
        follow(workflow("Running"), KeyboardInterrupt())
    assert ending.value.exit_code == 130


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NotThereError("x"), "run was deleted while it ran"),
        (ForbiddenError("not any more"), "can no longer be read; the run continues: not any more"),
        (workflow("Running", uid="two"), "another workflow has its name now"),
    ],
)
def test_a_run_that_is_lost_from_sight_is_no_failure_of_the_input(answer: Json | Exception, words: str):
    with pytest.raises(WatchEndedError, match=words):
        follow(workflow("Running"), answer)


# -- why a run failed


def test_the_sentence_of_a_retried_step_is_that_of_its_pod():
    status = read_status(
        workflow(
            "Failed",
            *retried(
                "prepare",
                "Failed",
                pod("prepare(0)", "Failed", "main: Error (exit code 2): no images in the export", second=2),
                message="retryStrategy.expression evaluated to false",
            ),
        )
    )
    failure = status.failure()
    assert (failure.step, failure.sentence, failure.exit_code) == ("prepare", "no images in the export", 2)


def test_of_several_attempts_the_last_one_counts():
    attempts = [
        pod("train(0)", "Error", "pod deleted", second=2),
        pod("train(1)", "Failed", "main: Error (exit code 1)", second=3, outputs={"exitCode": "1"}),
    ]
    assert read_status(workflow("Failed", *retried("train", "Failed", *attempts))).failure().exit_code == 1


def test_a_failed_attempt_that_was_mended_is_not_the_reason():
    mended = retried("prepare", "Succeeded", pod("prepare(0)", "Failed", "main: Error (exit code 75)", second=2))
    broken = pod("report", "Failed", "main: Error (exit code 2): no predictions", second=9)
    assert read_status(workflow("Failed", *mended, broken)).failure().step == "report"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("main: Error (exit code 2): epochs must be a whole number", 2),
        ("main: Error (exit code 75): the store cannot be reached", 75),
        ("main: Error (exit code 143)", 75),
        ("main: Error (exit code 137)", 75),
        ("main: OOMKilled (exit code 137)", 1),
        ("main: Error (exit code 1): a bug", 1),
        ("pod deleted", 75),
        ("The node was low on resource: memory. Pod was evicted", 75),
        ("invalid podSpecPatch", 1),
    ],
)
def test_the_exit_says_whose_turn_it_is(message: str, code: int):
    phase = "Failed" if "exit code" in message else "Error"
    assert read_status(workflow(phase, pod("train", phase, message))).failure().exit_code == code


def test_the_exit_handler_is_not_the_reason_where_a_step_failed():
    handler = {**pod("run.onExit", "Failed", "main: Error (exit code 1)", second=1), "name": "run.onExit"}
    step = pod("train", "Failed", "main: Error (exit code 2): too few images", second=5)
    assert read_status(workflow("Failed", handler, step)).failure().step == "train"
    assert read_status(workflow("Failed", handler)).failure().step == "exit handler"


def handler_says(text: str) -> Json:
    outputs = {"parameters": [{"name": "message", "value": text}]}
    return {**pod("run.onExit", "Succeeded", second=30, outputs=outputs), "name": "run.onExit", "type": "Retry"}


def test_what_the_exit_handler_said_is_preferred_to_what_argo_wrote_later():
    """Argo 4.1 overwrites `wait: OOMKilled` with `pod deleted`."""
    lost = retried("train", "Error", pod("train(0)", "Error", "pod deleted", second=2), message="pod deleted")
    said = "out of memory in Argo's own container wait: raise argo.executor.resources.limits.memory"
    failure = read_status(workflow("Error", *lost, handler_says(f"train: {said}"))).failure()
    assert (failure.step, failure.sentence) == ("train", said)


@pytest.mark.parametrize("text", ["", "report: no predictions", "sent to the channel"])
def test_what_an_exit_handler_says_of_something_else_is_not_taken(text: str):
    step = pod("train", "Failed", "main: Error (exit code 2): too few images", second=5)
    failure = read_status(workflow("Failed", step, handler_says(text))).failure()
    assert (failure.step, failure.sentence) == ("train", "too few images")


def test_a_pod_that_was_lost_after_its_step_ended_well_was_lost_by_argos_container():
    lost = pod("train", "Error", "pod deleted", outputs={"exitCode": "0"})
    failure = read_status(workflow("Error", lost)).failure()
    assert "most likely out of memory in Argo's own container: raise argo.executor.resources" in failure.sentence
    assert "run it again" not in failure.sentence


def test_a_workflow_that_never_had_a_node_says_its_own_message():
    failure = read_status(workflow("Error", message="invalid spec: templates.main not found")).failure()
    assert (failure.sentence, failure.exit_code) == ("invalid spec: templates.main not found", 1)


def test_the_nodes_of_a_large_workflow_are_unpacked():
    nodes = {"run-a": pod("a", "Failed", "main: Error (exit code 2): wrong")}
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    tree = {"metadata": {"name": "run"}, "status": {"phase": "Failed", "compressedNodes": packed}}
    assert read_status(tree).failure().sentence == "wrong"


# -- the command


@pytest.fixture
def running(api: FakeKubernetes) -> FakeKubernetes:
    api.add("workflowtemplates", "sums", {"spec": {}})
    return api


def finish(api: FakeKubernetes, **status: Any) -> None:
    """The run reaches this state as soon as somebody looks."""

    def happen(kind: str, name: str) -> None:
        if kind == "workflows":
            api.objects[kind][name]["status"] = status

    api.on_get = happen


def test_a_good_run_prints_its_results(running: FakeKubernetes, command: Command):
    finish(running, phase="Succeeded", outputs={"parameters": [{"name": "ap50", "value": "0.881"}]})
    ended = command("submit", "sums", "--watch")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "ap50: 0.881"


def test_wrong_input_ends_with_its_own_sentence_as_the_last_line(running: FakeKubernetes, command: Command):
    node = pod("check", "Failed", "main: Error (exit code 2): epochs must be a whole number")
    finish(running, phase="Failed", nodes={node["id"]: node})
    ended = command("submit", "sums", "--watch")
    assert (ended.code, ended.last) == (2, "error: epochs must be a whole number")


def test_a_program_gets_the_end_as_one_object(running: FakeKubernetes, command: Command):
    node = pod("train", "Failed", "main: Error (exit code 75): gone")
    finish(running, phase="Failed", nodes={node["id"]: node})
    ended = command("submit", "sums", "--watch", "--json", "--name", "a")
    assert ended.code == 75
    said = json.loads(ended.out)
    assert said["failure"] == {"step": "train", "message": "gone", "exitCode": 75}
    assert "train  Failed" in ended.err


def test_the_api_may_go_away_while_watching(running: FakeKubernetes, command: Command):
    finish(running, phase="Succeeded")
    looks = running.on_get

    def drop_the_first(kind: str, name: str) -> None:
        looks(kind, name)
        if kind == "workflows":
            running.lost = ["GET"]
            running.on_get = looks

    running.on_get = drop_the_first
    ended = command("submit", "sums", "--watch")
    assert ended.code == 0
    assert "lost the connection" in ended.out
    assert "connected again" in ended.out
