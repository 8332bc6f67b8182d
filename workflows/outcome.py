"""How a run ended, in one sentence where people look: the exit handler's work.

Argo leaves a workflow's own message empty and wraps a step's sentence in its words, or hides it behind
that of a retry. Nothing here makes a run fail: it has ended.
"""

import base64
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any

from run_config.argo_text import leave_sentence, without_tags

SUCCEEDED = "Succeeded"
WEBHOOK_VERSION = 1
TRIES = 3
TIMEOUT_S = 10.0
PAUSE_S = 2.0

# Argo's own words, which say nothing of the cause.
_ARGO_ONLY = re.compile(
    r"No more retries left|retryStrategy\.expression evaluated to false|child '.*' (failed|errored)"
)
_WRAPPED = re.compile(
    r"(?:(?P<container>[\w-]+): )?(?P<reason>\w+) \(exit code (?P<code>-?\d+)\)(?:: (?P<text>.*))?", re.DOTALL
)
_ATTEMPT = re.compile(r"(?P<step>.+)\((?P<number>\d+)\)")
_GO_ESCAPE = re.compile(r"\\(?:x(?P<x>[0-9a-f]{2})|U(?P<U>[0-9a-f]{8})|(?P<c>[av])|.)", re.DOTALL)

OF_ARGO = ("init", "wait", "supervisor")
"""Argo's own containers in a pod of a step."""

EXECUTOR_MEMORY = "raise argo.executor.resources.limits.memory in the chart's values"

MEMORY = {
    "train": "give the role train more memory (resources in the chart's values), or choose a smaller batch-size",
    "evaluate": "give the role train more memory (resources in the chart's values)",
}


class NodeKind(IntEnum):
    """What a node stands for, in the order in which the reason of a failure is looked for."""

    STEP = 0
    GRAPH = 1
    """Nodes that hold others: they fail with them, and alone where a step could not even be made."""
    EXIT_HANDLER = 2
    """It runs after everything else."""


@dataclass(frozen=True, slots=True)
class FailedNode:
    """A node that failed. Those of one step have the same `step`: itself, and its attempts where it was retried."""

    step: str
    message: str
    finished: str
    """A time in ISO 8601, so that texts compare as times do."""
    attempt: int = -1
    """Number of the attempt, from 0; -1 for a node that is no attempt of a retry."""
    kind: NodeKind = NodeKind.STEP
    id: str = ""


def culprit(nodes: Sequence[FailedNode]) -> tuple[FailedNode, list[FailedNode]] | None:
    """The step that failed first, and its attempts, the last one first; None where nothing failed.

    An attempt that a later one made good is none of them: its step is not among the nodes.
    """
    ended = [node for node in nodes if node.attempt < 0]
    if not ended:
        return None
    first = min(ended, key=lambda node: (node.kind, node.finished))
    attempts = [node for node in nodes if node.step == first.step and node.attempt >= 0]
    return first, sorted(attempts, key=lambda node: node.attempt, reverse=True)


def sentence(run: str, status: str, failures: str) -> str:
    """What a person should know of a run that did not end well; empty when it did.

    Messages of steps quote names from data. Argo may paste the sentence into other templates, so it has no `{{`.
    """
    if status == SUCCEEDED:
        return ""
    return without_tags(_sentence(run, status, failures)).encode(errors="replace").decode()


def _sentence(run: str, status: str, failures: str) -> str:
    found = culprit(failed_nodes(failures, run))
    if found is None:
        return f"the workflow ended as {status}, and no step says why: look at the workflow in Argo"
    first, attempts = found
    told = [node.message for node in (first, *attempts) if node.message and not _ARGO_ONLY.match(node.message)]
    # What a retry's own node says of its last attempt is that attempt's message, or nothing.
    text = in_words(first.step, told[0]) if told else "it failed, and Argo says no more: look at its log"
    tried = f" (after {len(attempts)} attempts)" if len(attempts) > 1 else ""
    return f"{first.step}: {text}{tried}"


def failed_nodes(failures: str, run: str) -> list[FailedNode]:
    """The entries of Argo's `workflow.failures`, in base64 or as they are; none where they cannot be read."""
    failures = _from_base64(failures)
    try:
        tree = json.loads(failures)
        if isinstance(tree, str):
            # Argo quotes the JSON once more, as a text in Go.
            tree = json.loads(tree)
    except (ValueError, RecursionError):
        tree = _from_go(failures)
    if not isinstance(tree, list):
        return []
    return [_failed_node(entry, run) for entry in tree if isinstance(entry, dict)]


def _failed_node(entry: Mapping[str, Any], run: str) -> FailedNode:
    name, message, finished = (str(entry.get(key) or "") for key in ("displayName", "message", "finishedAt"))
    attempt = _ATTEMPT.fullmatch(name)
    if attempt:
        return FailedNode(attempt["step"], message, finished, int(attempt["number"]))
    # The whole graph is a node too, with the run's name; alone it is a step that was started without the graph.
    return FailedNode(name, message, finished, kind=NodeKind.GRAPH if name == run else NodeKind.STEP)


def _from_base64(text: str) -> str:
    """The text that base64 stands for; any other text as it is. JSON of failures is never valid base64."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return text


def in_words(step: str, message: str, exit_code: int | None = None) -> str:
    """A node's message without Argo's wrapping, and in words where it is a term.

    `exit_code`: of the step's own container, where Argo has seen it end.
    """
    match = _WRAPPED.fullmatch(message)
    if match is None:
        return _cluster_in_words(message, exit_code)
    container, reason, code, text = match["container"], match["reason"], int(match["code"]), match["text"]
    if reason == "OOMKilled":
        if container in OF_ARGO:
            return f"out of memory in Argo's own container {container}: {EXECUTOR_MEMORY}"
        raised = MEMORY.get(step, f"give the role {step} more memory (resources in the chart's values)")
        return f"out of memory: {raised}"
    if text:
        # Only the sentence matters where the step speaks for itself; what Argo's containers say needs their name.
        return text.strip() if container in (None, "main") else f"Argo's container {container} failed: {text.strip()}"
    if code in (137, 143):
        return f"it was killed from outside (exit code {code}): run it again, it goes on where it was"
    return f"it failed with exit code {code}; its log says where"


def _cluster_in_words(message: str, exit_code: int | None) -> str:
    """What Kubernetes or Argo says of a pod as a whole."""
    if re.search(r"deadline", message, re.IGNORECASE):
        return (
            f"it took longer than it may ({message}): see what its pod waited for, its image or its volumes, "
            "and start the run again"
        )
    if message.startswith(("Unschedulable", "ImagePull", "ErrImagePull", "ContainerCreating", "PodInitializing")):
        return f"its pod could not start: {message}"
    if re.search(r"shutdown with strategy|Stopped with strategy", message):
        return "the workflow was stopped by a person"
    if re.search(r"exceeds the (total )?limit|ephemeral storage limit", message):
        return f"it needed more disk than it may take ({message}): give its role more ephemeral-storage"
    return _lost_pod_in_words(exit_code) if message == "pod deleted" else message


def _lost_pod_in_words(exit_code: int | None) -> str:
    """What `pod deleted` may mean: Argo 4.1 writes it over `wait: OOMKilled`."""
    if exit_code == 0:
        return (
            "the step itself ended well, and its pod was lost while Argo's own container wait stored the results: "
            f"most likely out of memory in Argo's own container: {EXECUTOR_MEMORY}"
        )
    return (
        "its pod is gone, and Argo does not say why. If it was deleted from outside, run it again: it continues "
        f"where it was. If that happens again, it may be out of memory in Argo's own container: {EXECUTOR_MEMORY}"
    )


def _from_go(text: str) -> Any:  # noqa: ANN401 - any JSON
    """A text that Go has quoted with escapes that JSON does not know; None when it is no such text."""

    def as_json(match: re.Match[str]) -> str:
        if match["c"]:
            return {"a": "\\u0007", "v": "\\u000b"}[match["c"]]
        code = match["x"] or match["U"]
        return json.dumps(chr(int(code, 16)))[1:-1] if code and int(code, 16) < 0x110000 else match[0]

    try:
        return json.loads(json.loads(_GO_ESCAPE.sub(as_json, text)), strict=False)
    except (ValueError, TypeError, RecursionError):
        return None


def report_json(run: str, template: str, status: str, message: str, output: str) -> dict[str, Any]:
    """What the webhook gets. Readers may rely on these keys; new ones may come."""
    report = {
        "version": WEBHOOK_VERSION,
        "run": run,
        "template": template,
        "status": status,
        "message": message,
        "output": output,
        "finished": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return {key: value for key, value in report.items() if key != "template" or value}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET, and may lead to another scheme or host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _NotToldError(Exception):
    """The webhook could not be told, and another try may help."""


def post(url: str, report: Mapping[str, Any], *, pause_s: float = PAUSE_S) -> str:
    """POST the report as JSON and say how that went, never with the URL: who has it may post.

    Network faults and answers of 429 and from 500 on are tried again.
    """
    url = url.strip()
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "the webhook was not told: its URL is not http:// or https://"
        content = json.dumps(report, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "detr-workflows"}
        request = urllib.request.Request(url, content, headers, method="POST")  # noqa: S310 - the scheme is looked at above
    except ValueError:
        return "the webhook was not told: its URL cannot be read"
    opener = urllib.request.build_opener(_NoRedirect)

    def attempt() -> str:
        try:
            with opener.open(request, timeout=TIMEOUT_S):
                return "the webhook was told"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code >= 500 or error.code == 429:
                raise _NotToldError(f"it answered {error.code}") from error
            return f"the webhook was not told: it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            # Only the kind: texts of these may hold the URL.
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _NotToldError("no answer" if isinstance(reason, TimeoutError) else type(reason).__name__) from error

    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    retry, stop = retry_if_exception_type(_NotToldError), stop_after_attempt(TRIES)
    try:
        return Retrying(retry=retry, stop=stop, wait=wait_fixed(pause_s), reraise=True)(attempt)
    except _NotToldError as error:
        return f"the webhook was not told: {error}"


def leave_message(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """The output parameter `message` of the step, where there is a $OUT."""
    if environment.get("OUT"):
        leave_sentence(Path(environment["OUT"]), "message", text)
