import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.errors import PredictionsError
from evaluation.ground_truth import GroundTruth
from evaluation.predictions import (
    PredictedImage,
    Prediction,
    PredictionsFile,
    read_predictions,
    write_predictions,
)
from tests.evaluation.datasets import random_coco

PREDICTION = {"image_id": 1, "category_id": 0, "bbox": [1.5, 2, 30, 40.25], "score": 0.93}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "set": "0123456789abcdef",
        "split": "test",
        "model": "tiny",
        "classes": ["class 0", "class 1"],
        "images": [{"image_id": n, "width": 640, "height": 480} for n in (1, 2)],
        "predictions": [PREDICTION],
    } | changes


def read(content: dict[str, Any], **expected: Any) -> PredictionsFile:
    return read_predictions(json.dumps(content).encode(), name="predictions/test.json", **expected)


def truth() -> GroundTruth:
    return GroundTruth.read(random_coco(1, images=2, classes=2)[0])


def test_what_is_written_is_read_back_and_has_the_documented_form(tmp_path: Path) -> None:
    content = PredictionsFile(
        set_id="0123456789abcdef",
        split="test",
        model="tiny",
        classes=("class 0", "class 1"),
        images=(PredictedImage(1, 640, 480), PredictedImage(2, 640, 480)),
        predictions=(Prediction(1, 0, (1.5, 2.0, 30.0, 40.25), 0.93),),
    )
    path = tmp_path / "predictions" / "test.json"
    write_predictions(path, content)
    assert json.loads(path.read_text()) == document()
    assert read_predictions(path, set_id="0123456789abcdef", split="test", truth=truth()) == content
    assert [entry.name for entry in path.parent.iterdir()] == ["test.json"]


def test_content_that_could_not_be_read_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps(document()))
    broken = read(document())
    broken = PredictionsFile(
        set_id=broken.set_id,
        split="test",
        model="tiny",
        classes=broken.classes,
        images=broken.images,
        predictions=(Prediction(1, 0, (0.0, 0.0, 1.0, 1.0), float("nan")),),
    )
    with pytest.raises(PredictionsError, match="score nan"):
        write_predictions(path, broken)
    assert json.loads(path.read_text()) == document()


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.json"
    path.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_predictions(path, read(document()))
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "has format 2, this version reads 1: use the version that wrote it"),
        ({"set": None}, r"is not a predictions file: Expected `str`, got `null` - at `\$.set`"),
        ({"images": [{"image_id": 1, "width": 1, "height": 1}] * 2}, "lists an image more than once"),
        ({"classes": ["a", "a"]}, "lists a class more than once"),
        ({"predictions": [PREDICTION | {"image_id": 7}]}, "prediction 0 .* is for image 7"),
        ({"predictions": [PREDICTION, PREDICTION | {"category_id": 2}]}, "prediction 1 .* has category_id 2"),
        ({"predictions": [PREDICTION | {"score": -0.1}]}, "prediction 0 .* has score -0.1; it must be 0 to 1"),
        ({"predictions": [PREDICTION | {"score": float("nan")}]}, "is not a predictions file"),
        ({"predictions": [PREDICTION | {"bbox": [0, 0, -5, 1]}]}, "prediction 0 .* sizes not negative"),
        ({"predictions": [PREDICTION | {"bbox": [0, 0, 1]}]}, "is not a predictions file: .*bbox"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_a_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PredictionsError, match=sentence) as refused:
        read(document(**change))
    assert "predictions/test.json" in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"set": "ffff"}, "was made on the prepared set ffff, not on 0123456789abcdef"),
        ({"split": "val"}, "is for the split 'val', not 'test'"),
        ({"classes": ["class 1", "class 0"]}, "must be the same, in the same order"),
        (
            {"images": [{"image_id": 1, "width": 640, "height": 480}]},
            r"is missing 1 of 2 images .*\(first: 2\)",
        ),
        (
            {"images": [{"image_id": n, "width": 640, "height": 480} for n in (1, 2, 3)]},
            "lists image 3, which the split does not have",
        ),
        (
            {"images": [{"image_id": n, "width": 480, "height": 640} for n in (1, 2)]},
            "has image 1 as 480x640 pixels, the set as 640x480",
        ),
    ],
)
def test_predictions_of_another_set_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PredictionsError, match=sentence):
        read(document(**change), set_id="0123456789abcdef", split="test", truth=truth())


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"test.json cannot be read: No such file"):
        read_predictions(tmp_path / "test.json")
    (tmp_path / "test.json").write_bytes(b'{"format": 1, "set"')
    with pytest.raises(PredictionsError, match=r"test.json is not a predictions file"):
        read_predictions(tmp_path / "test.json")
