"""In which form a file writes its boxes, found by where all boxes of a subset lie together.

A single box may be wrong. If many boxes do not fit their images, and the same numbers fit when they are read in another
form, then the file is in that form: training on the declared form would learn boxes beside their objects.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.box_form import DESCRIPTIONS, BoxForm, Floats, reread
from data_prep.checks.box_parts import BETTER, LEAST_CASES, find_halved, find_part
from data_prep.errors import AnnotationError
from data_prep.formats.outlines import outline_box
from data_prep.formats.record import NO_OUTLINE, Annotation
from data_prep.remedies import change_limit, convert_boxes
from run_config.data_limits import DataLimits
from run_config.wording import plural, shortened

TOLERANCE_PX = 1.0
"""A box may reach this far over the edge, and must have sides of at least this length."""
MOST_OUTLINES = 2_000
"""Outlines compared with their boxes, per subset."""

_CANVASES = (100, 320, 416, 512, 608, 640, 768, 800, 1000, 1024, 1280)
"""Sides of the squares to which programs scale images or numbers."""
_ENDS_OF_CANVAS = 0.95
_NARROW, _SHORT = 0.65, 0.85
"""Shares of the images' sides that boxes are refused, and reported, not to reach beyond."""
_ASKEW = 0.3
"""Boxes of smaller copies have at most this share of their right and lower margin on the left and above."""
_SPOILT = 0.1
"""The share of boxes that a form of `--boxes` may spoil."""
_PERCENT = ((BoxForm.PERCENT, BoxForm.XYWH), (BoxForm.PERCENT_CENTRES, BoxForm.CENTRES))
"""Forms in percent, each with the form of the same numbers in pixels."""
_FORMS_OF_CANVAS: dict[BoxForm | None, dict[int, BoxForm]] = {
    None: {100: BoxForm.PERCENT, 1000: BoxForm.THOUSANDTHS},
    BoxForm.XYWH: {100: BoxForm.PERCENT, 1000: BoxForm.THOUSANDTHS},
    BoxForm.CENTRES: {100: BoxForm.PERCENT_CENTRES},
}
"""By the form of `--boxes`: the forms of boxes that end within a square of this side."""
_MISTAKEN_CORNERS = {BoxForm.CORNERS: BoxForm.XYWH, BoxForm.SHARED_CORNERS: BoxForm.SHARES}
"""What programs write in place of two corners."""
_ALWAYS_FIT = (BoxForm.PERCENT, BoxForm.PERCENT_CENTRES, BoxForm.THOUSANDTHS)
"""Forms that fit into any image, and are found by where they end."""
_COMPARED = tuple(form for form in BoxForm if form not in _ALWAYS_FIT)


@dataclass
class SubsetBoxes:
    """All boxes of one subset with the sizes of their images, as declared, and a sample of their outlines."""

    name: str
    form: BoxForm = BoxForm.XYWH
    """The form in which the format writes boxes."""
    given: BoxForm | None = None
    """The form that `--boxes` names, if the boxes were converted from it."""
    image_of: "array[int]" = field(default_factory=lambda: array("i"))
    """Per box the index of its image in `images`."""
    class_of: "array[int]" = field(default_factory=lambda: array("i"))
    """Per box the index of its class in `classes`."""
    images: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    boxes: "array[float]" = field(default_factory=lambda: array("d"))
    """Per box x, y, width, height, the image's width and height, and the area (0: not given, or of an outline)."""
    outlines: list[tuple[float, ...]] = field(default_factory=list)
    """Per outline the index of its box, and the x, y, width, height around it."""
    total: int = 0
    """All annotations, also those without a box."""
    dropped: int = 0
    """Annotations whose box cannot be used."""
    places: list[tuple[str, object, object]] = field(default_factory=list)
    """For each outline the image, the annotation and the box as written, for messages."""

    def add(self, annotation: Annotation, file_name: str, width: int, height: int) -> None:
        """Note one annotation."""
        self.total += 1
        box = box_to_check(annotation)
        if box is None:
            return
        has_outline = annotation.outline is not NO_OUTLINE
        if (
            has_outline
            and annotation.box is not None
            and len(self.outlines) < MOST_OUTLINES
            and annotation.rotation == 0
        ):
            around = outline_box(annotation.outline)
            if around is not None:
                self.outlines.append((len(self.boxes) // 7, *around))
                self.places.append((file_name, annotation.place, annotation.box_as_written or box))
        area = 0.0 if has_outline or annotation.area is None else annotation.area
        self.boxes.extend((*box, width, height, area))
        if not self.images or self.images[-1] != file_name:
            self.images.append(file_name)
        self.image_of.append(len(self.images) - 1)
        self.class_of.append(self.classes.setdefault(annotation.class_name, len(self.classes)))

    def check(self, where: str, limits: DataLimits, example: Callable[[int], str]) -> list[str]:
        """Warnings about the boxes. `example(index)` describes one box.

        Raises AnnotationError with the evidence when the boxes are beyond a limit.
        """
        with np.errstate(all="ignore"):  # numbers may be of any size
            return list(self._check(where, limits, example))

    def _check(self, where: str, limits: DataLimits, example: Callable[[int], str]) -> Iterator[str]:
        if not self.boxes:
            return
        table = np.frombuffer(self.boxes, float).reshape(-1, 7)
        boxes, sizes, areas = table[:, :4], table[:, 4:6], table[:, 6]
        count = len(boxes)
        of = f"{where}: subset {self.name!r}"
        if self.given is None:
            readings = self._readings(boxes, sizes)
            for fits in readings:
                self._refuse_misread(of, fits, self.form, limits, example)
            self._check_areas(of, boxes, sizes, areas, limits, example)
            self._refuse_wrong_signs(of, boxes, sizes, limits, example)
            for fits in readings:
                yield from self._check_parts(of, fits, boxes, limits, example)
        yield from self._check_outlines(of, boxes, sizes, limits)
        yield from self._check_extent(of, boxes, sizes, limits, example)
        halved = find_halved(boxes, sizes, np.frombuffer(self.image_of, np.int32))
        if len(halved):
            yield (
                f"{of}: all boxes of {plural(len(halved), 'image')} ("
                f"{shortened([repr(self.images[one]) for one in halved], 3)}) lie in the upper left quarter, and are "
                "smaller than others: they may have been drawn on copies of half the size. Look at the pictures of the "
                "report."
            )
        tiny = (np.abs(boxes[:, 2:]) < TOLERANCE_PX).any(axis=1)
        cut = ~_fitting(boxes, sizes, reversed_too=True) & ~tiny
        for cases, limit, name, words in (
            (tiny, limits.tiny_boxes, "tiny-boxes", "have a side below 1 pixel"),
            (cut, limits.cut_boxes, "cut-boxes", "reach over the edge of their image"),
        ):
            number = int(cases.sum())
            if _beyond(number, count, limit):
                raise AnnotationError(
                    f"{of}: {number:,} of {count:,} boxes {words} (for example {example(int(cases.argmax()))}): the "
                    "boxes belong to images of another size, or are written in a form that is not supported; export "
                    f"them again; to use them as they are, {change_limit(name, '1')}"
                )
        if int(tiny.sum()) >= LEAST_CASES:
            yield f"{int(tiny.sum()):,} of {count:,} boxes have a side below 1 pixel: no model can learn them."

    def takes(self, form: BoxForm, where: str, limits: DataLimits, example: Callable[[int], str]) -> str:
        """Why boxes, read as declared, are not to be converted from the form that `--boxes` names. Empty: they are.

        Raises AnnotationError if they fit a third form, or if the conversion would spoil a part of them.
        """
        with np.errstate(all="ignore"):
            return self._takes(form, f"{where}: subset {self.name!r}", limits, example)

    def _takes(self, form: BoxForm, of: str, limits: DataLimits, example: Callable[[int], str]) -> str:
        if not self.boxes or limits.misread_boxes >= 1:
            return ""
        table = np.frombuffer(self.boxes, float).reshape(-1, 7)
        boxes, sizes = table[:, :4], table[:, 4:6]
        count = len(boxes)
        fits = self._fits(boxes, sizes)
        fits[form] = _fitting(reread(boxes, sizes, self.form, form), sizes, reversed_too=False)
        wrong, wrong_as_declared = (int((~fits[one]).sum()) for one in (form, self.form))
        why_not = f"{wrong:,} would not fit their images" if wrong > limits.misread_boxes * count else ""
        if form in _ALWAYS_FIT and count >= 5 * LEAST_CASES:
            far = (self._ends(boxes, sizes, form) / sizes).max(axis=0)
            if (far <= _NARROW).all():
                wrong = count
                why_not = f"all would lie in the upper left {100 * far[0]:.0f} % x {100 * far[1]:.0f} % of their images"
        if why_not and BETTER * wrong_as_declared <= wrong:
            return (
                f"{of}: {plural(count, 'box', 'boxes')} {'was' if count == 1 else 'were'} not converted from --boxes "
                f"{form}, because {why_not}: they fit as they are, {DESCRIPTIONS[self.form]}. To convert them all the "
                f"same, {change_limit('misread-boxes', '1')}."
            )
        self._refuse_misread(of, fits, form, limits, example)
        spoilt = fits[self.form] & ~fits[form]
        if _beyond(int(spoilt.sum()), count, _SPOILT):
            raise AnnotationError(
                f"{of}: {int(spoilt.sum()):,} of {count:,} boxes fit their images only as {DESCRIPTIONS[self.form]}, "
                f"not as {DESCRIPTIONS[form]} (--boxes {form}; for example {example(int(spoilt.argmax()))}): write all "
                f"boxes in one form; to convert all of them, {change_limit('misread-boxes', '1')}"
            )
        return ""

    def _fits(self, boxes: Floats, sizes: Floats) -> dict[BoxForm, NDArray[np.bool_]]:
        """For each form that the boxes may have: whether each box, read in it, fits its image."""
        forms = [form for form, pixels in _PERCENT if _canvas(self._ends(boxes, sizes, pixels), sizes) == 100]
        return {
            form: _fitting(reread(boxes, sizes, self.form, form), sizes, reversed_too=form is BoxForm.XYWH is self.form)
            for form in (*forms, *_COMPARED)
        }

    def _readings(self, boxes: Floats, sizes: Floats) -> list[dict[BoxForm, NDArray[np.bool_]]]:
        """The forms to compare with the declared one.

        Two corners may be drawn from the right or from below. Only x, y, width, height in their place are told from
        that by the order of the corners.
        """
        fits = self._fits(boxes, sizes)
        mistaken = _MISTAKEN_CORNERS.get(self.form)
        if mistaken is None:
            return [fits]
        others = {form: fitting for form, fitting in fits.items() if form is not mistaken}
        return [
            {form: fits[form] for form in (self.form, mistaken)},
            others | {self.form: _fitting(boxes, sizes, reversed_too=True)},
        ]

    def _ends(self, boxes: Floats, sizes: Floats, form: BoxForm) -> Floats:
        """(n, 2): the right and lower ends of boxes in this form."""
        read = reread(boxes, sizes, self.form, form)
        return (read[:, :2] + read[:, 2:]).clip(read[:, :2])

    def _refuse_misread(
        self,
        of: str,
        fits: Mapping[BoxForm, NDArray[np.bool_]],
        form: BoxForm,
        limits: DataLimits,
        example: Callable[[int], str],
    ) -> None:
        """Raise AnnotationError if boxes do not fit as `form`, and much better in another form."""
        misfits = ~fits[form]
        wrong, count = int(misfits.sum()), len(misfits)
        best = max(fits, key=lambda one: int(fits[one].sum()))
        right = int(fits[best].sum())
        if _beyond(wrong, count, limits.misread_boxes) and BETTER * (count - right) <= wrong:
            option = "" if form is self.form else f" (--boxes {form})"
            raise AnnotationError(
                f"{of}: {wrong:,} of {count:,} boxes do not fit their images as {DESCRIPTIONS[form]}{option}, but "
                f"{right:,} fit as {DESCRIPTIONS[best]} (for example {example(int(misfits.argmax()))}): "
                f"{self._way_on(best, 'misread-boxes')}"
            )

    def _check_areas(
        self,
        of: str,
        boxes: Floats,
        sizes: Floats,
        areas: Floats,
        limits: DataLimits,
        example: Callable[[int], str],
    ) -> None:
        """Raise AnnotationError when the areas are those of the boxes in another form."""
        given = areas > 0
        count = int(given.sum())
        if count < 2 * LEAST_CASES or limits.misread_boxes >= 1:
            return

        def matching(form: BoxForm) -> NDArray[np.bool_]:
            read = reread(boxes[given], sizes[given], self.form, form)
            close: NDArray[np.bool_] = np.abs(read[:, 2] * read[:, 3] - areas[given]) <= 0.02 * areas[given] + 1
            return close & (read[:, 2:] > 0).all(axis=1)

        declared, corners = matching(BoxForm.XYWH), matching(BoxForm.CORNERS)
        as_declared, as_corners = int(declared.sum()), int(corners.sum())
        if 10 * as_declared < count and 10 * as_corners > 9 * count:
            raise AnnotationError(
                f"{of}: the areas of {as_corners:,} of {count:,} boxes are those of {DESCRIPTIONS[BoxForm.CORNERS]}, "
                f"and of {as_declared:,} those of {DESCRIPTIONS[BoxForm.XYWH]} (for example "
                f"{example(int(given.argmax()))}): {self._way_on(BoxForm.CORNERS, 'misread-boxes')}"
            )
        mixed = corners & ~declared
        if _beyond(int(mixed.sum()), count, limits.misread_boxes):
            first = int(np.flatnonzero(given)[mixed.argmax()])
            raise AnnotationError(
                f"{of}: some boxes are written in another form than the others: the areas of {int(mixed.sum()):,} of "
                f"{count:,} are those of {DESCRIPTIONS[BoxForm.CORNERS]} alone (for example {example(first)}). Write "
                f"all boxes in one form; to use them as they are, {change_limit('misread-boxes', '1')}"
            )

    def _refuse_wrong_signs(
        self, of: str, boxes: Floats, sizes: Floats, limits: DataLimits, example: Callable[[int], str]
    ) -> None:
        """Raise AnnotationError if boxes with negative sides only fit when these are positive."""
        negative = (boxes[:, 2:] < 0).any(axis=1)
        misfits = negative & ~_fitting(boxes, sizes, reversed_too=True)
        positive = _fitting(np.hstack([boxes[:, :2], np.abs(boxes[:, 2:])]), sizes, reversed_too=False)
        wrong = int(misfits.sum())
        if _beyond(wrong, len(boxes), limits.misread_boxes) and BETTER * int((negative & ~positive).sum()) <= wrong:
            raise AnnotationError(
                f"{of}: {int(negative.sum()):,} of {len(boxes):,} boxes have a negative width or height, and {wrong:,} "
                "of them do not fit their images as boxes that were drawn from the right or from below, but fit with "
                f"positive sides (for example {example(int(misfits.argmax()))}): correct the signs; to use them as "
                f"they are, {change_limit('misread-boxes', '1')}"
            )

    def _check_parts(
        self,
        of: str,
        fits: Mapping[BoxForm, NDArray[np.bool_]],
        boxes: Floats,
        limits: DataLimits,
        example: Callable[[int], str],
    ) -> Iterator[str]:
        """Warn about images or classes whose boxes are in another form; raises AnnotationError if they are reversed.

        Boxes over the edge may fit another form by chance. Boxes that were drawn from the right or from below fit x, y,
        width, height as rarely as the same boxes drawn from the left and from above.
        """
        if limits.misread_boxes >= 1:
            return
        for kind, kinds, names, group_of in (
            ("class", "classes", list(self.classes), self.class_of),
            ("image", "images", self.images, self.image_of),
        ):
            part = find_part(fits, self.form, np.frombuffer(group_of, np.int32))
            if part is None:
                continue
            misfits = part.boxes & ~fits[self.form]
            wrong, fitting = int(misfits.sum()), int((part.boxes & fits[part.form]).sum())
            named = shortened([repr(names[one]) for one in part.groups], 3)
            groups = f"{plural(len(part.groups), kind, kinds)} ({named})"
            sentence = (
                f"{of}: {wrong:,} of the {int(part.boxes.sum()):,} boxes of {groups} do not fit their images as "
                f"{DESCRIPTIONS[self.form]}, but {fitting:,} fit as {DESCRIPTIONS[part.form]}, and other boxes do not "
                f"(for example {example(int(misfits.argmax()))}): they seem to be written in that form. "
            )
            of_reversed = 2 * int((misfits & (boxes[:, 2:] < 0).any(axis=1)).sum()) > wrong
            certain = of_reversed and part.form in (BoxForm.XYWH, BoxForm.SHARES)
            if certain and _beyond(wrong, len(boxes), limits.misread_boxes):
                way = change_limit("misread-boxes", "1")
                raise AnnotationError(f"{sentence}Write all boxes in one form; to use them as they are, {way}")
            yield f"{sentence}Look at the pictures of the report, and write all boxes in one form."
            return

    def _check_outlines(self, of: str, boxes: Floats, sizes: Floats, limits: DataLimits) -> Iterator[str]:
        """Compare boxes with the box around their outline. Raises AnnotationError when too many differ."""
        if not self.outlines:
            return
        table = np.array(self.outlines)
        index, around = table[:, 0].astype(int), table[:, 1:]
        count = len(table)
        agree = {form: _agreeing(reread(boxes[index], sizes[index], self.form, form), around) for form in BoxForm}
        differ = ~agree[self.form]
        wrong = int(differ.sum())
        if not wrong:
            return
        first = int(differ.argmax())
        file_name, place, written = self.places[first]
        box = ", ".join(f"{value:g}" for value in around[first])
        summary = f"{wrong:,} of {count:,} boxes are not those of their outlines"
        case = f"for example annotation {place!r} of {file_name!r}: bbox {written}, its outline lies in [{box}]"
        if _beyond(wrong, count, limits.contradictions):
            best = max(agree, key=lambda form: int(agree[form].sum()))
            if self.given is None and BETTER * (count - int(agree[best].sum())) <= wrong:
                advice = f"the boxes fit as {DESCRIPTIONS[best]}; {self._way_on(best, 'contradictions')}"
            else:
                advice = (
                    "export again with a tool that keeps both together; to use bbox, "
                    f"{change_limit('contradictions', '1')}"
                )
            raise AnnotationError(f"{of}: {summary} ({case}): {advice}")
        yield f"{summary} ({case})."

    def _check_extent(
        self, of: str, boxes: Floats, sizes: Floats, limits: DataLimits, example: Callable[[int], str]
    ) -> Iterator[str]:
        """Warn, or refuse, when all boxes end like percent, thousandths, or boxes of smaller copies of the images."""
        count = len(boxes)
        if count < 5 * LEAST_CASES:
            return
        ends = (boxes[:, :2] + boxes[:, 2:]).clip(boxes[:, :2])
        forms = {} if self.form.in_shares and self.given is None else _FORMS_OF_CANVAS.get(self.given, {})
        side = _canvas(ends, sizes)
        if not side and self.given is None and self.form is BoxForm.XYWH:
            ends_of_centres = self._ends(boxes, sizes, BoxForm.CENTRES)
            if _canvas(ends_of_centres, sizes) == 100:
                side, ends, forms = 100, ends_of_centres, _FORMS_OF_CANVAS[BoxForm.CENTRES]
        far, near = (ends / sizes).max(axis=0), (boxes[:, :2] / sizes).min(axis=0)
        outside = int((ends > sizes + TOLERANCE_PX).any(axis=1).sum())
        beyond = _beyond(outside, count, limits.misread_boxes)
        form = forms.get(side)
        if side and limits.misread_boxes < 1 and (beyond or (form and far.min() <= _NARROW)):
            way = (
                self._way_on(form, "misread-boxes")
                if form
                else "export boxes in pixels of the original images; to use them as they are, "
                f"{change_limit('misread-boxes', '1')}"
            )
            raise AnnotationError(
                f"{of}: all {count:,} boxes end within {side} x {side}, whatever the size of their images (for example "
                f"{example(0)}), as {DESCRIPTIONS[form] if form else 'boxes of copies of that size'} do: {way}"
            )
        at_copy = side and far.min() <= _SHORT
        if at_copy or ((far <= _SHORT).all() and (near <= _ASKEW * (1 - far)).all()):
            yield (
                f"All {count:,} boxes lie in the upper left {100 * far[0]:.0f} % x {100 * far[1]:.0f} % of their "
                f"images{f', within {side} x {side} pixels' if side else ''}: they may belong to smaller copies of the "
                f"images{f', or be {DESCRIPTIONS[form]} ({convert_boxes(form)})' if form else ''}. Look at the "
                "pictures of the report."
            )

    def _way_on(self, form: BoxForm, limit: str) -> str:
        other = f" ({BoxForm.ROWS_FIRST_CORNERS} if y comes before x)" if form is BoxForm.CORNERS else ""
        return (
            f"export {DESCRIPTIONS[self.form]}, or {convert_boxes(form)}{other}; to use them as they are, "
            f"{change_limit(limit, '1')}"
        )


def box_to_check(annotation: Annotation) -> tuple[float, float, float, float] | None:
    """The box that the annotation has, or the one around its outline if it has none."""
    return outline_box(annotation.outline) if annotation.has_only_outline else annotation.box


def _canvas(ends: Floats, sizes: Floats) -> int:
    """The side of a square, unlike all images, that holds all boxes and is filled by them. 0: none."""
    for side in _CANVASES:
        filled = (ends <= side + TOLERANCE_PX).all() and (ends.max(axis=0) >= _ENDS_OF_CANVAS * side).all()
        if filled and (np.abs(sizes - side) > side / 10).any(axis=1).all():
            return side
    return 0


def _beyond(cases: int, count: int, limit: float) -> bool:
    return cases >= LEAST_CASES and cases > limit * count


def _fitting(boxes: Floats, sizes: Floats, *, reversed_too: bool) -> NDArray[np.bool_]:
    """(n,): whether each box lies inside its image, with sides of at least a pixel."""
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    inside = (corners.min(axis=0) >= -TOLERANCE_PX) & (corners.max(axis=0) <= sizes + TOLERANCE_PX)
    sides = np.abs(boxes[:, 2:]) if reversed_too else boxes[:, 2:]
    fits: NDArray[np.bool_] = np.logical_and.reduce(inside & (sides >= TOLERANCE_PX), axis=1)
    return fits


def _agreeing(boxes: Floats, around: Floats) -> NDArray[np.bool_]:
    """(n,): whether each box is about the one around its outline: to 2 pixels, or a tenth of its size."""
    slack = np.maximum(2.0, 0.1 * around[:, 2:])
    close = (np.abs(boxes[:, :2] - around[:, :2]) <= slack) & (np.abs(boxes[:, 2:] - around[:, 2:]) <= slack)
    agree: NDArray[np.bool_] = np.logical_and.reduce(close, axis=1)
    return agree
