"""The step `annotate`: add the boxes that a trained model predicts to CVAT tasks.

Manual annotations stay unless `replace-all` is set. A retry after a lost pod does not add boxes twice.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvat_client import grants
from cvat_client.api import CvatApi
from cvat_client.errors import BridgeError, CvatRefusedError
from cvat_client.patience import Patience
from cvat_client.settings import load_settings
from cvat_client.subject import Subject
from cvat_steps import annotated_tasks
from cvat_steps.annotated_tasks import (
    AUTO,
    CvatTask,
    Label,
    Shape,
    UnreadableFrame,
    as_rectangle,
    batches,
    doubled,
    new_shape,
    task_ids,
)
from cvat_steps.new_shapes import Existing, Rectangle, attribute_values, not_there_yet
from detr_job.prediction.predictor import UnreadableImage, model_place
from model_server.function import Detector, create
from run_config.argo_progress import ArgoProgress
from run_config.argo_text import leave_sentence
from run_config.installation import permitted
from run_config.wording import plural, shortened

LINE_EACH_S = 10.0
MOST_MESSAGE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateRequest:
    """Options of `cvat-bridge annotate`."""

    store: str
    subject: str
    grant: str
    model: str
    threshold: float | None = None
    """Lowest score of a box. None: the installation's threshold, else the model's own."""
    existing: str = Existing.KEEP
    device: str = "cuda"
    out: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The workflow's parameters: name → text."""


@dataclass(frozen=True, slots=True)
class _Context:
    """The context of one image, in the form of CVAT's SDK."""

    frame_name: str
    conf_threshold: float | None
    conv_mask_to_poly: bool = False


@dataclass(slots=True)
class AnnotateOutcome:
    """Counts over all tasks, for the step's message."""

    tasks: int = 0
    images: int = 0
    added: int = 0
    there: int = 0
    removed: int = 0
    unreadable: int = 0
    cut: int = 0
    """Images where the number of boxes reached the model's limit."""
    warnings: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """The message of the run."""
        said = f"{plural(self.added, 'box', 'boxes')} added on {plural(self.images, 'image')} of "
        said += plural(self.tasks, "task")
        if self.there:
            said += f"; {self.there} were there already"
        if self.removed:
            said += f"; {plural(self.removed, 'shape')} removed"
        if self.unreadable:
            said += f"; {plural(self.unreadable, 'image')} could not be read"
        return " ".join([f"{said}.", *self.warnings])[:MOST_MESSAGE]


class AnnotateProgress:
    """Reports progress in the log and to Argo. Argo shows at most 99 of 100, because the upload follows."""

    def __init__(self, environment: Mapping[str, str], total: int) -> None:
        self._argo = ArgoProgress(environment)
        self._total, self._said = max(total, 1), time.monotonic()

    def update(self, done: int, line: str) -> None:
        """Report `done` images of all tasks. The line is logged at most every LINE_EACH_S seconds."""
        now = time.monotonic()
        if now - self._said >= LINE_EACH_S:
            self._said = now
            say(line)
        self._argo.tell(done / self._total)


def say(line: str) -> None:
    """Write a line to the step's log."""
    print(line, file=sys.stderr, flush=True)


def annotate(
    request: AnnotateRequest, environment: Mapping[str, str] = os.environ, *, patience_s: float | None = None
) -> str:
    """Annotate the tasks. Returns a message about the result, and writes it to `out`/outputs/message.

    patience_s: how long to retry while CVAT is unreachable. None: as in the settings. Raises BridgeError, JobError,
    StoreError, ConfigError with the exit codes in docs/contracts.md.
    """
    settings = load_settings(environment)
    existing = _checked(request)
    subject = Subject.parse(request.subject)
    key = grants.signing_key(environment.get("CVAT_BRIDGE_SIGNING_KEY"))
    expired_too = settings.grants.accept_expired
    grants.verify(request.grant, subject, key, purpose=grants.Purpose.ANNOTATE, accept_expired=expired_too)
    given = {"store": request.store, "trained-model": request.model}
    place = permitted({**request.parameters, **given})["trained-model"]
    longest_s = settings.exports.save_for_s if patience_s is None else patience_s
    patience = Patience(longest_s, annotated_tasks.PACE, say)
    with (
        tempfile.TemporaryDirectory(prefix="cvat-bridge-") as folder,
        CvatApi(settings.cvat, environment.get("CVAT_ACCESS_TOKEN")) as api,
    ):
        outcome = AnnotateOutcome()
        numbers = task_ids(api, subject, patience)
        tasks = _open(numbers, lambda number: CvatTask(api, number, patience, Path(folder)), outcome)
        threshold = settings.models.threshold if request.threshold is None else request.threshold
        detector = create(model_place(place, request.store), request.device, threshold)
        say(detector.predictor.threshold_sentence(threshold))
        matching = [(task, labels) for task in tasks if (labels := _labels(task, detector, outcome))]
        if not matching:
            raise BridgeError(" ".join(outcome.warnings) or f"{subject} has no tasks that can be annotated")
        progress = AnnotateProgress(environment, sum(len(task) for task, _ in matching))
        for task, labels in matching:
            _annotate_task(task, labels, detector, _run_name(place), existing, patience, outcome, progress)
    if outcome.cut:
        _warn(outcome, f"On {plural(outcome.cut, 'image')}: {detector.predictor.limit_sentence()}.")
    if not outcome.tasks:
        raise BridgeError(" ".join(outcome.warnings))
    if outcome.unreadable and not outcome.images:
        raise BridgeError(f"no image could be read: {outcome.sentence()}")
    if request.out is not None:
        leave_sentence(request.out, "message", outcome.sentence())
    return outcome.sentence()


def _checked(request: AnnotateRequest) -> Existing:
    if request.threshold is not None and not 0 <= request.threshold <= 1:
        raise BridgeError(f"--threshold must be from 0 to 1, not {request.threshold}")
    try:
        return Existing(request.existing)
    except ValueError:
        raise BridgeError(f"--existing must be one of {', '.join(Existing)}, not {request.existing[:80]!r}") from None


def _open(numbers: list[int], open_task: Callable[[int], CvatTask], outcome: AnnotateOutcome) -> list[CvatTask]:
    """Open the tasks. Tasks that CVAT refuses are skipped if there are several."""
    tasks = []
    for number in numbers:
        try:
            tasks.append(open_task(number))
        except CvatRefusedError as error:
            if len(numbers) == 1 or type(error) is not CvatRefusedError:
                raise
            _warn(outcome, f"Left out: {error}.")
    return tasks


def _labels(task: CvatTask, detector: Detector, outcome: AnnotateOutcome) -> dict[int, Label]:
    """The model's label id → the task's label with the same name. Empty: no label matches."""
    labels = {each.id: task.labels[each.name] for each in detector.spec.labels if each.name in task.labels}
    missing = [each.name for each in detector.spec.labels if each.name not in task.labels]
    if not labels:
        _warn(
            outcome,
            f"{task.title} is left out: none of the model's classes ({_some(missing)}) is a label of it for "
            f"rectangles ({_some(list(task.labels)) or 'it has none'}): give it labels of the same names.",
        )
    elif missing:
        _warn(outcome, f"{task.title} has no label for {_some(missing)}: these were left out.")
    return labels


def _annotate_task(
    task: CvatTask,
    labels: dict[int, Label],
    detector: Detector,
    model: str,
    existing: Existing,
    patience: Patience,
    outcome: AnnotateOutcome,
    progress: AnnotateProgress,
) -> None:
    """Predict boxes on all images first, and only then change the task."""
    before, found, unread = outcome.images, list[Rectangle](), set[int]()
    say(f"{task.title}: {plural(len(task), 'image')}")
    for count, (frame, image) in enumerate(task.frames(), 1):
        try:
            if isinstance(image, UnreadableFrame):
                raise image
            shapes = detector.detect(_Context(frame.name, None), image)
            outcome.cut += detector.at_limit
        except (UnreadableFrame, UnreadableImage) as error:
            outcome.unreadable += 1
            unread.add(frame.index)
            say(f"warning: {task.title}, {frame.name!r} is left out: {' '.join(str(error).split())}")
            continue
        outcome.images += 1
        for shape in shapes:
            if shape.label_id in labels:
                x1, y1, x2, y2 = shape.points
                found.append(Rectangle(frame.index, labels[shape.label_id].id, (x1, y1, x2, y2), shape.score))
        progress.update(before + count, f"{task.title}: {count}/{len(task)} images, {len(found)} boxes")
    if existing is Existing.REPLACE_ALL and unread:
        outcome.images = before
        _warn(
            outcome,
            f"{task.title} is left as it was: {plural(len(unread), 'image')} could not be read, and replace-all would "
            "delete their shapes without new ones. Delete these images in CVAT, or choose replace-automatic.",
        )
        return
    attributes = {label.id: label.attributes for label in labels.values()}

    def as_shape(each: Rectangle) -> dict[str, Any]:
        return new_shape(each, attribute_values(attributes[each.label_id], model, each.score))

    _upload(task, found, unread, existing, patience, outcome, as_shape)
    outcome.tasks += 1


def _upload(
    task: CvatTask,
    found: list[Rectangle],
    unread: set[int],
    existing: Existing,
    patience: Patience,
    outcome: AnnotateOutcome,
    as_shape: Callable[[Rectangle], dict[str, Any]],
) -> None:
    if existing is Existing.REPLACE_ALL:
        task.replace(map(as_shape, found))
        outcome.added += len(found)
        return
    annotations = task.annotations()
    there = list(annotations.shapes)
    if annotations.tracks:
        _warn(outcome, f"{task.title} has tracks, which stay: the model's boxes were not compared with theirs.")
    # Old boxes are removed last: if the pod is lost in between, the retry removes old and new ones as old.
    # On images that could not be read there are no new boxes, so the old ones stay.
    replacing = existing is Existing.REPLACE_AUTOMATIC
    old = [each for each in there if replacing and each.source == AUTO and each.frame not in unread]
    going = {each.id for each in old}
    new = _missing(found, there, going)
    outcome.there += len(found) - len(new)
    outcome.added += len(new)
    before, lost = {each.id for each in there}, False
    for part in batches(new):
        left, tried = part, False

        def add_what_is_missing() -> None:
            # Without a response it is unknown whether CVAT has added the shapes: compare before a retry.
            nonlocal left, tried, lost
            if tried:
                left, lost = _missing(left, task.annotations().shapes, going), True
            tried = True
            if left:
                task.add(map(as_shape, left))

        patience.ask(add_what_is_missing, pace=annotated_tasks.AFTER_WRITING)
    if lost:
        # CVAT may have added shapes twice: the first request may have succeeded after the comparison.
        task.remove(doubled(each for each in task.annotations().shapes if each.id not in before))
    task.remove(old)
    outcome.removed += len(old)


def _missing(found: list[Rectangle], there: Iterable[Shape], going: set[int]) -> list[Rectangle]:
    """The boxes of `found` that no remaining shape covers. `going`: ids of the shapes that will be removed."""
    stays = (as_rectangle(each) for each in there if each.id not in going)
    return not_there_yet(found, [box for box in stays if box is not None])


def _run_name(model: str) -> str:
    """The value of an attribute `model`: the name of the run that contains the folder `model/`."""
    parts = model.rstrip("/").removesuffix("/model").split("/")
    return parts[-1][:100] or model[:100]


def _warn(outcome: AnnotateOutcome, sentence: str) -> None:
    say(f"warning: {sentence}")
    outcome.warnings.append(sentence)


def _some(names: list[str]) -> str:
    """The first few names, each shortened to one line."""
    return shortened([" ".join(name.split())[:40] for name in names])
