"""CVAT for video: tracks, keyframes and frames."""

import json
from pathlib import Path

import pytest

from data_prep.changes import ChangeLog, Reason
from data_prep.errors import DataPrepError
from data_prep.export_reader import ReadingRules
from data_prep.formats.record import Annotations
from run_config.automatic_boxes import AutomaticBoxes
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip
from tests.data_prep.formats.test_cvat_xml import meta, read, xml

SIZE = "<original_size><width>64</width><height>48</height></original_size>"


KEEP = ReadingRules(automatic_boxes=AutomaticBoxes.KEEP)


def shape(frame: int, x: float, more: str = "", *, outside: int = 0, keyframe: int = 1) -> str:
    return (
        f'<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" xtl="{x}" ytl="5" xbr="{x + 10}" '
        f'ybr="25" z_order="0" {more}/>\n'
    )


def track(*shapes: str, number: int = 0, label: str = "car") -> str:
    return f'<track id="{number}" label="{label}" source="auto" group_id="7">\n{"".join(shapes)}</track>'


def export(tmp_path: Path, *tracks: str, frames: int = 6, task: str = SIZE) -> Path:
    images = {f"images/frame_{number:06}.png": picture(str(number)) for number in range(frames)}
    return write_zip(tmp_path / "x.zip", **{"annotations.xml": xml("".join(tracks), meta(task=task))}, **images)


def lefts(annotations: Annotations) -> list[list[float]]:
    """The left edges of the boxes of each frame."""
    return [[one.box[0] for one in image.annotations if one.box] for image in annotations.images]


def test_boxes_between_keyframes_are_calculated_until_the_track_is_outside(tmp_path: Path):
    changes = ChangeLog()
    found = read(export(tmp_path, track(shape(0, 10), shape(2, 30), shape(4, 30, outside=1))), changes)
    assert lefts(found) == [[10], [20], [30], [30], [], []]
    assert [one.file_name for one in found.images][:2] == ["frame_000000.png", "frame_000001.png"]
    assert changes.count(Reason.BOX_CALCULATED) == 2
    first, between = (next(iter(found.images[number].annotations)) for number in (0, 1))
    assert (first.source, first.track_id, between.source, between.track_id) == ("auto", "0", "auto", "0")
    assert [json.loads(bytes(one.attributes))["keyframe"] for one in (first, between)] == [True, False]
    assert json.loads(bytes(first.attributes))["group_id"] == "7"


def test_the_last_keyframe_of_a_track_holds_to_the_end(tmp_path: Path):
    assert lefts(read(export(tmp_path, track(shape(1, 10), shape(3, 12))))) == [[], [10], [11], [12], [12], [12]]


def test_boxes_that_the_file_lists_between_keyframes_are_used_as_they_are(tmp_path: Path):
    changes = ChangeLog()
    dense = track(shape(0, 10), shape(1, 17, keyframe=0), shape(2, 30), shape(3, 30, outside=1))
    assert lefts(read(export(tmp_path, dense), changes)) == [[10], [17], [30], [], [], []]
    assert changes.count(Reason.BOX_CALCULATED) == 0


def test_a_track_that_comes_back_is_not_there_in_between(tmp_path: Path):
    found = read(export(tmp_path, track(shape(0, 10), shape(1, 10, outside=1), shape(4, 20), shape(5, 20, outside=1))))
    assert lefts(found) == [[10], [], [], [], [20], []]


def test_a_rotation_goes_the_shorter_way(tmp_path: Path):
    turned = track(shape(0, 10, 'rotation="350"'), shape(2, 10, 'rotation="20"'), shape(3, 10, outside=1))
    (between,) = read(export(tmp_path, turned)).images[1].annotations
    assert between.rotation == pytest.approx(5)


def test_a_polygon_between_keyframes_is_the_box_between(tmp_path: Path):
    def polygon(frame: int, x: int) -> str:
        return f'<polygon frame="{frame}" keyframe="1" outside="0" points="{x},5;{x + 10},5;{x},25"/>'

    found = read(export(tmp_path, track(polygon(0, 10), polygon(2, 20)), frames=3))
    (listed,), (between,), _ = (tuple(image.annotations) for image in found.images)
    assert (json.loads(bytes(listed.outline)), bytes(between.outline)) == ([[10, 5, 20, 5, 10, 25]], b"[]")
    assert between.box == (15, 5, 10, 20)


def test_frames_and_tracks_become_a_prepared_set(tmp_path: Path, load: Load):
    tracks = [track(shape(0, 10), shape(5, 20)), track(shape(2, 40), number=1, label="road sign")]
    local = load(export(tmp_path, *tracks), rules=KEEP)
    images = [record for split in ("train", "val") for record in local.split(split).images]
    assert sorted(len(record.boxes) for record in images) == [1, 1, 2, 2, 2, 2]
    assert {record.width for record in images} == {64}
    assert {change.reason: change.count for change in local.manifest.changes} == {"box-calculated": 7}


def test_images_that_are_no_frames_are_not_guessed(tmp_path: Path, run_prepare: Prepare):
    data = xml(track(shape(0, 10)), meta(task=SIZE))
    path = write_zip(tmp_path / "x.zip", **{"annotations.xml": data, "images/a.png": picture("a")})
    with pytest.raises(DataPrepError, match=r"'images/a.png' is not called like a frame .* 'CVAT for images 1.1'"):
        run_prepare(path)


@pytest.mark.parametrize(
    ("tracks", "task", "sentence"),
    [
        (track(shape(0, 1)) + '<image name="a.png"/>', SIZE, "begins an image, among tracks"),
        (track(shape(0, 1), shape(0, 2)), SIZE, "line 3 and line 4 are the same track on frame 0"),
        (track(shape(-1, 1)), SIZE, "frame '-1' is not a frame's number"),
        (track(shape(0, 1), label="lorry"), SIZE, "1 of 1 shapes have a label that is not listed"),
        (track(shape(0, 1)), "<task><id>4</id></task><task><id>5</id></task>", "holds 3 tasks"),
    ],
)
def test_broken_tracks_are_refused(tmp_path: Path, tracks: str, task: str, sentence: str, run_prepare: Prepare):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(export(tmp_path, tracks, task=task))


def test_a_missing_frame_is_counted(tmp_path: Path, load: Load):
    path = export(tmp_path, track(shape(0, 10), shape(30, 20)), frames=20)
    assert {change.reason: change.count for change in load(path, rules=KEEP).manifest.changes}["image-missing"] == 1


@pytest.mark.parametrize(
    ("tracks", "images", "boxes", "said"),
    [
        ((0, 3, 6, 9), (0, 1, 2, 3), (0, 3, 6, 9), "the images are numbered one by one"),
        ((0, 9), (0, 1, 2, 3), (0, 3, 6, 9), "the images are numbered one by one"),
        ((0, 3), (0, 1, 2, 3), (0, 3, 3, 3), "the images are numbered one by one"),
        ((0, 1, 2, 3), (0, 3, 6, 9), (0, 1, 2, 3), "the tracks count one by one"),
        ((0, 3, 6, 9), (0, 3, 6, 9), (0, 3, 6, 9), ""),
        ((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), ""),
        ((0, 9), tuple(range(10)), tuple(range(10)), ""),
        ((0, 6), tuple(range(6)), (*range(6), 6), ""),
    ],
)
def test_frames_that_a_step_leaves_out_count_in_images_and_tracks_or_in_neither(
    tracks: tuple[int, ...], images: tuple[int, ...], boxes: tuple[int, ...], said: str, tmp_path: Path
):
    task = f"{SIZE}<size>4</size><start_frame>0</start_frame><frame_filter>step=3</frame_filter>"
    shapes = track(*(shape(number, number) for number in tracks))
    files = {f"images/frame_{number:06}.png": picture(str(number)) for number in images}
    found = read(write_zip(tmp_path / "x.zip", **{"annotations.xml": xml(shapes, meta(task=task))}, **files))
    assert [bool(said) and said in one for one in found.notes] == [True] * bool(said)
    assert lefts(found) == [[pytest.approx(one)] for one in boxes]
    assert [f"images/{one.file_name}" for one in found.images][: len(files)] == list(files)


def test_images_in_no_order_of_the_step_are_refused(tmp_path: Path):
    task = f"{SIZE}<size>4</size><start_frame>0</start_frame><frame_filter>step=3</frame_filter>"
    shapes = track(*(shape(number, number) for number in (0, 3, 6, 9)))
    files = {f"images/frame_{number:06}.png": picture(str(number)) for number in (1, 2, 3, 4)}
    with pytest.raises(DataPrepError, match=r"count 0, 3 and so on \(frame_filter step=3\), and the images"):
        read(write_zip(tmp_path / "x.zip", **{"annotations.xml": xml(shapes, meta(task=task))}, **files))
