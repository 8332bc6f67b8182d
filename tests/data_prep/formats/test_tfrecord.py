"""TFRecord as old versions of CVAT wrote it; the records are made here byte by byte."""

import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.formats.tfrecord import masked_crc, read_example
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

MAP = b"item {\n\tid: 1\n\tname: 'car'\n}\n\nitem {\n  id: 2\n  name: \"road sign\"\n}\n"
Values = Sequence[bytes] | Sequence[float] | Sequence[int]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Values) -> bytes:
    if values and isinstance(values[0], bytes):
        return field(1, b"".join(field(1, one) for one in values if isinstance(one, bytes)))
    if values and isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(varint(int(one)) for one in values)))


def example(features: dict[str, Values]) -> bytes:
    return field(1, b"".join(field(1, field(1, k.encode()) + field(2, feature(v))) for k, v in features.items()))


def framed(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def record(
    name: str, *boxes: tuple[int, float, float, float, float], image: bytes | None = b"", **more: Values
) -> bytes:
    """A record; `boxes`: class id, and two corners in fractions of the image."""
    names = {1: b"car", 2: b"road sign"}
    features: dict[str, Values] = {
        "image/filename": [name.encode()], "image/source_id": [b"0"], "image/width": [64], "image/height": [48],
        **{f"image/object/bbox/{side}": [box[index] for box in boxes]
           for index, side in enumerate(("xmin", "ymin", "xmax", "ymax"), start=1)},
        "image/object/class/label": [box[0] for box in boxes],
        "image/object/class/text": [names.get(box[0], b"?") for box in boxes],
    }  # fmt: skip
    if image is not None:
        features["image/encoded"] = [image or picture(name)]
    return framed(example(features | {key.replace("_", "/"): value for key, value in more.items()}))


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "label_map.pbtxt": MAP,
        "train.tfrecord": record("a.png", (1, 0.25, 0.5, 0.5, 0.75), (2, 0.0, 0.0, 1.0, 1.0)) + record("sub/b.png"),
        "val.tfrecord": record("c.png", (2, 0.25, 0.5, 0.5, 0.75)),
    } | more


def test_the_checksum_is_that_of_castagnoli():
    crc = 0xE3069283  # the check value of CRC-32C, for "123456789"
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_numbers_of_all_kinds_are_read():
    made: dict[str, Values] = {"a": [b"x", b""], "b": [0.5, -2.0], "c": [0, 300, -1]}
    assert read_example(memoryview(example(made))) == made


def test_images_inside_the_records_become_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (1,)), ("road sign", (2,))]
    first, empty = local.split("train").images
    assert (first.file_name, first.boxes.tolist()) == ("a.png", [[16, 24, 32, 36], [0, 0, 64, 48]])
    assert (empty.file_name, len(empty.boxes)) == ("sub/b.png", 0)
    assert local.split("train").read(0) == picture("a.png")
    assert [one.file_name for one in local.split("val").images] == ["c.png"]
    assert not local.manifest.changes


def test_images_beside_the_records_are_used_too(tmp_path: Path, load: Load):
    files = {
        "label_map.pbtxt": MAP,
        "default.tfrecord": record("a.png", (1, 0.25, 0.5, 0.5, 0.75), image=None),
        "images/a.png": picture("a.png"),
    }
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    assert local.split("train").images[0].boxes.tolist() == [[16, 24, 32, 36]]


CAR = (1, 0.25, 0.5, 0.5, 0.75)
# The class of the box is only a number.
NUMBERED = {
    "train.tfrecord": record("a.png", CAR, image_object_class_text=[]),
    "val.tfrecord": record("c.png", (2, *CAR[1:]), image_object_class_text=[]),
}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"train.tfrecord": record("a.png")[:-9]}, "train.tfrecord: the record at byte 0 is cut off"),
        ({"train.tfrecord": b"\x05" + record("a.png")[1:]}, "the record at byte 0 is damaged or cut off"),
        ({"train.tfrecord": framed(b"\x0a\xff\xff")}, "train.tfrecord: record 1 is not an example of TensorFlow"),
        ({"train.tfrecord": framed(b"")}, "record 1 has no image/filename"),
        ({"train.tfrecord": record("a.png") * 2}, "record 2: there are two images called 'train/a.png'"),
        ({"train.tfrecord": record("../a.png")}, "names a file outside itself"),
        ({"train.tfrecord": record("a.png", CAR, image_object_bbox_xmin=[0.5, 0.5])}, "have different lengths"),
        ({"train.tfrecord": record("a.png", *[(9, 0.1, 0.1, 0.5, 0.5)] * 3)}, "3 of 4 shapes have a label that is not"),
        ({"label_map.pbtxt": b"item { id: 1 }"}, "label_map.pbtxt: an item has no id or no name"),
        ({"label_map.pbtxt": b"item { id: 1 name: 'it's' }"}, "label_map.pbtxt: an item has no id or no name"),
        ({"label_map.pbtxt": MAP + b"item { id: 3 name: 'a{b}' }"}, "an item is cut off, or has braces in its name"),
        ({"label_map.pbtxt": MAP + b"item { id: 1 name: 'bus' }"}, "'car' and 'bus' share the id 1: give each its own"),
        ({"train.tfrecord": record("a.png", CAR, image=None)}, "1 of 2 images cannot be used, 1 missing"),
    ],
)  # fmt: skip
def test_broken_records_are_refused_with_a_sentence(
    more: dict[str, bytes], sentence: str, tmp_path: Path, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


def test_escapes_in_names_are_read(tmp_path: Path, load: Load):
    names = rb"""item { id: 1 name: 'driver\'s car' } item { id: 2 name: "Stra\303\237e \"A\" \\1" }"""
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"label_map.pbtxt": names, **NUMBERED})))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [
        ('Straße "A" \\1', (2,)),
        ("driver's car", (1,)),
    ]


def test_items_with_one_name_are_merged_and_counted(tmp_path: Path, load: Load):
    names = MAP + b"item { id: 3 name: 'car ' } item { id: 3 name: 'car' }"
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"label_map.pbtxt": names})))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (1, 3)), ("road sign", (2,))]
    assert {change.reason: change.count for change in local.manifest.changes} == {"category-merged": 1}


def test_features_besides_the_image_have_a_limit():
    image = example({"image/encoded": [bytes(17 << 20)]})
    assert len(read_example(memoryview(image))["image/encoded"]) == 1
    two = example({"more": [bytes(9 << 20)], "yet more": [bytes(9 << 20)]})
    with pytest.raises(ValueError, match="its features have more than 16 MiB besides the image"):
        read_example(memoryview(two))


def test_empty_values_take_little_memory():
    made: dict[str, Values] = {"image/encoded": [b"x"] + [b""] * 500_000, "more": [b""] * 500_000}
    data = memoryview(example(made))
    tracemalloc.start()
    try:
        found = read_example(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found["image/encoded"], len(found["more"])) == ([b"x"], 500_000)
    assert peak < 16 << 20, "a list of 500,000 pointers takes 4 MB"
