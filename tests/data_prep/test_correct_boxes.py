"""Whatever an annotation holds, what comes out is a box that can be trained on, or nothing and a reason."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.changes import ChangeLog, Reason
from data_prep.correct_boxes import SMALLEST_SIDE_PX, Canvas, corrected_box
from data_prep.errors import AnnotationError
from data_prep.formats.coco import to_record
from data_prep.formats.coco_file import RawAnnotation
from data_prep.formats.record import Annotation
from tests.data_prep.formats.test_coco_file import JSON

NUMBER = st.floats() | st.integers() | st.sampled_from(["1", "x", None, True, 1e308, -1e308])
BBOX = st.lists(NUMBER, min_size=4, max_size=4) | JSON


def raw_json(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


@given(
    bbox=BBOX,
    area=NUMBER,
    iscrowd=NUMBER,
    segmentation=JSON,
    attributes=JSON | st.fixed_dictionaries({"rotation": NUMBER}),
    turn=st.integers(1, 8),
)
def test_a_box_lies_inside_its_image_or_a_reason_is_counted(
    bbox: object, area: object, iscrowd: object, segmentation: object, attributes: object, turn: int
):
    raw = RawAnnotation(5, 1, 1, bbox, area, iscrowd, raw_json(segmentation), raw_json(attributes))
    changes = ChangeLog()
    box = corrected_box(to_record(raw, "cat"), Canvas("x.png", 64, 48, turn), changes)
    dropped = changes.count(Reason.BOX_EMPTY, Reason.BOX_NOT_A_NUMBER, Reason.BOX_OUTSIDE)
    assert dropped == (box is None)
    if box is not None:
        x, y, width, height = box.bbox
        assert x >= 0
        assert y >= 0
        assert min(width, height) >= SMALLEST_SIDE_PX
        assert x + width <= 64 + 1e-6
        assert y + height <= 48 + 1e-6
        assert 0 < box.area < float("inf")
        assert isinstance(msgspec.json.decode(box.segmentation), list | dict)
        assert isinstance(msgspec.json.decode(box.attributes), dict)


@pytest.mark.parametrize("box", [(4.0, float("inf"), 5.0, -float("inf")), (-float("inf"), 4.0, float("inf"), 5.0)])
def test_a_box_whose_numbers_overflowed_is_dropped(box: tuple[float, float, float, float]):
    changes = ChangeLog()
    assert corrected_box(Annotation("cat", box, 1), Canvas("x.png", 64, 48), changes) is None
    assert changes.count(Reason.BOX_OUTSIDE) == 1


def test_white_space_and_key_order_of_attributes_do_not_matter():
    def corrected(attributes: bytes) -> bytes:
        raw = RawAnnotation(5, 1, 1, [1, 2, 3, 4], attributes=msgspec.Raw(attributes))
        box = corrected_box(to_record(raw, "cat"), Canvas("x.png", 64, 48), ChangeLog())
        assert box is not None
        return bytes(box.attributes)

    assert corrected(b'{"b": 1,\n "a": [1, 2]}') == corrected(b'{"a":[1,2],"b":1}')


def test_attributes_that_are_no_text_are_refused():
    raw = RawAnnotation(5, 1, 1, [1, 2, 3, 4], attributes=msgspec.Raw(b'{"name": "\xff"}'))
    with pytest.raises(AnnotationError, match=r"annotation 5 of image 'x.png' has attributes or a segmentation"):
        corrected_box(to_record(raw, "cat"), Canvas("x.png", 64, 48), ChangeLog())
