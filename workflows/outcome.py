"""The exit handler: describe the end of a run in one sentence.

Argo leaves the message of the workflow empty. It wraps a step's message in its own words, or hides it behind the
message of a retry. Errors in this module never make a run fail: the run has already ended.
"""

import base64
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from run_config.argo_text import without_tags

SUCCEEDED = "Succeeded"
WEBHOOK_VERSION = 1
TRIES = 3
TIMEOUT_S = 10.0
PAUSE_S = 2.0

# Messages of Argo that do not name the cause.
_ARGO_ONLY = re.compile(
    r"No more retries left|retryStrategy\.expression evaluated to false|child '.*' (failed|errored)"
)
_WRAPPED = re.compile(
    r"(?:(?P<container>[\w-]+): )?(?P<reason>\w+) \(exit code (?P<code>-?\d+)\)(?:: (?P<text>.*))?", re.DOTALL
)
_ATTEMPT = re.compile(r"(?P<step>.+)\((?P<number>\d+)\)")
_GO_ESCAPE = re.compile(r"\\(?:x(?P<x>[0-9a-f]{2})|U(?P<U>[0-9a-f]{8})|(?P<c>[av])|.)", re.DOTALL)

OF_ARGO = ("init", "wait", "supervisor")
"""Argo's own containers in the pod of a step."""

EXECUTOR_MEMORY = "raise argo.executor.resources.limits.memory in the chart's values"

MEMORY = {
    "train": "give the role train more memory (resources in the chart's values), or choose a smaller batch-size",
    "evaluate": "give the role train more memory (resources in the chart's values)",
}

SHARES = ("prepare-images", "prepare-shards")
"""The steps whose pods share the work of `prepare`, and have its role."""


class NodeKind(IntEnum):
    """The kind of a node. The search for the cause of a failure prefers smaller values."""

    STEP = 0
    GRAPH = 1
    """A node that contains others. It fails when they do, or alone when a step could not be created."""
    EXIT_HANDLER = 2
    """Runs after everything else."""


@dataclass(frozen=True, slots=True)
class FailedNode:
    """A node that failed. The node of a step and the nodes of its attempts have the same `step`."""

    step: str
    message: str
    finished: str
    """A time in ISO 8601, so that times can be compared as texts."""
    attempt: int = -1
    """Number of the attempt, from 0. -1: the node is not an attempt of a retry."""
    kind: NodeKind = NodeKind.STEP
    id: str = ""


def culprit(nodes: Sequence[FailedNode]) -> tuple[FailedNode, list[FailedNode]] | None:
    """The step that failed first, and its attempts in reverse order. None: no step failed.

    An attempt that was followed by a successful one is left out, because its step did not fail.
    """
    # The node of all pods of a task fails when one of them does.
    groups = {name for name, item, _ in (node.step.partition("(") for node in nodes) if item}
    ended = [node for node in nodes if node.attempt < 0 and node.step not in groups]
    if not ended:
        return None
    first = min(ended, key=lambda node: (node.kind, node.finished))
    attempts = [node for node in nodes if node.step == first.step and node.attempt >= 0]
    return first, sorted(attempts, key=lambda node: node.attempt, reverse=True)


def sentence(run: str, status: str, failures: str) -> str:
    """Describe the failure of a run for a person. Empty: the run succeeded.

    Messages of steps quote names from data, and Argo may insert the sentence into other templates, so it has no `{{`.
    """
    if status == SUCCEEDED:
        return ""
    return without_tags(_sentence(run, status, failures)).encode(errors="replace").decode()


def _sentence(run: str, status: str, failures: str) -> str:
    found = culprit(failed_nodes(failures, run))
    if found is None:
        return f"the workflow ended as {status}, but no step reported a reason: see the workflow in Argo"
    first, attempts = found
    told = [node.message for node in (first, *attempts) if node.message and not _ARGO_ONLY.match(node.message)]
    # The node of a retry has the message of its last attempt, or none.
    text = in_words(first.step, told[0]) if told else "it failed, and Argo gives no reason: see its log"
    tried = f" (after {len(attempts)} attempts)" if len(attempts) > 1 else ""
    return f"{first.step}: {text}{tried}"


def failed_nodes(failures: str, run: str) -> list[FailedNode]:
    """Parse Argo's `workflow.failures`, as JSON or in base64. Empty: the text cannot be parsed."""
    failures = _from_base64(failures)
    try:
        tree = json.loads(failures)
        if isinstance(tree, str):
            # Argo quotes the JSON once more, as a Go string.
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
    # The node of the whole graph has the run's name. If it is the only node, a step was started without the graph.
    return FailedNode(name, message, finished, kind=NodeKind.GRAPH if name == run else NodeKind.STEP)


def _from_base64(text: str) -> str:
    """Decode base64. Any other text is returned unchanged: the JSON of failures is never valid base64."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return text


def in_words(step: str, message: str, exit_code: int | None = None) -> str:
    """Translate the message of a node: remove Argo's wrapping, and explain Kubernetes' terms.

    `exit_code`: the exit code of the step's own container, if Argo knows it.
    """
    match = _WRAPPED.fullmatch(message)
    if match is None:
        return _cluster_in_words(message, exit_code)
    container, reason, code, text = match["container"], match["reason"], int(match["code"]), match["text"]
    if reason == "OOMKilled":
        if container in OF_ARGO:
            return f"out of memory in Argo's own container {container}: {EXECUTOR_MEMORY}"
        name = step.partition("(")[0]
        role = "prepare" if name in SHARES else name
        raised = MEMORY.get(name, f"give the role {role} more memory (resources in the chart's values)")
        return f"out of memory: {raised}"
    if text:
        # A message of the step's own container needs no prefix. For Argo's containers, the name is needed.
        return text.strip() if container in (None, "main") else f"Argo's container {container} failed: {text.strip()}"
    if code in (137, 143):
        return f"it was killed from outside (exit code {code}): run it again to resume"
    return f"it failed with exit code {code}; see its log"


def _cluster_in_words(message: str, exit_code: int | None) -> str:
    """Explain a message of Kubernetes or Argo about the whole pod."""
    if re.search(r"deadline", message, re.IGNORECASE):
        return (
            f"it exceeded its deadline ({message}): check whether its pod waited for its image or its volumes, "
            "and start the run again"
        )
    if message.startswith(("Unschedulable", "ImagePull", "ErrImagePull", "ContainerCreating", "PodInitializing")):
        return f"its pod could not start: {message}"
    if re.search(r"shutdown with strategy|Stopped with strategy", message):
        return "the workflow was stopped by a person"
    if re.search(r"exceeds the (total )?limit|ephemeral storage limit", message):
        return f"it exceeded its disk limit ({message}): give its role more ephemeral-storage"
    return _lost_pod_in_words(exit_code) if message == "pod deleted" else message


def _lost_pod_in_words(exit_code: int | None) -> str:
    """Explain the message `pod deleted`. Argo 4.1 also overwrites `wait: OOMKilled` with it."""
    if exit_code == 0:
        return (
            "the step itself succeeded, but its pod was lost while Argo's own container wait stored the results: "
            f"most likely out of memory in Argo's own container: {EXECUTOR_MEMORY}"
        )
    return (
        "its pod is gone, and Argo does not say why. If it was deleted from outside, run it again to "
        f"resume. If that happens again, it may be out of memory in Argo's own container: {EXECUTOR_MEMORY}"
    )


def _from_go(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON that Go has quoted with escapes that JSON lacks. None: it cannot be parsed."""

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
    """The body for the webhook. These keys are stable; new keys may be added."""
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


class _NotToldError(Exception):
    """The report did not reach the webhook, and a retry may help."""


def post(url: str, report: Mapping[str, Any], *, pause_s: float = PAUSE_S) -> str:
    """POST the report as JSON. Return a sentence about the result, without the URL, which is a secret.

    Network errors and the statuses 429 and 5xx are retried. Redirects are not followed: they may lead to another host.
    """
    import httpx
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    url = url.strip()
    if not url.lower().startswith(("http://", "https://")):
        return "the report was not sent to the webhook: its URL is not http:// or https://"
    content = json.dumps(report, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "detr-workflows"}
    # The system's certificates, to which an image may add others.
    trusted = ssl.create_default_context()

    def attempt() -> str:
        try:
            status = httpx.post(url, content=content, headers=headers, timeout=TIMEOUT_S, verify=trusted).status_code
        except httpx.HTTPError as error:
            # Only the error's type: its text may contain the URL.
            slow = isinstance(error, httpx.TimeoutException)
            raise _NotToldError("no answer" if slow else type(error).__name__) from error
        if status >= 500 or status == 429:
            raise _NotToldError(f"it answered {status}")
        if status >= 300:
            return f"the report was not sent to the webhook: it answered {status}"
        return "the report was sent to the webhook"

    retry, stop = retry_if_exception_type(_NotToldError), stop_after_attempt(TRIES)
    try:
        return Retrying(retry=retry, stop=stop, wait=wait_fixed(pause_s), reraise=True)(attempt)
    except _NotToldError as error:
        return f"the report was not sent to the webhook: {error}"
    except (httpx.InvalidURL, ValueError):
        return "the report was not sent to the webhook: its URL cannot be read"
