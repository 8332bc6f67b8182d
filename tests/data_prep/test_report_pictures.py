"""What the report shows besides the manifest: what models see, suspicious boxes, twins, boxes of each class."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.dataset import Dataset
from data_prep.export_reader import Watcher
from data_prep.prepare import PrepareRequest, locate, read_dataset
from data_prep.report.box_numbers import GRID, number_boxes, position_grid, sights, suspects
from tests.data_prep.export_builder import ClassBox, Export, encode, picture, simple_export, write_zip
from tests.data_prep.test_report import Page, page_of


def dataset_of(tmp_path: Path, export: Export) -> Dataset:
    path = write_zip(tmp_path / "x.zip", export)
    with read_dataset(locate(PrepareRequest((str(path),))), Watcher()) as (dataset, _):
        return dataset


def noise(number: int, size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return encode(Image.fromarray(pixels), ".jpg")


def places(dataset: Dataset, kind: str) -> set[tuple[str, tuple[float, ...]]]:
    found = next((one.found for one in suspects(dataset, number_boxes(dataset)) if one.kind == kind), ())
    return {(dataset.images[image].file_name, dataset.images[image].boxes[box].bbox) for image, box in found}


def test_suspicious_boxes_are_found_by_kind(tmp_path: Path):
    export = Export()
    for number in range(40):
        export.add(f"{number:02}.png", [("cat", 5 + number % 7, 5, 10, 10)])
    export.add("doubled.png", [("cat", 20, 20, 10, 10), ("cat", 20, 20.1, 10, 10)])
    export.add("tiny.png", [("dog", 20, 20, 2, 10)])
    export.add("huge.png", [("dog", 0, 0, 64, 47)])
    export.add("unusual.png", [("cat", 1, 5, 62, 4)])
    dataset = dataset_of(tmp_path, export)
    assert {name for name, _ in places(dataset, "doubled")} == {"doubled.png"}
    assert places(dataset, "too small") == {("tiny.png", (20, 20, 2, 10))}
    assert places(dataset, "huge") == {("huge.png", (0, 0, 64, 47))}
    assert places(dataset, "unusual") == {("unusual.png", (1, 5, 62, 4))}


def test_a_model_sees_less_with_a_smaller_input_and_a_larger_stride(tmp_path: Path):
    export = Export()
    export.add("x.png", [("cat", 0, 0, 64, 40), ("cat", 10, 20, 10, 10)], size=(640, 480))
    found = {one.preset: one for one in sights(number_boxes(dataset_of(tmp_path, export)))}
    tiny, detr = found["tiny"], found["detr-r50"]
    assert (tiny.stride, tiny.hidden, tiny.below_stride) == (8, 0, 0.5), "10 pixels become 5 at 240 x 320"
    assert (detr.stride, detr.hidden, detr.below_stride) == (32, 0, 0.5), "10 pixels become 16.7 at 800 x 1067"
    square = found["rf-detr-nano"]
    assert (square.input_size, square.stride, square.hidden) == ("384 x 384", 16, 0.5)


def test_positions_are_those_of_centres(tmp_path: Path):
    export = Export()
    export.add("x.png", [("cat", 60, 0, 4, 3)])
    grid = position_grid(number_boxes(dataset_of(tmp_path, export)))
    assert grid[0][GRID - 1] == 1
    assert sum(map(sum, grid)) == 1


def test_the_page_names_what_the_models_cannot_see_and_shows_suspects(tmp_path: Path):
    export = simple_export(30)
    for number in range(10):
        export.add(f"small{number}.png", [("cat", 5, 5, 2, 2)], size=(1920, 1080))
    _, source = page_of(tmp_path, export)
    page = Page(source)
    assert "too small for the model at its input size: " in page.text
    assert "10 too small A side below 3 pixels" in page.text
    assert "nobody can see. The first 6 are shown." in page.text
    assert "Look at the suspicious boxes below and correct them in CVAT: 10 too small" in page.text


def test_an_image_in_two_splits_is_shown_twice(tmp_path: Path):
    shared = picture("shared")
    train, test = simple_export(20), simple_export(4, prefix="t")
    train.add("one.png", [("cat", 1, 1, 9, 9)], data=shared)
    test.add("other.png", [("cat", 1, 1, 9, 9)], data=shared)
    _, source = page_of(tmp_path, train, test=test, val_fraction=0)
    assert "test and train: the same file other.png and one.png" in Page(source).text


def test_noise_and_endless_names_stay_below_five_megabytes(tmp_path: Path):
    """Noise is what JPEG compresses worst."""
    classes = tuple(f"{'&' * 2000} {number}" for number in range(60))
    export = Export(classes)
    for number in range(30):
        own: list[ClassBox] = [(classes[(number + k) % 60], 40 * (k % 20), 28 * (k // 20), 39, 27) for k in range(400)]
        export.add(f"{number}.jpg", own, size=(900, 600), data=noise(number, (900, 600)))
    _, source = page_of(tmp_path, export)
    assert len(source.encode()) < 5_000_000


def test_a_set_without_boxes_in_a_class_has_a_page(tmp_path: Path):
    export = Export(("cat", "never"))
    export.add("x.png", [("cat", 10, 20, 30, 15)])
    assert "Boxes of each class cat" in Page(page_of(tmp_path, export)[1]).text
