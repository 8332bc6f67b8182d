"""Images with hundreds of objects: the boxes follow the queries, and a limit that is reached is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.prepare import PrepareRequest, prepare
from detr_job.family import build_family
from detr_job.prediction.evaluate_command import measure
from detr_job.prediction.predict_command import predict_files
from detr_job.prediction.predictor import Predictor
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from evaluation.predictions import read_predictions
from object_store import open_store
from prepared_set.manifest import Options
from tests.data_prep.export_builder import Export, encode, write_zip
from tests.detr_job.pictures import small_config

OBJECTS = 400
WIDTH, HEIGHT = 320, 240


def dense_picture() -> Image.Image:
    """400 bright squares in rows on a dark ground."""
    pixels = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for x, y in corners():
        pixels[y : y + 8, x : x + 8] = (230, 200, 60)
    return Image.fromarray(pixels)


def corners() -> list[tuple[int, int]]:
    return [(number % 25 * 12 + 4, number // 25 * 14 + 4) for number in range(OBJECTS)]


def model_with(folder: Path, queries: int) -> Path:
    """Random weights at the size of the pictures, one class."""
    sizes = {"data.min_sizes": "[240]", "data.eval_size": HEIGHT, "data.max_size": WIDTH}
    config = small_config("tiny", **{**sizes, "model.queries": queries})
    torch.manual_seed(3)
    info = ModelFolderConfig(
        classes=("square",),
        preset="tiny",
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size),
        prepared_set="set",
        metrics={},
    )
    write_model(folder, build_family(config, 1).network.state_dict(), info)
    return folder


@pytest.fixture(scope="module")
def dense_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store and a set in it, whose test split is one image with 400 objects."""
    folder = tmp_path_factory.mktemp("dense")
    parts = []
    for part in ("train", "test"):
        export = Export(("square",))
        boxes = [("square", float(x), float(y), 8.0, 8.0) for x, y in corners()]
        export.add(f"{part}.png", boxes, (WIDTH, HEIGHT), data=encode(dense_picture()))
        parts.append(str(write_zip(folder / f"{part}.zip", export)))
    request = PrepareRequest((parts[0],), (), (parts[1],), Options(val_fraction=0.0))
    return folder / "store", prepare(request, open_store(folder / "store"), lambda _, __: b"").manifest.id


def test_predict_gives_as_many_boxes_as_there_are_queries(tmp_path: Path):
    path = tmp_path / "dense.png"
    dense_picture().save(path)
    said: list[str] = []
    model = model_with(tmp_path / "model", 450)
    found = predict_files(str(model), [path], tmp_path / "out", 0.0, "cpu", said.append)
    assert len(found[0]["detections"]) == 450 >= OBJECTS
    assert said == ["boxes with a score below 0 are left out (--threshold)"], "nothing is cut"
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(written[0]["detections"]) == 450


def test_predict_says_which_images_may_have_more_objects(tmp_path: Path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        dense_picture().save(path)
    said: list[str] = []
    predict_files(str(model_with(tmp_path / "model", 60)), paths, None, 1e-6, "cpu", said.append)
    assert said == [
        (
            f"warning: {paths[0]} and 1 more: this model finds at most 60 boxes in an image "
            "(model.queries=60); further objects are not found. Train with more queries"
        )
    ]


def test_evaluate_counts_all_of_them(dense_set: tuple[Path, str], tmp_path: Path):
    store, set_id = dense_set
    said: list[str] = []
    model = model_with(tmp_path / "model", 450)
    result = measure(str(model), store.as_uri(), set_id, "test", tmp_path, 1, "cpu", say=said.append)
    assert len(read_predictions(tmp_path / "predictions" / "test.json").predictions) == 450
    assert said == []
    assert result.at_max_dets is not None
    assert (result.at_max_dets.max_dets, result.at_max_dets.beyond_100) == (OBJECTS, OBJECTS - 100)


def test_evaluate_says_that_a_model_cannot_find_all_objects(dense_set: tuple[Path, str], tmp_path: Path):
    store, set_id = dense_set
    said: list[str] = []
    measure(str(model_with(tmp_path / "model", 60)), store.as_uri(), set_id, "test", None, 1, "cpu", say=said.append)
    assert said == [
        (
            "warning: 1 image of test has more objects than this model can find (60, model.queries=60), up to 400 in "
            "test.png. Train with model.queries=420 or more"
        )
    ]


def test_a_threshold_that_leaves_few_boxes_reaches_no_limit(tmp_path: Path):
    predictor = Predictor(str(model_with(tmp_path / "model", 60)), torch.device("cpu"))
    found = predictor(dense_picture(), 1e-6)
    assert len(found) == 60
    assert predictor.at_limit(found, 1e-6)
    assert not predictor.at_limit(found[:59], 1e-6)
    assert not predictor.at_limit(found, 0.0)
