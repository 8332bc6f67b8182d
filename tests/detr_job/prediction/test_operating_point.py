"""What training leaves: thresholds that were chosen on the validation split by the very weights in model/."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_job.prediction.predictor import Predictor
from evaluation.ground_truth import GroundTruth
from evaluation.operating_point import choose_operating_point
from evaluation.predictions import read_predictions
from object_store import open_store
from prepared_set.reader import PreparedSet
from tests.detr_job.training_runs import Run, make_set

LEARNS = {"schedule.steps": 60, "evaluation.interval": 20, "optimizer.lr": "3e-3"}


def config_of(run: Run) -> dict[str, Any]:
    return json.loads((run.out / "model" / "config.json").read_text())


def test_the_thresholds_are_the_best_of_the_weights_in_model_on_val(run: Run, tmp_path: Path):
    run = run.with_options(LEARNS)
    job = run.ends()
    local = PreparedSet.open(open_store(run.store_url), run.set_id).pull(tmp_path / "pulled", ["val"])
    split = local.split("val")
    truth = GroundTruth.read(split.annotations_path)
    written = read_predictions(run.out / "predictions" / "val.json")
    expected = choose_operating_point(truth, written.predictions, "val")
    assert expected is not None, "nothing was learned: the test shows nothing"
    point = config_of(run)["operating_point"]
    assert (point["threshold"], point["classes"]) == (expected.threshold, expected.classes)
    assert point["split"] == "val"
    assert point["boxes"] == expected.boxes
    assert f", threshold {expected.describe()}; model and predictions are in" in job.says()
    assert f"- Threshold: {expected.threshold:.3g}" in (run.out / "model" / "README.md").read_text()
    # The model in the folder, used without a threshold, keeps the boxes that were counted.
    predictor = Predictor(str(run.out / "model"), torch.device("cpu"))
    kept = [p for p in written.predictions if p.score >= expected.of(local.class_names[p.category_id])]
    found = sum(len(predictor(split.decode(index))) for index in range(len(split)))
    assert found == pytest.approx(len(kept), abs=2)  # batches round differently in the last bit
    assert kept


def test_without_a_validation_split_there_are_none(run: Run, tmp_path: Path):
    set_id = make_set(tmp_path / "more", open_store(run.store_url), images=12, val_fraction=0.0)
    run = run.with_options({"schedule.steps": 2}, set_id=set_id)
    job = run.ends()
    assert config_of(run)["operating_point"] is None
    assert ", threshold " not in job.says()
    assert "0.5 (default; not chosen on validation images)" in (run.out / "model" / "README.md").read_text()
    assert (run.out / "predictions" / "test.json").exists(), "test was predicted, and had no say"
