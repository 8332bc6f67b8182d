"""`detr-job predict`: run a model on image files."""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from detr_job import hardware
from detr_job.errors import JobError, OutOfMemory
from detr_job.prediction.drawing import draw_detections
from detr_job.prediction.lettering import missing_characters
from detr_job.prediction.predictor import NoMemory, Predictor
from detr_job.prediction.repeated import without_repeated
from prepared_set.decoding import FRAMES, NEARLY_BLACK, decode_image, lost_in_decoding, nearly_black
from prepared_set.errors import ImageError
from run_config.wording import plural, shortened
from run_config.writable import require_writable

PREDICTIONS = "predictions.json"
DRAWN = ".found.jpg"  # suffix of the drawn pictures' names
STEM_BYTES = 200  # a file name has at most 255
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


@dataclass(slots=True)
class _Noted:
    """Images that a person should know about."""

    full: list[str] = field(default_factory=list)
    """With as many boxes as the model can give."""
    dark: list[str] = field(default_factory=list)
    """Nearly black."""
    animated: list[str] = field(default_factory=list)
    """Of several frames or pages."""

    def look_at(self, path: Path, image: Image.Image) -> None:
        if (brightest := nearly_black(image)) is not None:
            self.dark.append(f"{path} (up to {brightest:,})")
        if FRAMES in lost_in_decoding(image):
            self.animated.append(str(path))


@contextmanager
def _no_memory_is_final() -> Iterator[None]:
    """Turn NoMemory into OutOfMemory: a retry may help a server of several models, but not this command."""
    try:
        yield
    except NoMemory as error:
        raise OutOfMemory(f"{error}, a model that was trained with a smaller data.eval_size, or --device cpu") from None


@_no_memory_is_final()
def predict_files(
    model_url: str,
    paths: Sequence[Path],
    out: Path | None,
    threshold: float | None,
    device_name: str,
    say: Callable[[str], None] = lambda _: None,
    left_out: dict[Path, str] | None = None,
    *,
    keep_repeated: bool = False,
) -> list[dict[str, Any]]:
    """One record per image: path, size and detections. With `out`, also write them and drawn pictures there.

    threshold: None means the model's own. `say` is called with notes about the result. Files without a record are added
    to `left_out` with the reason. keep_repeated: keep boxes that repeat a better one.
    Raises JobError when no file can be used.
    """
    left_out = {} if left_out is None else left_out
    if out is not None:
        require_writable(out, "--out")
    files = image_files(paths, left_out)
    device = hardware.choose_device(device_name)
    hardware.prepare(device)
    predictor = Predictor(model_url, device)
    if out is not None:
        (out / PREDICTIONS).unlink(missing_ok=True)  # of an earlier call; the new one is written when all is done
    names = picture_names(files)
    records = []
    noted = _Noted()
    first: JobError | None = None
    repeated_boxes = 0
    for path, name in zip(files, names, strict=True):
        try:
            image = decode_image(path.read_bytes())
            found = predictor(image, threshold)
        except (OSError, ImageError) as error:
            first = first or JobError(f"{path} cannot be read as an image: {error}")
            left_out[path] = f"cannot be read as an image: {error}"
            continue
        except NoMemory as error:
            first = first or error
            left_out[path] = str(error)
            continue
        if predictor.at_limit(found, threshold):
            noted.full.append(str(path))
        noted.look_at(path, image)
        everything = found
        found = everything if keep_repeated else without_repeated(everything)
        repeated_boxes += len(everything) - len(found)
        drawn = {} if out is None else {"picture": name}
        records.append(
            {
                "image": os.fsencode(path).decode("utf-8", "backslashreplace"),
                **drawn,
                "width": image.width,
                "height": image.height,
                "detections": [
                    {"label": each.label, "score": round(each.score, 4), "bbox": [round(side, 2) for side in each.bbox]}
                    for each in found
                ],
            }
        )
        if out is not None:
            _write(out / name, _jpeg(draw_detections(image, found, predictor.classes)))
    if first is not None and not records:
        raise first
    for warning in _warnings(predictor, noted, drawn=out is not None):
        say(f"warning: {warning}")
    if out is not None:
        _write(out / PREDICTIONS, json.dumps(records, indent=1, ensure_ascii=False).encode())
        if repeated_boxes:
            boxes = plural(repeated_boxes, "box", "boxes")
            say(f"left out: {boxes} with nearly the place of a better box (--keep-repeated keeps them)")
        say(predictor.threshold_sentence(threshold))
    return records


def _warnings(predictor: Predictor, noted: _Noted, *, drawn: bool) -> Iterator[str]:
    """Sentences about the result."""
    for name in predictor.classes if drawn else ():
        if missing := missing_characters(name):
            yield f"no font here has {', '.join(missing)} of the class {name!r}: drawn as empty boxes"
    if noted.dark:
        yield f"{shortened(noted.dark, 1)}: {NEARLY_BLACK}"
    if noted.animated:
        yield f"{shortened(noted.animated, 3)}: of several frames or pages, only the first was used"
    if noted.full:
        yield f"{shortened(noted.full, 1)}: {predictor.limit_sentence()}"


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise JobError(f"--out: {path} cannot be written: {error.strerror or error}") from error


def image_files(paths: Sequence[Path], left_out: dict[Path, str] | None = None) -> list[Path]:
    """The named files, and the images in the named folders, except pictures drawn by this command; each once.

    Other files in the folders are added to `left_out`, except hidden ones and what this command wrote.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            every = sorted(each for each in path.rglob("*") if not each.name.endswith(DRAWN))
            within = [each for each in every if each.is_file()]
            inside = [each for each in within if each.suffix.lower() in SUFFIXES]
            if left_out is not None:
                unlike = [
                    each for each in every if not (each.is_file() or _is_own_folder(each) or _is_no_photograph(each))
                ]
                left_out |= {each: _why_no_file(each) for each in unlike}
                other = [each for each in within if each.suffix.lower() not in SUFFIXES and not _is_no_photograph(each)]
                left_out |= dict.fromkeys(other, f"is not an image: its name does not end in {_suffixes()}")
            if not inside:
                raise JobError(f"{path} has no images ({_suffixes()})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise JobError(f"{path} does not exist")
    return list(dict.fromkeys(files))


def _is_own_folder(path: Path) -> bool:
    """Whether this is a folder whose files are listed too."""
    return path.is_dir() and not path.is_symlink()


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a link to a folder, which is not followed: name that folder as well"
    return "is a link to nothing" if path.is_symlink() else "is no file"


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def _is_no_photograph(path: Path) -> bool:
    """Whether nobody expects a prediction for this file: hidden, or written by this command or a file manager."""
    return path.name.startswith(".") or path.name in (PREDICTIONS, "Thumbs.db", "desktop.ini")


def picture_names(files: Sequence[Path]) -> list[str]:
    """A file name for each drawn picture, different from any photograph's. Equal names get a number."""
    names: list[str] = []
    taken: set[str] = set()
    for path in files:
        stem = os.fsencode(path.stem)[:STEM_BYTES].decode("utf-8", "ignore")
        number, name = 1, stem
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(name + DRAWN)
    return names
