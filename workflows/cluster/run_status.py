"""Read the status of a Workflow: its steps in order, and the cause of a failure.

A step with a retry strategy has two kinds of nodes: a node of type Retry with little information, and a pod for each
attempt, which has the message and the exit code.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT
from workflows.outcome import FailedNode, NodeKind, culprit, in_words

FINISHED = ("Succeeded", "Failed", "Error")
BAD = ("Failed", "Error")
_STATES = {
    "": "pending",
    "Pending": "pending",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Error": "failed",
    "Omitted": "skipped",
    "Skipped": "skipped",
}

# `main: Error (exit code 2): the container's termination message`
_OF_A_CONTAINER = re.compile(r"^(?:main: )?[A-Za-z]+ \(exit code (\d+)\)(?:: )?", re.DOTALL)
_POD_WAS_LOST = re.compile(r"pod deleted|evict|node (was )?shut ?down|node shutdown|preempt|terminated in response to")

_SHARE = re.compile(r"\(\d+:\d+\)$")
"""The end of a name of one of several pods of a task. For a single pod Argo notes one such task as skipped."""


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class _Parameter(_Record):
    name: str
    value: str | None = None


class _Outputs(_Record):
    exit_code: str | None = Field(default=None, alias="exitCode")
    parameters: tuple[_Parameter, ...] = ()


class WorkflowNode(_Record):
    """The fields of a graph node that are used here."""

    id: str
    name: str = ""
    display_name: str = ""
    type: str = ""
    phase: str = ""
    message: str = ""
    progress: str = ""
    template_name: str = ""
    resources_duration: Mapping[str, int] = {}
    """Resource → its amount in the pod times the seconds that it ran. Empty: Argo did not see the pod end."""
    started_at: str | None = None
    finished_at: str | None = None
    children: tuple[str, ...] = ()
    outputs: _Outputs = _Outputs()

    @property
    def exit_code(self) -> int | None:
        """The exit code of the container. None: unknown."""
        if self.outputs.exit_code is not None and self.outputs.exit_code.isdigit():
            return int(self.outputs.exit_code)
        match = _OF_A_CONTAINER.match(self.message)
        return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One line for a person: an attempt of a step, or what a step waits for."""

    key: str
    label: str
    phase: str
    progress: str
    message: str

    def line(self) -> str:
        """Format the step, such as `train  Running 40/200`."""
        words = f"{self.label}  {self.phase or 'Pending'}"
        if self.progress:
            words += f" {self.progress}"
        return f"{words}: {self.message}" if self.message else words


@dataclass(frozen=True, slots=True)
class Failure:
    """The cause of a failed run, and its exit code."""

    step: str
    sentence: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The status of one workflow."""

    name: str
    phase: str
    message: str
    nodes: Mapping[str, WorkflowNode]
    results: Mapping[str, str]
    """Output parameters of the whole workflow."""
    shut_down: bool
    """Whether a person has requested the end of the run."""

    def output(self, name: str) -> str:
        """The first value that a step gave this output parameter. Empty: none yet."""
        outputs = (one for node in self.nodes.values() for one in node.outputs.parameters)
        return next((one.value for one in outputs if one.name == name and one.value), "")

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped by a person. That is not a failure."""
        return self.shut_down and self.phase in BAD

    @property
    def state(self) -> str:
        """The state in one word: pending, running, succeeded, failed or stopped."""
        return "stopped" if self.stopped else state_of(self.phase)

    def reason(self) -> str:
        """Why the run failed. Empty: it did not fail."""
        if self.phase not in BAD:
            return ""
        if self.stopped:
            return "The run was stopped."
        failure = self.failure()
        return f"{failure.step}: {failure.sentence}" if failure.step else failure.sentence

    def waits_for(self) -> str:
        """Why the newest step does not run yet. Empty: it runs, or Argo does not say."""
        steps = [] if self.finished else self.steps()
        return f"{steps[-1].label}: {steps[-1].message}" if steps and steps[-1].message else ""

    @property
    def finished(self) -> bool:
        """Whether the workflow has ended."""
        return self.phase in FINISHED

    def steps(self) -> list[StepStatus]:
        """Every attempt of every step, in the order in which they started."""
        retries = {child: node for node in self.nodes.values() if node.type == "Retry" for child in node.children}
        shown = []
        for node in sorted(self.nodes.values(), key=lambda one: (one.started_at or "9", one.id)):
            if node.type == "Pod":
                shown.append(_step(node, _label(node, retries.get(node.id), self.nodes)))
            elif (node.type == "Skipped" and not _SHARE.search(node.display_name)) or (
                node.type == "Retry" and node.phase not in FINISHED and node.message
            ):
                shown.append(_step(node, _plain(node.display_name)))
        return shown

    def failure(self) -> Failure:
        """The cause of the failure: the first step whose last attempt failed.

        The exit handler's message is preferred to the node's message, which Argo may overwrite later.
        """
        node = self._culprit()
        if node is None:
            return Failure("", " ".join((self.message or f"the workflow ended as {self.phase}").split()), 1)
        step = _plain(node.display_name)
        said = self._told(step)
        if not said and node.message:
            said = in_words(step, node.message, node.exit_code)
        return Failure(step, " ".join((said or f"{step} ended as {node.phase}").split()), _meaning(node))

    def _told(self, step: str) -> str:
        """The exit handler's message about a step. Empty: it has none."""
        handlers = (node for node in self.nodes.values() if node.name == f"{self.name}.onExit")
        said = (one.value or "" for node in handlers for one in node.outputs.parameters if one.name == "message")
        beginning = f"{step}: "
        return next((text.removeprefix(beginning) for text in said if text.startswith(beginning)), "")

    def _culprit(self) -> WorkflowNode | None:
        """The last attempt of the step that failed first."""
        retries = {child: node for node in self.nodes.values() if node.type == "Retry" for child in node.children}
        failed = [_failed(node, retries.get(node.id)) for node in self.nodes.values() if node.phase in BAD]
        found = culprit([one for one in failed if one.kind is not NodeKind.GRAPH or one.message])
        if found is None:
            return None
        first, attempts = found
        return self.nodes[(attempts or [first])[0].id]


def read_status(workflow: Mapping[str, Any]) -> RunStatus:
    """Read the status of a Workflow from its API object."""
    status = workflow.get("status") or {}
    nodes = status.get("nodes") or {}
    if not nodes and status.get("compressedNodes"):
        # Argo compresses the nodes of a large workflow. Its server decompresses them, the Kubernetes API does not.
        nodes = json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
    read = {key: WorkflowNode.model_validate(node) for key, node in nodes.items()}
    name = workflow["metadata"]["name"]
    outputs = status.get("outputs") or {}
    if not outputs and name in nodes:
        outputs = nodes[name].get("outputs") or {}
    parameters = _Outputs.model_validate({"parameters": outputs.get("parameters") or ()}).parameters
    return RunStatus(
        name=name,
        phase=status.get("phase") or "",
        message=status.get("message") or "",
        nodes=read,
        results={one.name: one.value for one in parameters if one.value is not None},
        shut_down=bool((workflow.get("spec") or {}).get("shutdown")),
    )


def state_of(phase: str) -> str:
    """The state of a run or a step in one word."""
    return _STATES.get(phase, "running")


def _failed(node: WorkflowNode, retry: WorkflowNode | None) -> FailedNode:
    """Convert a failed node for the search. The node of the retry identifies the attempts of a step."""
    kind = NodeKind.STEP if node.type in ("Pod", "Retry") else NodeKind.GRAPH
    if ".onExit" in node.name:
        kind = NodeKind.EXIT_HANDLER
    attempt, step = -1, node.id
    if retry is not None and node.type == "Pod":
        attempt, step = retry.children.index(node.id), retry.id
    return FailedNode(step, node.message, node.finished_at or "9", attempt, kind, node.id)


def _meaning(node: WorkflowNode) -> int:
    """The exit code for the caller: 2 wrong input, 75 a temporary fault, otherwise 1."""
    if node.exit_code == WRONG_INPUT:
        return WRONG_INPUT
    passing = node.exit_code in (PASSING_FAULT, 143) or (node.exit_code == 137 and "OOMKilled" not in node.message)
    lost = node.exit_code is None and _POD_WAS_LOST.search(node.message.lower())
    return PASSING_FAULT if passing or lost else 1


def _step(node: WorkflowNode, label: str) -> StepStatus:
    done, _, total = node.progress.partition("/")
    # Argo counts a pod as 0/1 until the step writes its own progress.
    progress = node.progress if total not in ("", "0", "1") and done.isdigit() else ""
    # The exit code stays in the message, because no other line has it.
    message = "" if node.phase in ("Omitted", "Skipped") else " ".join(node.message.split())
    return StepStatus(node.id, label, node.phase, progress, message)


def _label(node: WorkflowNode, retry: WorkflowNode | None, nodes: Mapping[str, WorkflowNode]) -> str:
    if retry is None:
        return _plain(node.display_name)
    pods = [child for child in retry.children if child in nodes and nodes[child].type == "Pod"]
    attempt = pods.index(node.id) + 1
    return _plain(retry.display_name) + (f" (attempt {attempt})" if attempt > 1 else "")


def _plain(display_name: str) -> str:
    """`train` for `train(0)`, `exit handler` for `detr-train-x7k2p.onExit`."""
    if display_name.endswith(".onExit"):
        return "exit handler"
    return re.sub(r"\(\d+\)$", "", display_name)
