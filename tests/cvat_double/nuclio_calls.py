"""CVAT's side of automatic annotation: the three calls to a Nuclio dashboard, and what becomes of the answers."""

import base64
import json
from dataclasses import dataclass

import httpx

from tests.cvat_double import shapes
from tests.cvat_double.world import Task, World

TIMEOUT_S = 120.0


class FunctionError(Exception):
    """The dashboard or the function did not answer as CVAT needs it."""


@dataclass(frozen=True, slots=True)
class Function:
    """A model as CVAT lists it; `labels` are (name, type)."""

    id: str
    name: str
    kind: str
    description: str
    labels: tuple[tuple[str, str], ...]

    def answer(self) -> dict:
        labels = [{"name": name, "type": kind, "attributes": []} for name, kind in self.labels]
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "description": self.description,
            "labels_v2": labels,
            "version": 1,
        }


def functions(address: str) -> list[Function]:
    """`GET /api/functions`; a function whose description is not right is left out."""
    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        found = _json(client.get("/api/functions"))
    listed = []
    for entry in found.values():
        try:
            listed.append(_function(entry))
        except (KeyError, TypeError, ValueError):
            continue
    return listed


def function(address: str, name: str) -> Function:
    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        return _function(_json(client.get(f"/api/functions/{name}")))


def invoke(address: str, name: str, image: bytes, threshold: float | None = None) -> list[dict]:
    """One image to the function; what it found, unchanged."""
    body: dict[str, object] = {"image": base64.b64encode(image).decode()}
    if threshold is not None:
        body["threshold"] = threshold
    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        answer = client.post("/api/function_invocations", json=body, headers={"x-nuclio-function-name": name})
    return _json(answer)


def annotate(
    world: World,
    task: Task,
    address: str,
    name: str,
    *,
    threshold: float | None = None,
    cleanup: bool = False,
    mapping: dict[str, str] | None = None,
) -> int:
    """The whole task; how many shapes were written. Labels the task has none for are dropped.

    `mapping`: name in the model → name in the task; None: those of the same name and a type that goes with it.
    """
    detector = function(address, name)
    by_name = {label.name: label for label in task.labels}
    if mapping is None:
        mapping = {
            label: label
            for label, kind in detector.labels
            if label in by_name and ("any" in {kind, by_name[label].type} or kind == by_name[label].type)
        }
    written = []
    for number, frame in enumerate(task.frames):
        if number in task.deleted_frames:
            continue
        for found in invoke(address, name, frame.content, threshold):
            label = by_name.get(mapping.get(found["label"], ""))
            if label is not None:
                points = [float(point) for point in found["points"]]
                where = {"frame": number, "label_id": label.id, "type": found["type"], "points": points}
                written.append({**where, "source": "auto", "occluded": False, "z_order": 0})
    if cleanup:
        shapes.clear(world, task)
    shapes.create(world, task, {"shapes": written})
    return len(written)


def _function(entry: dict) -> Function:
    metadata = entry["metadata"]
    annotations = metadata["annotations"]
    labels = tuple((label["name"], label.get("type", "any")) for label in json.loads(annotations["spec"]))
    int(entry["status"]["httpPort"])
    return Function(metadata["name"], annotations["name"], annotations["type"], entry["spec"]["description"], labels)


def _json(answer: httpx.Response):
    if answer.status_code != 200:
        raise FunctionError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}")
    return answer.json()
