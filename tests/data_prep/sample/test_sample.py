"""The sample is a CVAT export like any other: whole, reproducible, labelled truthfully, reused."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.sample.make import ABANDONED_AFTER_S, SampleError, make_sample
from data_prep.sample.parts import MATERIALS, SHAPES, Light, draw_part
from data_prep.sample.scene import (
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    LEAST_CONTRAST,
    LEAST_VISIBLE,
    PARTS_PER_IMAGE,
    draw_scene,
)
from data_prep.sample.tables import TABLES, draw_table

ANNOTATIONS = "annotations/instances_default.json"


def read(path: Path) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    return archive, json.loads(archive.read(ANNOTATIONS))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_sample(tmp_path_factory.mktemp("sample"), images=60, seed=3)


@pytest.mark.parametrize("half", ["trainval", "test"])
def test_the_zip_is_laid_out_as_cvat_writes_it(sample: Any, half: str) -> None:
    archive, coco = read(getattr(sample, half))
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files == {ANNOTATIONS} | {f"images/default/{image['file_name']}" for image in coco["images"]}
    assert [category["name"] for category in coco["categories"]] == list(SHAPES)
    assert [category["id"] for category in coco["categories"]] == list(range(1, len(SHAPES) + 1))
    assert [image["id"] for image in coco["images"]] == list(range(1, len(coco["images"]) + 1))
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    for annotation in coco["annotations"]:
        assert annotation["segmentation"] == []
        assert annotation["iscrowd"] == 0
        assert isinstance(annotation["attributes"]["occluded"], bool)
        width, height = annotation["bbox"][2:]
        assert annotation["area"] == pytest.approx(width * height, abs=1e-3)


def test_every_picture_decodes_at_the_size_it_is_said_to_have(sample: Any) -> None:
    archive, coco = read(sample.trainval)
    for image in coco["images"]:
        with Image.open(io.BytesIO(archive.read(f"images/default/{image['file_name']}"))) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert picture.size == (image["width"], image["height"])


def test_a_fifth_is_held_back_and_no_picture_is_on_both_sides(sample: Any) -> None:
    (trainval_zip, trainval), (test_zip, test) = read(sample.trainval), read(sample.test)
    assert (len(trainval["images"]), len(test["images"])) == (48, 12)
    names = [image["file_name"] for image in trainval["images"] + test["images"]]
    assert len(set(names)) == 60
    crcs = [entry.CRC for z in (trainval_zip, test_zip) for entry in z.infolist() if entry.filename.endswith("jpg")]
    assert len(set(crcs)) == 60


def test_boxes_lie_inside_the_picture_and_are_never_empty(sample: Any) -> None:
    _, coco = read(sample.trainval)
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0
        assert y >= 0
        assert width >= 4
        assert height >= 4
        assert x + width <= IMAGE_WIDTH + 0.01
        assert y + height <= IMAGE_HEIGHT + 0.01


def test_the_sample_holds_every_class_empty_pictures_overlaps_and_all_sizes(sample: Any) -> None:
    _, coco = read(sample.trainval)
    annotations = coco["annotations"]
    assert {a["category_id"] for a in annotations} == set(range(1, len(SHAPES) + 1))
    assert {image["id"] for image in coco["images"]} - {a["image_id"] for a in annotations}
    occluded = sum(a["attributes"]["occluded"] for a in annotations) / len(annotations)
    assert 0.03 < occluded < 0.4
    areas = np.array([a["area"] for a in annotations])
    for share in ((areas < 32**2).mean(), (areas > 96**2).mean()):
        assert share > 0.02


def test_the_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make_sample(tmp_path / name, images=6, seed=1) for name in "ab")
    assert first.trainval.read_bytes() == second.trainval.read_bytes()
    assert first.test.read_bytes() == second.test.read_bytes()


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    first, second = (make_sample(tmp_path / str(seed), images=2, seed=seed) for seed in (0, 1))
    one, other = (zipfile.ZipFile(f.trainval).read("images/default/parts_00001.jpg") for f in (first, second))
    assert one != other


def test_a_whole_sample_is_reused_without_drawing(tmp_path: Path) -> None:
    drawn: list[int] = []
    first = make_sample(tmp_path, images=5, seed=0, progress=drawn.append)
    assert sum(drawn) == 5
    assert not first.reused
    times = [path.stat().st_mtime_ns for path in (first.trainval, first.test)]
    again = make_sample(tmp_path, images=5, seed=0, progress=drawn.append)
    assert again.reused
    assert sum(drawn) == 5
    assert times == [path.stat().st_mtime_ns for path in (first.trainval, first.test)]


@pytest.mark.parametrize("options", [{"images": 6, "seed": 0}, {"images": 5, "seed": 1}])
def test_other_options_replace_the_sample(tmp_path: Path, options: Any) -> None:
    make_sample(tmp_path / "kept", images=5, seed=0)
    changed = make_sample(tmp_path / "kept", **options)
    fresh = make_sample(tmp_path / "fresh", **options)
    assert not changed.reused
    assert changed.trainval.read_bytes() == fresh.trainval.read_bytes()
    assert changed.test.read_bytes() == fresh.test.read_bytes()


def test_another_version_of_the_generator_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sample(tmp_path, images=2)
    monkeypatch.setattr("data_prep.sample.make.generator_version", lambda: "another")
    assert not make_sample(tmp_path, images=2).reused


def flip_a_byte_of_a_picture(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 3000] ^= 0x55
    path.write_bytes(data)


def cut_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def add_an_entry(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images/default/mine.jpg", b"mine")


def write_nonsense(path: Path) -> None:
    path.write_bytes(b"not a zip")


@pytest.mark.parametrize("harm", [flip_a_byte_of_a_picture, cut_the_end, add_an_entry, write_nonsense])
def test_a_damaged_or_changed_half_is_drawn_anew_and_only_that_half(tmp_path: Path, harm: Any) -> None:
    files = make_sample(tmp_path, images=5)
    whole = files.test.read_bytes()
    harm(files.test)
    drawn: list[int] = []
    assert not make_sample(tmp_path, images=5, progress=drawn.append).reused
    assert files.test.read_bytes() == whole
    assert sum(drawn) == 1


def test_a_killed_run_leaves_no_half_zip_under_the_final_name(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; import data_prep.sample.make as sample\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sample.make_sample(Path(sys.argv[1]), images=3)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    assert partial.name.endswith(".partial")
    files = make_sample(tmp_path, images=3)
    assert partial.exists(), "it may belong to a run that is still at work"
    old = time.time() - ABANDONED_AFTER_S - 60
    os.utime(partial, (old, old))
    make_sample(tmp_path, images=3)
    assert sorted(tmp_path.iterdir()) == sorted([files.trainval, files.test])


@pytest.mark.parametrize(
    ("options", "named"), [({"images": 1}, "--images is 1"), ({"images": 4, "seed": -1}, "--seed is -1")]
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, options: Any, named: str) -> None:
    with pytest.raises(SampleError, match=named) as refusal:
        make_sample(tmp_path / "never", **options)
    assert refusal.value.exit_code == 2
    assert not (tmp_path / "never").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SampleError, match=f"cannot write the sample to {tmp_path}/file"):
        make_sample(tmp_path / "file", images=2)


@pytest.mark.parametrize("label", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.4])
def test_the_box_of_a_part_is_its_outline(label: str, angle: float) -> None:
    light = Light.from_angles(-2.0, 0.9)
    sprite = draw_part(label, "zinc", half_length_px=40.0, angle=angle, light=light, rng=np.random.default_rng(0))
    seen = sprite.coverage > 0.5
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    outline = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    np.testing.assert_allclose(sprite.box, outline, atol=1.0)
    edge = np.concatenate([sprite.coverage[[0, -1]].ravel(), sprite.coverage[:, [0, -1]].ravel()])
    assert edge.max() == 0, "the sprite cuts the part"
    assert np.isfinite(sprite.colour).all()


def test_parts_are_drawn_where_their_boxes_say() -> None:
    """Against the same scene without parts: what differs strongly lies in boxes, and fills them."""
    found = 0
    for seed in range(12):
        scene = draw_scene(np.random.default_rng(seed))
        if not scene.parts:
            continue
        pixels = scene.pixels.astype(np.float32)
        inside = np.zeros(pixels.shape[:2], bool)
        for part in scene.parts:
            left, top, right, bottom = (round(value) for value in part.box)
            inside[top:bottom, left:right] = True
        ground = np.median(pixels[~inside], axis=0)
        differs = np.abs(pixels - ground).sum(axis=2) > 90
        assert differs[inside].mean() > 5 * differs[~inside].mean()
        found += 1
    assert found >= 8


def test_a_picture_holds_no_more_parts_than_stated() -> None:
    counts = [len(draw_scene(np.random.default_rng([9, i])).parts) for i in range(40)]
    assert max(counts) <= PARTS_PER_IMAGE[1]
    assert max(counts) >= 8


def test_parts_overlap_but_none_is_hidden_too_far() -> None:
    shares = [part.visible for i in range(40) for part in draw_scene(np.random.default_rng([9, i])).parts]
    assert min(shares) >= LEAST_VISIBLE
    assert min(shares) < 0.7
    assert max(shares) == 1.0


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_leaves_materials_that_show(kind: str) -> None:
    surface = draw_table(kind, 80, 100, np.random.default_rng(0))
    assert surface.shape == (80, 100, 3)
    ground = surface.mean(axis=(0, 1))
    clear = [name for name, colour in MATERIALS.items() if np.linalg.norm(np.array(colour) - ground) >= LEAST_CONTRAST]
    assert len(clear) >= 3
