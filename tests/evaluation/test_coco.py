import contextlib
import copy
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.average_precision import UNDEFINED
from evaluation.coco import CocoResult, evaluate_boxes
from evaluation.errors import GroundTruthError, PredictionsError
from evaluation.ground_truth import GroundTruth
from tests.evaluation.datasets import Coco, Predictions, random_coco


def reference(
    coco: Coco, predictions: Predictions, limits: tuple[int, ...] = (1, 10, 100)
) -> tuple[list[float], np.ndarray, np.ndarray]:
    """The same by pycocotools: the 12 numbers, precision and recall. `limits`: its maxDets."""
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = COCO()
        wanted.dataset = copy.deepcopy(coco)
        wanted.createIndex()
        if predictions:
            found = wanted.loadRes(copy.deepcopy(predictions))
        else:  # pycocotools cannot load an empty list
            found = COCO()
            found.dataset = {**copy.deepcopy(coco), "annotations": []}
            found.createIndex()
        evaluation = COCOeval(wanted, found, "bbox")
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist(), evaluation.eval["precision"], evaluation.eval["recall"]


def same(numbers: float | list[float]) -> Any:
    """Equal up to the 2e-16 that pycocotools adds to a denominator, far behind the last printed digit."""
    return pytest.approx(numbers, rel=0, abs=1e-13)


def assert_same_as_pycocotools(coco: Coco, predictions: Predictions) -> CocoResult:
    result = evaluate_boxes(coco, predictions)
    numbers, precision, recall = reference(coco, predictions)
    assert list(result.numbers().values()) == same(numbers)

    def mean(values: np.ndarray) -> float:
        return float(np.mean(values[values > -1])) if (values > -1).any() else UNDEFINED

    for k, found in enumerate(result.classes):
        assert found.ap == same(mean(precision[:, :, k, 0, 2]))
        assert found.ap50 == same(mean(precision[0, :, k, 0, 2]))
        assert found.ar_100 == same(mean(recall[:, k, 0, 2]))
    return result


# Coarse numbers make touching, equal and degenerate boxes and tied scores likely.
side = st.sampled_from([0.0, 1.0, 8.0, 31.0, 32.0, 33.0, 64.0, 96.0, 97.0, 200.0])
box = st.tuples(st.integers(0, 5).map(lambda n: n * 10.0), st.integers(0, 5).map(lambda n: n * 10.0), side, side)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Coco, Predictions]:
    image_ids = draw(st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True))
    category_ids = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    some_image, some_category = st.sampled_from(image_ids), st.sampled_from(category_ids)
    annotation = st.fixed_dictionaries(
        {
            "image_id": some_image,
            "category_id": some_category,
            "bbox": box.map(list),
            "area": st.sampled_from([0.0, 1.0, 1023.0, 1024.0, 1025.0, 9215.0, 9216.0, 9217.0, 40000.0]),
            "iscrowd": st.sampled_from([0, 0, 0, 1]),
        }
    )
    prediction = st.fixed_dictionaries(
        {
            "image_id": some_image,
            "category_id": some_category,
            "bbox": box.map(list),
            "score": st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 1.0]),
        }
    )
    annotations = draw(st.lists(annotation, max_size=12))
    coco = {
        "images": [{"id": i, "width": 300, "height": 300} for i in image_ids],
        "categories": [{"id": i, "name": str(i)} for i in category_ids],
        "annotations": [{"id": n, **content} for n, content in enumerate(annotations, start=1)],
    }
    return coco, draw(st.lists(prediction, max_size=15))


@settings(max_examples=60)
@given(cases())
def test_every_number_is_the_one_of_pycocotools(case: tuple[Coco, Predictions]) -> None:
    assert_same_as_pycocotools(*case)


@pytest.mark.parametrize("tied_scores", [True, False])
def test_a_set_of_middling_size_gives_the_numbers_of_pycocotools(tied_scores: bool) -> None:
    result = assert_same_as_pycocotools(*random_coco(3, images=250, classes=6, tied_scores=tied_scores))
    assert 0.05 < result.ap < result.ap50 < 0.9, "the case is neither empty nor perfect"


def test_more_than_a_hundred_predictions_in_an_image_are_cut_as_pycocotools_does() -> None:
    coco, predictions = random_coco(5, images=2, classes=1, objects=120)
    assert max(sum(p["image_id"] == i for p in predictions) for i in (1, 2)) > 100
    assert_same_as_pycocotools(coco, predictions)


@pytest.mark.parametrize(("seed", "classes", "objects"), [(5, 2, 260), (6, 2, 400), (7, 4, 300)])
def test_max_dets_follows_the_data_and_gives_the_numbers_of_pycocotools(seed: int, classes: int, objects: int) -> None:
    coco, predictions = random_coco(seed, images=3, classes=classes, objects=objects)
    counts = [sum(a["image_id"] == i and not a["iscrowd"] for a in coco["annotations"]) for i in (1, 2, 3)]
    assert max(counts) > 100
    result = assert_same_as_pycocotools(coco, predictions)  # the standard numbers stay what they are
    wide = result.at_max_dets
    assert wide is not None
    assert wide.max_dets == max(counts)
    _, precision, recall = reference(coco, predictions, (1, 10, 100, max(counts)))

    def mean(values: np.ndarray) -> Any:
        return same(float(np.mean(values[values > -1])))

    assert (wide.ap, wide.ap50, wide.ap75) == tuple(mean(precision[at, :, :, 0, 3]) for at in (slice(None), 0, 5))
    assert (wide.ap_small, wide.ap_medium, wide.ap_large) == tuple(mean(precision[..., area, 3]) for area in (1, 2, 3))
    assert (wide.ar, wide.ar_small, wide.ar_medium, wide.ar_large) == tuple(
        mean(recall[..., area, 3]) for area in range(4)
    )
    for k, each in enumerate(result.classes[:-1]):  # the last never occurs
        assert each.at_max_dets is not None
        assert each.at_max_dets.ap == mean(precision[:, :, k, 0, 3])
        assert each.at_max_dets.ap50 == mean(precision[0, :, k, 0, 3])
        assert each.at_max_dets.ar == mean(recall[:, k, 0, 3])
    assert wide.ap >= result.ap


def test_every_object_of_a_dense_image_can_be_found() -> None:
    coco = grid(250)
    predictions = [{"image_id": 1, "category_id": 0, "bbox": a["bbox"], "score": 0.9} for a in coco["annotations"]]
    result = evaluate_boxes(coco, predictions)
    assert result.ar_100 == pytest.approx(0.4)
    assert result.at_max_dets is not None
    assert (result.at_max_dets.ap, result.at_max_dets.ar, result.decisive_ap) == (1.0, 1.0, 1.0)
    assert result.at_max_dets.sentence(250) == (
        "The fullest image has 250 objects, so the 250 best boxes per image and class are counted; COCO counts 100, "
        "and recall 1 cannot be reached there: 150 of 250 objects can never count as found."
    )
    assert result.summary() == "AP 1.000, AP50 1.000 at maxDets 250 (AP 0.406 at COCO's 100)"
    assert result.line()["max_dets"] == 250
    assert result.to_dict()["at_max_dets"]["ap"] == 1.0


def test_up_to_a_hundred_objects_nothing_is_added() -> None:
    coco = grid(100)
    result = evaluate_boxes(coco, [])
    assert result.at_max_dets is None
    assert result.line() == result.numbers()
    assert set(result.to_dict()) == {*result.numbers(), "classes"}
    assert set(result.to_dict()["classes"][0]) == {"category_id", "name", "ap", "ap50", "ar_100", "ground_truths"}
    coco["annotations"] += [{**coco["annotations"][0], "id": 1000, "iscrowd": 1}]
    assert evaluate_boxes(coco, []).at_max_dets is None, "a crowd region is no object to find"


def grid(objects: int) -> Coco:
    """One image with as many objects, none of which touch."""
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": 0, "bbox": [n % 20 * 10, n // 20 * 10, 8, 8], "iscrowd": 0}
        for n in range(objects)
    ]
    return {
        "images": [{"id": 1, "width": 300, "height": 300}],
        "categories": [{"id": 0, "name": "cell"}],
        "annotations": annotations,
    }


def test_perfect_predictions_score_one_whatever_the_annotation_ids() -> None:
    coco, _ = random_coco(1, images=10, classes=3)
    for number, annotation in enumerate(coco["annotations"]):
        annotation.update(id=number, iscrowd=0)  # id 0 is the one that COCO tools confuse with "no match"
    predictions = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for annotation in coco["annotations"]
    ]
    result = evaluate_boxes(coco, predictions)
    assert (result.ap, result.ap50, result.ap_small, result.ar_100) == (1.0, 1.0, 1.0, 1.0)


def test_no_predictions_score_zero_where_there_is_something_to_find() -> None:
    coco, _ = random_coco(1, images=10, classes=3)
    result = evaluate_boxes(coco, [])
    assert (result.ap, result.ap50, result.ar_100) == (0.0, 0.0, 0.0)


def test_a_class_that_the_split_lacks_is_undefined_and_does_not_pull_the_mean() -> None:
    coco, predictions = random_coco(1, images=20, classes=3)
    result = evaluate_boxes(coco, predictions)
    absent = result.classes[-1]
    assert (absent.ground_truths, absent.ap, absent.ap50, absent.ar_100) == (
        0,
        UNDEFINED,
        UNDEFINED,
        UNDEFINED,
    )
    assert result.ap == pytest.approx(np.mean([found.ap for found in result.classes[:-1]]))


@pytest.mark.parametrize("images", [0, 3])
def test_nothing_to_find_leaves_every_number_undefined_and_the_json_strict(images: int) -> None:
    coco, _ = random_coco(1, images=images, classes=2, objects=0)
    predictions = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.5}] if images else []
    result = evaluate_boxes(coco, predictions)
    assert set(result.numbers().values()) == {UNDEFINED}
    assert result.summary() == "AP not measurable: no boxes"
    assert "null" not in json.dumps(result.to_dict(), allow_nan=False)


def test_a_missing_area_is_the_area_of_the_box() -> None:
    coco, predictions = random_coco(2, images=20, classes=2)
    for annotation in coco["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    stated = evaluate_boxes(coco, predictions)
    for annotation in coco["annotations"]:
        del annotation["area"]
    assert evaluate_boxes(coco, predictions) == stated


def test_the_caller_keeps_its_data_unchanged_and_stdout_stays_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    before = copy.deepcopy((coco, predictions))
    evaluate_boxes(coco, predictions)
    assert (coco, predictions) == before
    assert capfd.readouterr() == ("", "")


def test_a_file_its_content_and_the_parsed_record_give_the_same(tmp_path: Any) -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"info": {}, **coco}))
    truth = GroundTruth.read(path)
    assert evaluate_boxes(path, predictions) == evaluate_boxes(coco, predictions) == evaluate_boxes(truth, predictions)


def test_per_class_results_can_be_left_out() -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    assert evaluate_boxes(coco, predictions, per_class=False).classes == ()


def test_repeated_annotation_ids_are_refused_by_number() -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    coco["annotations"][3]["id"] = coco["annotations"][0]["id"]
    with pytest.raises(GroundTruthError, match="repeats annotation id 1: only one of each would count"):
        evaluate_boxes(coco, predictions)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_id": 999}, "annotation 1 .* belongs to image 999, which is not listed"),
        ({"category_id": 7}, "annotation 1 .* has category 7, which is not listed"),
        ({"bbox": [0, 0, float("nan"), 1]}, "annotation 1 .* four finite numbers"),
        ({"bbox": [0, 0, 1]}, "is not a COCO annotation file"),
        ({"id": "1"}, "is not a COCO annotation file"),
    ],
)
def test_annotations_that_make_no_sense_are_refused(change: dict[str, Any], sentence: str) -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    coco["annotations"][0].update(change)
    with pytest.raises(GroundTruthError, match=sentence):
        evaluate_boxes(coco, predictions)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_id": 999}, "prediction 2 .* is for image 999, which the split does not have"),
        ({"category_id": 5}, "prediction 2 .* has category_id 5"),
        ({"score": float("nan")}, "prediction 2 .* score nan; it must be 0 to 1"),
        ({"score": 1.5}, "prediction 2 .* score 1.5"),
        ({"bbox": [0, 0, float("inf"), 1]}, "prediction 2 .* four finite numbers"),
        ({"bbox": [0, 0, -1, 1]}, "prediction 2 .* sizes not negative"),
        ({"score": "high"}, "do not have the expected form"),
    ],
)
def test_predictions_that_make_no_sense_are_refused(change: dict[str, Any], sentence: str) -> None:
    coco, predictions = random_coco(2, images=5, classes=2)
    predictions[2].update(change)
    with pytest.raises(PredictionsError, match=sentence):
        evaluate_boxes(coco, predictions)
