"""Preview of a run's training data: numbers, classes and advice, shown in the form before the run starts.

Read with the user's own session. The counts are those of CVAT's shapes. The step `prepare` checks the exported data.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from cvat_bridge.access import VisibleSubject
from cvat_bridge.http.schemas import ClassSchema, NoteSchema, SubjectSchema, TaskSchema
from cvat_bridge.jobs import done_jobs, job_count
from cvat_client.errors import CvatRefusedError, CvatUnavailableError
from cvat_client.questions import CvatQuestions, whole_number
from cvat_client.settings import Cvat, DoneJobs
from cvat_client.subject import Kind
from run_config.wording import shortened

log = logging.getLogger(__name__)

FEW_BOXES = 100
"""With fewer boxes in total, the form warns that a model learns little."""

FEW_OF_A_CLASS = 20
MANY_UNTOUCHED = 0.1
"""Above this share of boxes that only a model has drawn, the form warns."""

MOST_TASKS_COUNTED = 30
MOST_ANNOTATION_BYTES = 16 * 2**20
COUNTING_S = 8.0
"""Time limit for counting boxes. The user waits, and all users together get two large responses at a time."""

_MOST_TASKS = 500
_MOST_LABELS = 1000
_AT_ONCE = 4

_BOXES = frozenset({"rectangle", "polygon", "mask", "ellipse"})
_DROPPED = {"points": "points", "polyline": "lines", "cuboid": "cuboids", "skeleton": "skeletons", "tag": "tags"}
UNTOUCHED = "auto"
"""The `source` of shapes that a model drew. CVAT sets it to `semi-auto` as soon as a person changes the shape."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass
class Counted:
    """Counts over tasks.

    `boxes`: by label id; `untouched`: those of them that a model drew and nobody has changed since; `dropped`: shapes
    that are not used, by kind.
    """

    boxes: Counter[int] = field(default_factory=Counter)
    untouched: int = 0
    images_with_boxes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class LabelPreview:
    """A label of CVAT. Labels of the same name in several tasks are one class."""

    id: int
    name: str
    color: str
    type: str


async def facts(cvat: CvatQuestions, seen: VisibleSubject, settings: Cvat) -> SubjectSchema:
    """The preview: key `subject` of the form. Raises CvatRefusedError, CvatUnavailableError."""
    tasks, all_tasks = await _tasks(cvat, seen)
    labels, counted, done = await asyncio.gather(
        _labels(cvat, seen), _counted(cvat, seen, tasks, all_tasks), _done_jobs(cvat, seen, tasks, settings.done_jobs)
    )
    images = sum(whole_number(task.get("size")) for task in tasks)
    boxes = _by_class(labels, counted)
    total = None if counted is None else sum(counted.boxes.values())
    unfinished = [one for task in tasks if (one := _unfinished(task, done)) is not None]
    return {
        "kind": seen.subject.kind.value,
        "ids": list(seen.subject.ids),
        "title": _title(seen),
        "url": f"{settings.public_origin.rstrip('/')}/{seen.subject.kind}s/{seen.subject.ids[0]}",
        "images": images,
        "boxes": total,
        "untouched": counted.untouched if counted else None,
        "classes": boxes,
        "unfinished": unfinished,
        "notes": notes(images, total, counted, boxes, unfinished, len(tasks), all_tasks),
    }


async def class_count(cvat: CvatQuestions, seen: VisibleSubject) -> int:
    """The number of classes in an export."""
    return len({label.name for label in await _labels(cvat, seen)})


async def _tasks(cvat: CvatQuestions, seen: VisibleSubject) -> tuple[list[Mapping[str, Any]], int]:
    if seen.subject.kind is Kind.TASK:
        return list(seen.things), len(seen.things)
    query = {"project_id": seen.subject.ids[0]}
    found, count = await cvat.listed("tasks", seen.who, query, most=_MOST_TASKS)
    return list(found), count


async def _labels(cvat: CvatQuestions, seen: VisibleSubject) -> list[LabelPreview]:
    semaphore = asyncio.Semaphore(_AT_ONCE)

    async def of(number: int) -> list[dict[str, Any]]:
        async with semaphore:
            query = {f"{seen.subject.kind}_id": number}
            return (await cvat.listed("labels", seen.who, query, most=_MOST_LABELS))[0]

    found = await asyncio.gather(*(of(number) for number in seen.subject.ids))
    labels = {}
    for tree in (one for some in found for one in some):
        number = whole_number(tree.get("id"))
        if number and tree.get("parent_id") is None:
            color = str(tree.get("color") or "")
            labels[number] = LabelPreview(
                number,
                str(tree.get("name") or ""),
                color if _COLOUR.fullmatch(color) else "#808080",
                str(tree.get("type") or "any"),
            )
    return list(labels.values())


async def _counted(
    cvat: CvatQuestions, seen: VisibleSubject, tasks: list[Mapping[str, Any]], all_tasks: int
) -> Counted | None:
    """Count boxes in all tasks. None: it takes too long, or CVAT does not give all annotations."""
    if all_tasks > MOST_TASKS_COUNTED or len(tasks) > MOST_TASKS_COUNTED:
        return None
    total, whole = Counted(), True

    async def add(task: Mapping[str, Any]) -> None:
        number = whole_number(task.get("id"))
        async with cvat.large_responses:
            path = f"tasks/{number}/annotations"
            tree = await cvat.get(path, seen.who, most_bytes=MOST_ANNOTATION_BYTES // max(1, len(tasks)))
            own = Counted()
            await anyio.to_thread.run_sync(count_boxes, task, tree, own)
            total.boxes.update(own.boxes)
            total.untouched += own.untouched
            total.dropped.update(own.dropped)
            total.images_with_boxes += own.images_with_boxes

    try:
        # The first failure cancels the other tasks: a partial count is of no use.
        async with asyncio.timeout(COUNTING_S), asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(add(task))
    except* (CvatUnavailableError, TimeoutError) as errors:
        log.info("boxes are not counted: %s", errors.exceptions[0], extra={"subject": str(seen.subject)})
        whole = False
    except* CvatRefusedError:
        # CVAT refuses the annotations of a task without images.
        whole = False
    return total if whole else None


def count_boxes(task: Mapping[str, Any], annotations: Mapping[str, Any], into: Counted) -> None:
    """Add the boxes that an export of the task would have: shapes, and one box per frame of each track."""
    size, segment = whole_number(task.get("size")), whole_number(task.get("segment_size"))
    spans: list[tuple[int, int]] = []
    for shape in _mappings(annotations.get("shapes")):
        kind, frame = str(shape.get("type")), whole_number(shape.get("frame"))
        if kind in _BOXES:
            into.boxes[whole_number(shape.get("label_id"))] += 1
            into.untouched += shape.get("source") == UNTOUCHED
            spans.append((frame, frame + 1))
        else:
            into.dropped[_DROPPED.get(kind, "other shapes")] += 1
    for track in _mappings(annotations.get("tracks")):
        keys = sorted(_mappings(track.get("shapes")), key=lambda one: whole_number(one.get("frame")))
        if not keys or str(keys[0].get("type")) not in _BOXES:
            into.dropped["other tracks"] += 1
            continue
        covered = _covered(keys, size, segment)
        into.boxes[whole_number(track.get("label_id"))] += _frames_in(covered)
        into.untouched += _frames_in(covered) if track.get("source") == UNTOUCHED else 0
        spans += covered
    into.dropped["tags"] += len(_mappings(annotations.get("tags")))
    into.images_with_boxes += _frames_in(spans)


def _covered(keys: list[Mapping[str, Any]], size: int, segment: int) -> list[tuple[int, int]]:
    """Spans [start, end) of the frames with a track: from each keyframe to the next, or to the end of its job."""
    spans = []
    for place, key in enumerate(keys):
        start = whole_number(key.get("frame"))
        if key.get("outside"):
            continue
        if place + 1 < len(keys):
            end = whole_number(keys[place + 1].get("frame"))
        else:
            end = min(size, (start // segment + 1) * segment) if segment > 0 else size
        spans.append((start, max(start + 1, min(end, size))))
    return spans


def _frames_in(spans: Iterable[tuple[int, int]]) -> int:
    """The number of frames in at least one span. Only span ends are compared, as a video has many frames."""
    total, reached = 0, -1
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_class(labels: Iterable[LabelPreview], counted: Counted | None) -> list[ClassSchema]:
    by_name: dict[str, list[LabelPreview]] = {}
    for label in labels:
        by_name.setdefault(label.name, []).append(label)
    return [
        {
            "name": name,
            "color": same[0].color,
            "boxes": (number := None if counted is None else sum(counted.boxes[label.id] for label in same)),
            "warning": _warning(same, number),
        }
        for name, same in by_name.items()
    ]


def _warning(same: list[LabelPreview], boxes: int | None) -> str | None:
    kinds = {label.type for label in same}
    if kinds <= set(_DROPPED):
        return f"This label is for {_DROPPED[same[0].type]}, and the model learns boxes only."
    if boxes == 0:
        return "No boxes: the model will never find this class."
    if boxes is not None and boxes < FEW_OF_A_CLASS:
        return f"Fewer than {FEW_OF_A_CLASS} boxes: the model will miss most of this class. 100 or more are better."
    return None


async def _done_jobs(
    cvat: CvatQuestions, seen: VisibleSubject, tasks: list[Mapping[str, Any]], rule: DoneJobs
) -> Counter[int]:
    """Task id → jobs that are done."""
    if seen.subject.kind is Kind.PROJECT:
        return await done_jobs(cvat, seen.who, Kind.PROJECT, seen.subject.ids[0], tasks, rule)
    semaphore = asyncio.Semaphore(_AT_ONCE)

    async def of(number: int, task: Mapping[str, Any]) -> Counter[int]:
        async with semaphore:
            return await done_jobs(cvat, seen.who, Kind.TASK, number, [task], rule)

    found = await asyncio.gather(*map(of, seen.subject.ids, tasks))
    return sum(found, Counter())


def _unfinished(task: Mapping[str, Any], done: Mapping[int, int]) -> TaskSchema | None:
    number, count = whole_number(task.get("id")), job_count(task)
    completed = done.get(number, 0)
    if completed >= count:
        return None
    return {
        "id": number,
        "name": str(task.get("name") or ""),
        "jobs": count,
        "completed": completed,
    }


def _title(seen: VisibleSubject) -> str:
    name = str(seen.things[0].get("name") or f"{seen.subject.kind} {seen.subject.ids[0]}")
    return shortened([name, *map(str, seen.things[1:])], 1)


def notes(
    images: int,
    boxes: int | None,
    counted: Counted | None,
    classes: list[ClassSchema],
    unfinished: list[TaskSchema],
    tasks: int,
    all_tasks: int,
) -> list[NoteSchema]:
    """Warnings and advice for the annotator before the run starts."""
    found = []
    if not images:
        found.append(_warn("There are no images.", "Upload images to the task first."))
    if boxes is None or counted is None:
        found.append(
            _tell("The boxes were not counted: that would take too long while you wait.", "The run checks them itself.")
        )
    elif boxes == 0:
        found.append(_warn("There are no boxes, so there is nothing to learn.", "Draw boxes and save, then come back."))
    elif boxes < FEW_BOXES:
        advice = (
            f"Draw boxes on more images until there are {FEW_BOXES} or more, best some of every class, from different "
            "scenes. If a model of an earlier run knows these classes, start from it."
        )
        found.append(_warn(f"There are only {boxes} boxes. A model learns little from so few.", advice))
    if counted is not None and boxes and counted.untouched > MANY_UNTOUCHED * boxes:
        advice = (
            "They are left out, unless you choose to keep them. Look through them in CVAT before you train, correct "
            "what is wrong, and draw what is missing. A model that learns from its own boxes repeats its mistakes."
        )
        text = f"{counted.untouched} of {boxes} boxes were drawn by a model, and nobody has changed them."
        found.append(_warn(text, advice))
    few = [one["name"] for one in classes if one["boxes"] is not None and 0 < one["boxes"] < FEW_OF_A_CLASS]
    if few and boxes is not None and boxes >= FEW_BOXES:
        text = f"{len(few)} of {len(classes)} classes have fewer than {FEW_OF_A_CLASS} boxes."
        found.append(_warn(text, "Draw more of them, or the model will miss most of them."))
    if counted is not None and boxes and images > counted.images_with_boxes and not unfinished:
        empty = images - counted.images_with_boxes
        advice = "The model learns that nothing is on them. Is that so?"
        found.append(_tell(f"{empty} of {images} images have no box.", advice))
    lost = [f"{number} {kind}" for kind, number in (counted.dropped if counted else Counter()).items() if number]
    if lost:
        found.append(
            _tell(f"Not used: {', '.join(sorted(lost))}.", "The model learns boxes, polygons, masks, ellipses.")
        )
    if all_tasks > tasks:
        found.append(_tell(f"Only {tasks} of {all_tasks} tasks are shown here.", "The run takes all of them."))
    return found


def _warn(text: str, advice: str) -> NoteSchema:
    return {"level": "warning", "text": text, "advice": advice}


def _tell(text: str, advice: str) -> NoteSchema:
    return {"level": "info", "text": text, "advice": advice}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
