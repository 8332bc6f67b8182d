"""Annotations of a task: checked, numbered, replaced, added to, changed, removed."""

from collections.abc import Mapping

from tests.cvat_double.world import Task, World, now

KINDS = ("tags", "shapes", "tracks")
TYPES = {"rectangle", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"}


class InvalidAnnotationsError(Exception):
    """`problem` is the body of the answer 400."""

    def __init__(self, problem: object) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(task: Task) -> dict:
    return {"version": task.version, "tags": task.tags, "shapes": task.shapes, "tracks": task.tracks, "intervals": []}


def put(world: World, task: Task, body: Mapping) -> dict:
    """Replace all."""
    checked = _check(task, body)
    with world.lock:
        for kind in KINDS:
            setattr(task, kind, [])
        return create(world, task, checked)


def create(world: World, task: Task, body: Mapping) -> dict:
    """Add; the answer has what was added, with its new ids."""
    checked = _check(task, body)
    added: dict[str, list[dict]] = {}
    with world.lock:
        for kind in KINDS:
            added[kind] = [{**one, "id": world.number()} for one in checked[kind]]
            getattr(task, kind).extend(added[kind])
        _touch(task)
        return {"version": task.version, **added, "intervals": []}


def delete(world: World, task: Task, body: Mapping) -> dict:
    with world.lock:
        for kind in KINDS:
            gone = {one.get("id") for one in body.get(kind, [])}
            setattr(task, kind, [one for one in getattr(task, kind) if one["id"] not in gone])
        _touch(task)
    return {"version": task.version, "tags": [], "shapes": [], "tracks": [], "intervals": []}


def update(world: World, task: Task, body: Mapping) -> dict:
    """Replace those of the same ids, as CVAT does: remove, then add."""
    checked = _check(task, body)
    delete(world, task, body)
    return create(world, task, checked)


def clear(world: World, task: Task) -> None:
    with world.lock:
        for kind in KINDS:
            setattr(task, kind, [])
        _touch(task)


def _touch(task: Task) -> None:
    task.version += 1
    task.updated = now()


def _check(task: Task, body: Mapping) -> dict[str, list[dict]]:
    """The lists with every default filled in."""
    if not isinstance(body, Mapping):
        raise InvalidAnnotationsError({"non_field_errors": ["Invalid data. Expected a dictionary."]})
    known = {label.id for label in task.labels}
    checked: dict[str, list[dict]] = {}
    for kind in KINDS:
        entries = body.get(kind, [])
        if not isinstance(entries, list):
            raise InvalidAnnotationsError({kind: ['Expected a list of items but got type "str".']})
        checked[kind] = []
        for entry in entries:
            missing = [name for name in ("label_id", "frame") if not isinstance(entry.get(name), int)]
            if missing:
                raise InvalidAnnotationsError({kind: [{name: ["This field is required."] for name in missing}]})
            if entry["label_id"] not in known:
                raise InvalidAnnotationsError([f"label_id `{entry['label_id']}` is invalid"])
            if not 0 <= entry["frame"] < len(task.frames):
                raise InvalidAnnotationsError([f"frame {entry['frame']} is out of range"])
            checked[kind].append(_filled(kind, entry))
    return checked


def _filled(kind: str, entry: dict) -> dict:
    filled = {"group": 0, "source": "manual", "attributes": [], **entry}
    if kind == "tags":
        return filled
    if kind == "tracks":
        return {"elements": [], **filled}
    if filled.get("type") not in TYPES:
        raise InvalidAnnotationsError({"shapes": [{"type": [f'"{filled.get("type")}" is not a valid choice.']}]})
    points = filled.get("points", [])
    if filled["type"] == "rectangle" and len(points) != 4:
        raise InvalidAnnotationsError({"shapes": [{"points": [f"a rectangle has 4 numbers, not {len(points)}"]}]})
    defaults = {"occluded": False, "outside": False, "z_order": 0, "rotation": 0.0, "elements": [], "score": 1.0}
    return {**defaults, **filled, "points": [float(point) for point in points]}
