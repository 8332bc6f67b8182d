"""Annotation files of any kind end in clean records or in a sentence, never in a traceback."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.changes import ChangeLog
from data_prep.errors import AnnotationError
from data_prep.formats import coco_file
from data_prep.formats.coco_file import parse_coco, read_annotations, read_number, read_whole_number
from tests.data_prep.export_builder import Export

DEEP = b"[" * 200_000 + b"]" * 200_000


def parse(data: bytes):
    return parse_coco(data, "export.zip: instances_default.json", ChangeLog())


def small() -> dict:
    export = Export()
    export.annotate(export.add("x.png"), ("cat", 1, 2, 3, 4))
    return export.coco


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not readable as JSON .*cut off"),
        (b"{", "is not readable as JSON"),
        (b"\x89PNG\r\n", "is not readable as JSON"),
        (b"\xff\xfe{}", "is not readable as JSON"),
        (b"[]", "is a list, as of results with scores, and no COCO annotation file"),
        (b"{}", "is not a COCO annotation file .*missing required field `images`"),
        (b'{"images": 1, "annotations": [], "categories": []}', r"Expected `array`, got `int` - at `\$.images`"),
        (b'{"images": [7], "annotations": [], "categories": []}', r"got `int` - at `\$.images\[0\]`"),
        (b'{"images": [], "annotations": [], "categories": [], "more": ' + DEEP + b"}", "nested too deeply"),
        (b'{"images": ' + DEEP + b', "annotations": [], "categories": []}', "nested too deeply"),
        (b'{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": [], "categories": []}', "not readable"),
    ],
)
def test_what_is_no_annotation_file_is_refused_with_a_sentence(data: bytes, sentence: str):
    with pytest.raises(AnnotationError, match=sentence) as refusal:
        parse(data)
    assert str(refusal.value).startswith("export.zip: instances_default.json")
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file_name": ""}, r"image number 1 \(id 1\) has no file_name"),
        ({"file_name": 5}, r"image number 1 \(id 1\) has no file_name"),
        ({"id": "one"}, r"image 'x.png' has the id 'one': ids must be whole numbers"),
        ({"id": 1.5}, r"image 'x.png' has the id 1.5"),
        ({"id": None}, r"image 'x.png' has the id None"),
    ],
)
def test_images_without_a_usable_name_or_id_are_refused(change: dict, sentence: str):
    coco = small()
    coco["images"][0] |= change
    with pytest.raises(AnnotationError, match=sentence):
        parse(json.dumps(coco).encode())


def test_a_byte_order_mark_is_no_matter():
    assert parse(b"\xef\xbb\xbf" + json.dumps(small()).encode()).images[0].file_name == "x.png"


def test_a_file_without_categories_is_refused():
    with pytest.raises(AnnotationError, match="has no categories: give the task labels"):
        parse(json.dumps(small() | {"categories": []}).encode())


def test_composed_and_decomposed_names_are_one_class():
    coco = small() | {"categories": [{"id": 1, "name": "caf\u00e9"}, {"id": 2, "name": "cafe\u0301"}]}
    assert set(parse(json.dumps(coco).encode()).categories.values()) == {"caf\u00e9"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, (3, False)), (3.0, (3, False)), (" 3 ", (3, True)), (3.5, (None, False)), ("x", (None, True))]
    + [(other, (None, False)) for other in (True, None, [3], {}, float("nan"), float("inf"))],
)
def test_whole_numbers_are_told_from_what_only_looks_like_them(value: object, expected: tuple):
    assert read_whole_number(value) == expected


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.booleans(), st.lists(st.integers())))
def test_a_number_is_finite_or_none(value: object):
    number, _ = read_number(value)
    assert number is None or abs(number) < float("inf")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area", "attributes", "file_name", "name"]
RECORD = st.dictionaries(st.sampled_from(KEYS), JSON | st.integers(0, 2), max_size=6)


@given(st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=3))
def test_any_values_end_in_records_or_a_sentence(images: list, annotations: list, categories: list):
    coco = {"images": images, "annotations": annotations, "categories": categories}
    try:
        parsed = parse(json.dumps(coco).encode())
    except AnnotationError:
        return
    for image_id, own in parsed.annotations.items():
        assert image_id in {image.id for image in parsed.images}
        assert {read_whole_number(one.category_id)[0] for one in read_annotations(own)} <= set(parsed.categories)


def test_a_file_whose_objects_do_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coco_file, "free_bytes", lambda: 64 << 20)
    data = b'{"images": [' + b"{}," * 200_000 + b'{}], "annotations": [], "categories": []}'
    with pytest.raises(AnnotationError, match=r"needs about 95 MiB of memory, more than the 48 MiB that are free"):
        parse_coco(data, "x.json", ChangeLog())


@pytest.mark.parametrize(
    "data",
    [
        b'{"images": [], "images": [], "annotations": [], "categories": []}',
        b'{"images": [{"id": 1, "file_name": "a", "id": 2}], "annotations": [], "categories": []}',
        b'{"images": [], "annotations": [{"attributes": {"a": 1, "a": 2}}], "categories": []}',
    ],
)
def test_a_key_given_twice_is_refused(data: bytes):
    with pytest.raises(AnnotationError, match=r'^x.json: the key "\w+" is given twice: export the task again$'):
        parse_coco(data, "x.json", ChangeLog())
