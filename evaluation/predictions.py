"""The predictions file `predictions/<split>.json`: what the trainer writes and the report reads.

    {"format": 1, "set": "<prepared set id>", "split": "test", "model": "<short description>",
     "classes": ["RBC", ...], "images": [{"image_id": 1, "width": 640, "height": 480}],
     "predictions": [{"image_id": 1, "category_id": 0, "bbox": [x, y, width, height], "score": 0.93}]}

Boxes are in pixels of the decoded image. `images` lists every image that the model was run on, also those
without predictions; `category_id` is an index into `classes`.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evaluation.errors import PredictionsError
from evaluation.ground_truth import Box, GroundTruth, usable_box
from run_config.json_text import check_json

FORMAT = 1


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One predicted object: box in pixels (x, y, width, height), score in 0...1."""

    image_id: int
    category_id: int
    bbox: Box
    score: float


class PredictedImage(msgspec.Struct, frozen=True, gc=False):
    """One image that the model was run on; sizes in pixels."""

    image_id: int
    width: int
    height: int


class PredictionsFile(msgspec.Struct, frozen=True, kw_only=True, rename={"set_id": "set"}):
    """All predictions of one model on one split of one prepared set."""

    format: int = FORMAT
    set_id: str
    split: str
    model: str
    classes: tuple[str, ...]
    images: tuple[PredictedImage, ...]
    predictions: tuple[Prediction, ...]


def checked_predictions(
    predictions: Sequence[Prediction] | Sequence[Mapping[str, Any]],
    image_ids: set[int],
    category_ids: set[int],
    name: str = "the predictions",
) -> tuple[Prediction, ...]:
    """The predictions as records, each with a known image, a known class, and a valid box and score.

    Raises:
        PredictionsError: Names the first prediction (counted from 0) that is wrong, and why.
    """
    try:
        records = msgspec.convert(predictions, type=tuple[Prediction, ...])
    except msgspec.ValidationError as error:
        raise PredictionsError(f"{name} do not have the expected form: {error}") from error
    for index, record in enumerate(records):
        if record.image_id not in image_ids:
            _refuse(name, index, f"is for image {record.image_id}, which the split does not have")
        if record.category_id not in category_ids:
            _refuse(name, index, f"has category_id {record.category_id}, which the classes do not have")
        if not 0.0 <= record.score <= 1.0:
            _refuse(name, index, f"on image {record.image_id} has score {record.score}; it must be 0 to 1")
        if not usable_box(record.bbox):
            _refuse(
                name,
                index,
                f"on image {record.image_id} has the box {list(record.bbox)}: four finite numbers "
                "x, y, width, height are needed, the sizes not negative",
            )
    return records


def _refuse(name: str, index: int, reason: str) -> None:
    raise PredictionsError(f"prediction {index} of {name} {reason}")


def write_predictions(path: Path, content: PredictionsFile) -> None:
    """Check the content and write the file atomically.

    Raises:
        PredictionsError: The content is not valid; nothing was written.
    """
    _check(content, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(content))


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for their owner only; this one must be readable for everybody who can read the folder.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_predictions(
    source: Path | bytes,
    *,
    set_id: str | None = None,
    split: str | None = None,
    truth: GroundTruth | None = None,
    name: str | None = None,
) -> PredictionsFile:
    """Read and check a predictions file.

    Args:
        source: The file, or its bytes.
        set_id: The prepared set it must belong to.
        split: The split it must belong to.
        truth: That split's annotations: images, their sizes and the classes must be the same.
        name: Name of the file in messages. Default: its path.

    Raises:
        PredictionsError: Unreadable, newer, for another set, or with an invalid prediction.
    """
    name = name or (str(source) if isinstance(source, Path) else "the predictions file")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        check_json(data)
        version = msgspec.json.decode(data, type=_OnlyFormat).format
        if version != FORMAT:
            raise PredictionsError(
                f"{name} has format {version}, this version reads {FORMAT}: use the version that wrote it"
            )
        content = msgspec.json.decode(data, type=PredictionsFile)
    except OSError as error:
        raise PredictionsError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PredictionsError(f"{name} is not a predictions file: {error}") from error
    _check(content, name)
    _check_belongs(content, name, set_id=set_id, split=split)
    if truth is not None:
        _check_fits(content, name, truth)
    return content


class _OnlyFormat(msgspec.Struct):
    """Decoded first, so that a file of a newer format is reported as newer and not as broken."""

    format: int


def _check(content: PredictionsFile, name: str) -> None:
    """Checks that hold for any predictions file, whatever the set."""
    image_ids = {image.image_id for image in content.images}
    if len(image_ids) != len(content.images):
        raise PredictionsError(f"{name} lists an image more than once under `images`")
    if len(set(content.classes)) != len(content.classes):
        raise PredictionsError(f"{name} lists a class more than once under `classes`")
    checked_predictions(content.predictions, image_ids, set(range(len(content.classes))), name)


def _check_belongs(content: PredictionsFile, name: str, *, set_id: str | None, split: str | None) -> None:
    """Predictions of another set would silently be measured against the wrong boxes."""
    if set_id is not None and content.set_id != set_id:
        raise PredictionsError(
            f"{name} was made on the prepared set {content.set_id}, not on {set_id}: name the set of that run"
        )
    if split is not None and content.split != split:
        raise PredictionsError(f"{name} is for the split {content.split!r}, not {split!r}")


def _check_fits(content: PredictionsFile, name: str, truth: GroundTruth) -> None:
    """Require the same classes in the same order, and the same images and sizes."""
    if truth.class_names() != content.classes:
        raise PredictionsError(
            f"{name} has the classes {list(content.classes)}, the prepared set {list(truth.class_names())}: "
            "they must be the same, in the same order"
        )
    wanted = {image.id: (image.width, image.height) for image in truth.images}
    for image in content.images:
        if image.image_id not in wanted:
            raise PredictionsError(f"{name} lists image {image.image_id}, which the split does not have")
        if wanted[image.image_id] != (image.width, image.height):
            width, height = wanted[image.image_id]
            raise PredictionsError(
                f"{name} has image {image.image_id} as {image.width}x{image.height} pixels, the set as "
                f"{width}x{height}: boxes must be in pixels of the image as the set has it"
            )
    missing = sorted(set(wanted) - {image.image_id for image in content.images})
    if missing:
        raise PredictionsError(
            f"{name} is missing {len(missing)} of {len(wanted)} images of the split (first: {missing[0]}); "
            "predict on the whole split"
        )
