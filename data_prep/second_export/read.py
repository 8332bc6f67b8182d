"""Read a second export and join it. A second export that cannot be used is a warning, never an error."""

from pathlib import Path

from data_prep.changes import ChangeLog, Reason
from data_prep.errors import DataPrepError, SourceError
from data_prep.formats.cvat_images import CvatImages
from data_prep.formats.record import Annotations
from data_prep.second_export.find import SecondExport
from data_prep.second_export.join import Joined, join
from object_store.errors import PassingError, StoreError
from run_config.wording import plural


def with_second_export(
    annotations: Annotations, second: SecondExport, where: str, scratch: Path | None, changes: ChangeLog
) -> tuple[Annotations, list[str]]:
    """The annotations with what the second export knows, and warnings. `where` names the source in them."""
    lost = ChangeLog()
    try:
        if second.problem:
            raise SourceError(second.problem)
        with second.open(scratch) as files:
            reader = CvatImages()
            if len(reader.roots(files)) != 1:
                raise SourceError("it has no annotations.xml with images")
            joined = join(annotations, reader.read(files, lost), changes)
    except PassingError:
        raise
    except (DataPrepError, StoreError) as error:
        boxes = sum(1 for image in annotations.images for _ in image.annotations)
        warning = (
            f"{where}: CVAT's second export cannot be used ({error}), so it is unknown who drew its "
            f"{plural(boxes, 'box', 'boxes')}. Boxes that a model drew and nobody has changed are used like those of "
            "people."
        )
        return annotations, [warning]
    # Other losses are those of the first export, which are counted there.
    changes.merge(lost.only(Reason.SHAPE_WITHOUT_BOX))
    return joined.annotations, [_about_difference(joined, where)] if joined.differ else []


def _about_difference(joined: Joined, where: str) -> str:
    found = [
        (joined.boxes_without_partner, f"{plural(joined.boxes_without_partner, 'box', 'boxes')} of {joined.boxes:,}"),
        (joined.shapes_without_partner, plural(joined.shapes_without_partner, "other shape")),
        (joined.images_without_partner, plural(joined.images_without_partner, "image")),
    ]
    return (
        f"{where}: the annotations were changed between CVAT's two exports, or CVAT wrote them differently: "
        f"{', '.join(words for count, words in found if count)} are in only one of them. It is unknown who drew these "
        "boxes, and they are used; start a new run to use the current annotations."
    )
