"""The change log: what was corrected or dropped while a set was prepared, as counts with a few examples.

Nothing is changed silently: code that drops or moves a box adds an entry here. The report page, `--json` and
the manifest show the log.
"""

from dataclasses import dataclass, field
from enum import Enum

from data_prep.sources.files import printable
from prepared_set.manifest import Change, Example

EXAMPLES_KEPT = 5


class Reason(Enum):
    """Why something differs from the export: (name, action, sentence)."""

    BOX_CLIPPED = ("box-clipped", "mended", "Boxes reached over the edge of their image and were cut to it.")
    BOX_ROTATED = (
        "box-rotated",
        "mended",
        "Rotated rectangles were replaced by the upright box that encloses them.",
    )
    BOX_TURNED = (
        "box-turned",
        "mended",
        "Boxes were drawn before the image's EXIF orientation was applied and were turned with it.",
    )
    CROWD = (
        "crowd-flag",
        "mended",
        "Annotations marked as crowds (iscrowd=1) count as one object each, because CVAT marks masks and ellipses so.",
    )
    BOX_REVERSED = (
        "box-reversed",
        "mended",
        "Boxes had a negative width or height: they were drawn from the right or from below, and were reversed.",
    )
    BOX_FROM_OUTLINE = (
        "box-from-outline",
        "mended",
        "Annotations had no box: the box around their outline was used.",
    )
    BOX_CALCULATED = (
        "box-calculated",
        "mended",
        "Boxes of a track between or after its keyframes were not in the file, and were calculated as CVAT does.",
    )
    BOX_OTHER_FORM = (
        "box-other-form",
        "mended",
        "Boxes were written in another form than x, y, width, height in pixels, and were converted.",
    )
    SHAPES_GROUPED = (
        "shapes-grouped",
        "mended",
        "Grouped shapes of one class are one object, with one box around all of them.",
    )
    TEXT_NUMBER = ("text-number", "mended", "Numbers were written as text and were read as numbers.")
    ANNOTATION_ID_REPEATED = (
        "annotation-id-repeated",
        "mended",
        "Annotation ids occurred more than once; COCO tools keep one of each, here all got new ids.",
    )
    CATEGORY_MERGED = (
        "category-merged",
        "mended",
        "Categories with the same name were merged into one class.",
    )
    CLASS_RENAMED = (
        "class-renamed",
        "mended",
        "Boxes got the class that class-map gives them.",
    )
    SIZE_UNKNOWN = (
        "image-size-unknown",
        "mended",
        "Images had no size in the annotation file: the file's own size was taken.",
    )
    NAME_CASE = (
        "image-name-case",
        "mended",
        "Images were found under a name that differs only in upper and lower case.",
    )
    NAME_SPELLING = (
        "image-name-spelling",
        "mended",
        "Images were found under another spelling of their name: percent-encoding, Unicode form or code page.",
    )
    NAME_FOLDER = (
        "image-name-folder",
        "mended",
        "Images were found in another folder than the one that is listed.",
    )
    NAME_EXTENSION = (
        "image-name-extension",
        "mended",
        "Images were found under the same name with another extension.",
    )
    NAME_BESIDE = (
        "image-name-beside",
        "mended",
        "Annotation files named an image that is not there: the image that is called like the file was used.",
    )
    NAME_TAKEN = (
        "image-name-taken",
        "mended",
        "Images had the same name in two sources, subsets or splits and were renamed.",
    )
    IMAGE_FRAMES = (
        "image-frames",
        "mended",
        "Image files held several frames or pages: only the first is used.",
    )
    IMAGE_TRANSPARENCY = (
        "image-transparency",
        "mended",
        "Images had transparent pixels: the colours beneath are used.",
    )
    IMAGE_CMYK = (
        "image-cmyk",
        "mended",
        "Images in CMYK colours were converted without their colour profile.",
    )
    IMAGE_DEPTH = (
        "image-depth",
        "mended",
        "Images with 16 bits per channel keep the upper 8.",
    )
    IMAGE_FORMAT = (
        "image-format",
        "mended",
        "Image files had another format than their extension says: they are read by their content.",
    )
    BOX_NOT_A_NUMBER = (
        "box-not-a-number",
        "dropped",
        "Boxes were missing or had coordinates that are not finite numbers.",
    )
    BOX_EMPTY = ("box-empty", "dropped", "Boxes had no width or no height.")
    BOX_OUTSIDE = ("box-outside", "dropped", "Boxes lay wholly outside their image.")
    SHAPE_WITHOUT_BOX = (
        "shape-without-box",
        "dropped",
        "Points, polylines, cuboids, skeletons, tags and parts of objects are no objects with a box and were left out.",
    )
    BOX_AUTOMATIC = (
        "box-automatic",
        "dropped",
        "Boxes were drawn by a model and nobody has changed them; they were left out.",
    )
    IMAGE_AUTOMATIC = (
        "image-automatic",
        "dropped",
        "A model drew all boxes of these images; the images were left out, because they are not empty.",
    )
    UNKNOWN_IMAGE = (
        "unknown-image",
        "dropped",
        "Annotations belonged to an image that the annotation file does not list.",
    )
    UNKNOWN_CATEGORY = (
        "unknown-category",
        "dropped",
        "Annotations belonged to a category that the annotation file does not list.",
    )
    CLASS_NOT_CHOSEN = (
        "class-not-chosen",
        "dropped",
        "Boxes have a class that was not chosen.",
    )
    MARKED_IGNORED = (
        "marked-ignored",
        "dropped",
        "Regions are marked to be ignored, for example DontCare in KITTI, 0 in MOT or ignore in COCO.",
    )
    IMAGE_MISSING = (
        "image-missing",
        "dropped",
        "Images were listed, but their files were not in the export; they were left out with their boxes.",
    )
    IMAGE_DAMAGED = (
        "image-damaged",
        "dropped",
        "Image files could not be decoded and were left out with their boxes.",
    )
    IMAGE_SIZE = (
        "image-size",
        "dropped",
        "Images had another size than the one their boxes were drawn for; they were left out with their boxes.",
    )
    IMAGE_REPEATED = (
        "image-repeated",
        "dropped",
        "Images occurred again, byte for byte, with the same name and boxes.",
    )
    IMAGE_UNLISTED = (
        "image-unlisted",
        "dropped",
        "Image files were in the export, but no annotation file lists them.",
    )

    @property
    def label(self) -> str:
        """The reason's name in the manifest."""
        return str(self.value[0])

    @property
    def action(self) -> str:
        """`mended` or `dropped`."""
        return str(self.value[1])

    @property
    def sentence(self) -> str:
        """What happened, as a sentence for people."""
        return str(self.value[2])


@dataclass
class _Tally:
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class ChangeLog:
    """Counts per reason. Not thread-safe."""

    def __init__(self) -> None:
        self._tallies: dict[Reason, _Tally] = {}

    def add(self, reason: Reason, file: str, annotation_id: object = "", detail: str = "") -> None:
        """Count one case."""
        tally = self._tallies.setdefault(reason, _Tally())
        tally.count += 1
        if len(tally.examples) < EXAMPLES_KEPT:
            # Text from an export is untrusted: shorten it before it goes anywhere.
            tally.examples.append(
                Example(printable(file)[:200], printable(str(annotation_id))[:40], printable(detail)[:200])
            )

    def merge(self, other: "ChangeLog") -> None:
        """Add the counts and examples of another log."""
        for reason, tally in other._tallies.items():
            own = self._tallies.setdefault(reason, _Tally())
            own.count += tally.count
            own.examples = (own.examples + tally.examples)[:EXAMPLES_KEPT]

    def only(self, *reasons: Reason) -> "ChangeLog":
        """A log of these reasons alone."""
        log = ChangeLog()
        log._tallies = {reason: tally for reason, tally in self._tallies.items() if reason in reasons}
        return log

    def count(self, *reasons: Reason) -> int:
        """Number of cases with any of these reasons."""
        return sum(self._tallies[reason].count for reason in reasons if reason in self._tallies)

    def examples(self, reason: Reason) -> list[Example]:
        """The first few cases of one reason."""
        return list(self._tallies[reason].examples) if reason in self._tallies else []

    def entries(self) -> tuple[Change, ...]:
        """The log as the manifest stores it; drops come first."""
        found = [reason for reason in Reason if reason in self._tallies]
        found.sort(key=lambda reason: reason.action != "dropped")
        return tuple(
            Change(r.label, r.action, r.sentence, self._tallies[r].count, tuple(self._tallies[r].examples))
            for r in found
        )
