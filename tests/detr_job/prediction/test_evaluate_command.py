"""`detr-job evaluate`: any model on any set with its classes, with the numbers of its own predictions."""

import json
from pathlib import Path

import pytest
import torch

from detr_job.cli import _digits
from detr_job.data.batches import EvaluationSamples
from detr_job.family import build_family
from detr_job.prediction.split_predictions import predict_split
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, load_model, write_model
from evaluation.coco import evaluate_boxes
from evaluation.predictions import read_predictions
from object_store import open_store
from prepared_set.reader import PreparedSet
from tests.detr_job.job_server import JobServer
from tests.detr_job.pictures import mixed_set, small_config


def random_model(folder: Path, classes: tuple[str, ...], kind: str = "tiny", **more: object) -> Path:
    """Weights by chance, with scores by chance: numbers above nothing."""
    config = small_config(kind, **more)
    torch.manual_seed(4)
    network = build_family(config, len(classes)).network
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "class_embed.bias" in name:
                parameter.uniform_(-1, 1)
    info = ModelFolderConfig(
        classes=classes,
        preset=kind,
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size),
        prepared_set="another",
        metrics={},
    )
    write_model(folder, network.state_dict(), info)
    return folder


class Evaluate:
    """Calls of the command on one set in one store."""

    def __init__(self, server: JobServer, folder: Path) -> None:
        self.server, self.folder, self.set_id = server, folder, mixed_set(folder)
        self.store = f"file://{folder}/store"

    def __call__(self, model: Path | str, *arguments: object) -> tuple[int, str]:
        """Exit code and all that was printed."""
        places = ["--model", str(model), "--store", self.store, "--set", self.set_id, "--device", "cpu"]
        job = self.server.start(["evaluate", *places, *map(str, arguments)], self.folder / "log.txt", to_the_end=False)
        return job.ends(), job.says()

    def refused(self, model: Path | str, *arguments: object) -> str:
        code, said = self(model, *arguments)
        assert code == 2, said
        assert said.count("\n") == 1, said
        return said


@pytest.fixture(scope="module")
def evaluate(job_server: JobServer, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    return Evaluate(job_server, tmp_path_factory.mktemp("evaluate"))


def test_the_numbers_are_those_of_the_predictions_it_writes(evaluate, tmp_path):
    model = random_model(tmp_path / "model", ("disc", "square"))
    code, said = evaluate(model, "--split", "train", "--out", tmp_path / "out", "--json", "--batch-size", 3)
    assert code == 0, said
    printed = json.loads(said)
    file = read_predictions(tmp_path / "out" / "predictions" / "train.json")
    local = PreparedSet.open(open_store(evaluate.store), evaluate.set_id).pull(tmp_path / "pulled", ["train"])
    truth = local.split("train").annotations_path
    assert printed == json.loads(json.dumps(evaluate_boxes(truth, file.predictions).to_dict()))
    assert (file.set_id, file.split, file.classes) == (evaluate.set_id, "train", ("disc", "square"))
    assert len(file.images) == 12
    assert "tiny from file://" in file.model


def test_people_get_a_table_and_no_minus_one(evaluate, tmp_path):
    model = random_model(tmp_path / "model", ("disc", "square"), "detr")
    code, said = evaluate(f"file://{model}")
    assert code == 0, said
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["ap", "ap50", "ap75"]
    assert "-1" not in said
    assert next(line for line in lines if line.startswith("ap_large")).split() == ["ap_large", "-"]
    assert [line.split(":")[0] for line in lines[-2:]] == ["  disc", "  square"]
    assert _digits(-1.0) == "-"
    assert lines[-1].endswith(" boxes")


def test_a_set_with_other_classes_is_refused(evaluate, tmp_path):
    said = evaluate.refused(random_model(tmp_path / "model", ("disc", "ring")))
    assert "the model knows the classes disc, ring, the set" in said
    assert "has disc, square" in said
    assert "--class-map" not in said
    said = evaluate.refused(random_model(tmp_path / "other", ("Disc", "square")))
    assert said.rstrip().endswith("or prepare this one with --class-map disc=Disc")


def test_a_set_with_fewer_classes_is_measured_over_them(evaluate, tmp_path):
    """The numbers are those of the predictions of the shared classes, whatever their order in the model."""
    classes = ("ring", "square", "disc")
    code, said = evaluate(random_model(tmp_path / "model", classes), "--split", "train", "--out", tmp_path / "out")
    assert code == 0, said
    assert "measured over the 2 classes of the set; the model also knows ring" in said
    file = read_predictions(tmp_path / "out" / "predictions" / "train.json")
    local = PreparedSet.open(open_store(evaluate.store), evaluate.set_id).pull(tmp_path / "pulled", ["train"])
    split = local.split("train")
    model = load_model(str(tmp_path / "model"), torch.device("cpu"))
    samples = EvaluationSamples(split, model.config.data)
    all_of_them = predict_split(model.family.network, model.family, samples, 4, torch.device("cpu"), bf16=False)
    expected = [(p.image_id, classes[p.category_id], p.score) for p in all_of_them.predictions if p.category_id != 0]
    assert [(p.image_id, file.classes[p.category_id], p.score) for p in file.predictions] == expected
    assert file.classes == ("disc", "square")
    assert f"ap         {evaluate_boxes(split.annotations_path, file.predictions).ap:.3f}" in said


def test_a_split_that_is_empty_or_unknown_is_refused(evaluate, tmp_path):
    model = random_model(tmp_path / "model", ("disc", "square"))
    assert "has no images in val: choose another --split" in evaluate.refused(model, "--split", "val")
    (tmp_path / "file").write_text("x")
    assert "error: --out: " in evaluate.refused(model, "--out", tmp_path / "file")
    assert "'training' is not one of train, val, test" in evaluate.refused(model, "--split", "training")


def test_a_set_or_a_model_that_is_not_there_is_named(evaluate, tmp_path):
    model = random_model(tmp_path / "model", ("disc", "square"))
    assert "config.json" in evaluate.refused(tmp_path / "nothing")
    assert "there is no prepared set" in evaluate.refused(model, "--set", "0" * 16)


def test_a_model_trained_in_bf16_can_be_measured_anywhere(evaluate, tmp_path):
    model = random_model(tmp_path / "model", ("disc", "square"), **{"training.precision": "bf16"})
    code, said = evaluate(model, "--split", "test")
    assert code == 0, repr(said)


def test_a_finished_run_is_measured_as_it_measured_itself(run, tmp_path):
    """What `train` leaves in predictions/ and what `evaluate` finds with model/ are the same boxes."""
    run = run.with_options({"schedule.steps": 4, "evaluation.interval": 4, "checkpoints.interval": 4})
    run.ends()
    place = ["--model", str(run.out / "model"), "--store", run.store_url, "--set", run.set_id, "--device", "cpu"]
    for split in ("val", "test"):
        job = run.server.start(
            ["evaluate", *place, "--split", split, "--out", str(tmp_path)], tmp_path / "log.txt", to_the_end=False
        )
        assert job.ends() == 0, job.says()
        mine = read_predictions(tmp_path / "predictions" / f"{split}.json")
        theirs = read_predictions(run.out / "predictions" / f"{split}.json")
        assert len(mine.predictions) == len(theirs.predictions)
        for one, other in zip(mine.predictions, theirs.predictions, strict=True):
            assert (one.image_id, one.category_id) == (other.image_id, other.category_id)
            assert one.bbox == pytest.approx(other.bbox, abs=0.01)
            assert one.score == pytest.approx(other.score, abs=1e-5)
