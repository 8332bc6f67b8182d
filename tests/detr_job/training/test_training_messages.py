"""What `detr-job train` says, and with which code it ends, when something is not as it should be."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr_job.family import build_family
from object_store import open_store
from tests.detr_job.pictures import small_config
from tests.detr_job.training_runs import D_FINE, DETR, RF_DETR, Run, make_set


@pytest.fixture
def short(run: Run) -> Run:
    return run.with_options({"schedule.steps": 2})


def test_a_loss_that_breaks_names_the_images_and_the_values_and_saves_nothing_after(run: Run):
    # Nothing normalises the activations of DETR's backbone, whose batch norm is frozen: they overflow for real.
    absurd = {"optimizer.lr": 1, "optimizer.lr_backbone": 1, "schedule.steps": 6}
    rarely = {
        "checkpoints.interval": 1,
        "checkpoints.keep": 1,
        "evaluation.interval": 1000,
        "training.log_interval": 1000,
    }
    sentence = replace(run, model="detr-r18", options=DETR | absurd | rarely).refused()
    match = re.search(r"the loss is not finite at step (\d+): (.*?)\. The images of this step: (.*?)\. Look", sentence)
    assert match, sentence
    broken_step, values, images = int(match[1]), match[2], match[3].split(", ")
    assert broken_step > 1
    assert "loss nan" in values or "loss inf" in values or "grad_norm nan" in values or "grad_norm inf" in values
    assert len(images) == 2
    assert all(re.search(r"\.jpe?g$", name) for name in images)
    assert run.complete_steps() == [broken_step - 1]


def test_a_missing_gpu_is_said_before_anything_is_computed(short: Run):
    sentence = replace(short, more=("--device", "cuda")).refused()
    assert "device: cuda was requested, but PyTorch finds no GPU" in sentence
    assert "auto or cpu" in sentence
    assert not short.stored_folder.exists()


def test_rf_detr_says_that_it_interpolates_positions_and_needs_a_checkpoint(run: Run):
    said = replace(run, model="rf-detr-nano", options=RF_DETR | {"schedule.steps": 1}).ends().says()
    assert "images of 64 pixels: the position embedding, made for 96 pixels, is interpolated from 6 to 4 cells" in said
    assert "warning: RF-DETR from random weights needs more than 10000 images" in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "tinny"}, "there is no preset 'tinny'; did you mean tiny?"),
        ({"model": "nowhere.yaml"}, "configuration file nowhere.yaml does not exist"),
        ({"options": {"optimizer.lrr": 1}}, "unknown key optimizer.lrr; did you mean optimizer.lr?"),
        ({"options": {"optimizer.lr": "high"}}, "optimizer.lr"),
        ({"set_id": "0123456789abcdef"}, "0123456789abcdef"),
        ({"more": ("--device", "tpu")}, "device: 'tpu' is not one of auto, cuda, cpu"),
        (
            {"more": ("--device", "cpu", "--epochs", "1", "--minutes", "1")},
            "epochs and minutes are both set; set only one of them",
        ),
        ({"more": ("--device", "cpu", "--parameters-json", "{")}, "--parameters-json is not JSON"),
        ({"more": ("--device", "cpu", "--parameters-json", "[1]")}, "neither an object nor a list"),
        ({"more": ("--device", "cpu", "--finetune", "nowhere/model")}, "nowhere/model"),
        ({"store_url": "gs://bucket"}, "gs://bucket"),
        ({"name": "../elsewhere"}, "elsewhere"),
        ({"environment": {"DETR_JOB_STORE_PATIENCE_S": "soon"}}, "DETR_JOB_STORE_PATIENCE_S"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(short: Run, changes: dict[str, object], sentence: str):
    assert sentence in replace(short, **changes).refused()


def test_other_settings_and_another_workflow_under_the_same_name_are_refused(short: Run):
    short.ends()
    assert "was started with other settings (optimizer.lr " in short.with_options({"optimizer.lr": 0.5}).refused()
    other = replace(short, more=(*short.more, "--workflow-uid", "other"))
    assert "belongs to another workflow (uid none, this is other)" in other.refused()
    assert json.loads((short.stored_folder / "run.json").read_bytes())["restarts"] == 0


def test_a_run_of_another_release_keeps_its_settings_and_says_so(short: Run):
    short.ends()
    path = short.stored_folder / "run.json"
    stored = json.loads(path.read_bytes())
    stored["code_version"] = "0.0.9"
    stored["config"]["loss"]["cost_class"] = 1.5
    path.write_text(json.dumps(stored))
    said = short.ends().says()
    model = json.loads((short.out / "model/config.json").read_bytes())
    assert model["job"]["loss"]["cost_class"] == 1.5
    assert "this run was started by another release and keeps its settings: loss.cost_class=1.5 (now " in said
    written = json.loads(path.read_bytes())
    assert (written["config"]["loss"]["cost_class"], written["restarts"]) == (1.5, 1)


def test_a_store_that_may_not_be_written_is_found_before_training(short: Run):
    runs = short.stored_folder.parent
    runs.mkdir()
    if os.geteuid() == 0:
        short.stored_folder.write_text("root may write everywhere: only something in the way stops it")
    else:
        runs.chmod(0o500)
    sentence = short.refused()
    assert str(short.stored_folder) in sentence
    assert "step 1/" not in (short.folder / "run.log").read_text()


def test_more_boxes_than_queries_and_fewer_images_than_a_batch_are_said(short: Run):
    says = short.with_options({"model.queries": 1, "data.batch_size": 50}).ends().says()
    assert re.search(
        r"warning: \d+ training images have more boxes than the model has queries \(1\), up to \d+ in ", says
    )
    assert re.search(r"Set model.queries=\d+ or more", says)
    assert "warning: 20 training images are fewer than the batch size 50: batches have 20 images" in says


def test_a_step_of_more_images_than_there_are_is_said(short: Run):
    says = short.with_options({"data.accumulate": 9}).ends().says()
    assert "20 training images are fewer than data.batch_size x data.accumulate (4 x 9)" in says


def test_detr_from_scratch_on_few_images_is_warned_of(run: Run):
    says = replace(run, model="detr-r18", options=DETR | {"schedule.steps": 1}).ends().says()
    assert "DETR from random weights needs more than 10000 images and hundreds of epochs to learn anything" in says
    assert "and this set has 20: start from a checkpoint (cvat-finetune-checkpoint), or choose tiny" in says


def test_queries_that_all_say_the_same_are_said_once(run: Run):
    # High enough to spoil the network, too low to overflow.
    absurd = {"optimizer.lr": 0.3, "optimizer.lr_backbone": 0.3, "schedule.warmup": 0, "training.ema_decay": 0}
    says = run.with_options(absurd | {"schedule.steps": 12, "evaluation.interval": 4}).ends().says()
    assert says.count("warning: every query predicts the same box for every image") == 1, says


def test_a_set_without_validation_trains_and_takes_the_last_weights(short: Run):
    store = open_store(short.store_url)
    set_id = make_set(short.folder, store, images=10, val_fraction=0.0)
    run = replace(short, set_id=set_id).with_options({"evaluation.patience": 1})
    (run.out / "predictions").mkdir(parents=True)
    (run.out / "predictions" / "val.json").write_text("of an earlier run")
    says = run.ends().says()
    assert "warning: the prepared set has no validation images: the last weights are used, not the best" in says
    assert "val AP" not in says
    assert "done: 2 steps" in says
    assert not (run.out / "predictions" / "val.json").exists()
    assert (run.out / "predictions" / "test.json").exists()
    average = run.out / "checkpoint" / "ema.safetensors"
    assert average.stat().st_size == (run.out / "model" / "model.safetensors").stat().st_size


def test_the_run_names_what_argo_gave_it(short: Run):
    given = json.dumps([{"name": "epochs", "value": "3"}, {"name": "unset"}])
    replace(short, more=(*short.more, "--parameters-json", given, "--workflow-uid", "u1")).ends()
    written = json.loads((short.stored_folder / "run.json").read_bytes())
    assert written["parameters"] == {"epochs": "3", "unset": ""}
    assert written["workflow_uid"] == "u1"
    assert written["prepared_set"] == short.set_id
    assert written["model"] == "tiny"
    assert Path(written["hardware"]).name


@pytest.mark.parametrize("recipe", ["affine", "published", "none"])
def test_one_image_of_one_pixel_at_the_coarsest_stride_is_refused_before_training(run: Run, recipe: str):
    small = {"data.max_size": 32, "data.batch_size": 1, "data.augmentation.recipe": recipe, "schedule.steps": 1}
    sentence = run.with_options(small).refused()
    assert "images may have 31 pixels, which are one pixel at this model's stride of 32" in sentence
    assert not run.stored.exists("run.json")


def test_the_log_says_which_activation_public_weights_of_d_fine_are_used_with(run: Run, tmp_path: Path):
    run = replace(run, model="d-fine-nano", options=D_FINE | {"schedule.steps": 1})
    network = build_family(small_config("d_fine"), 80).network  # as in a public file
    torch.save({"model": network.state_dict()}, tmp_path / "deim_dfine_hgnetv2_n_coco_160e.pth")
    says = replace(run, more=(*run.more, "--finetune", f"{tmp_path}/deim_dfine_hgnetv2_n_coco_160e.pth")).ends().says()
    assert "warning: deim_dfine_hgnetv2_n_coco_160e.pth: weights with such a name usually need" in says


def test_d_fine_refuses_one_image_of_one_pixel_too(run: Run):
    small = {"data.max_size": 32, "data.batch_size": 1, "schedule.steps": 1}
    sentence = replace(run, model="d-fine-nano", options=D_FINE | small).refused()
    assert "images may have 31 pixels, which are one pixel at this model's stride of 32" in sentence


@pytest.mark.parametrize(
    ("model", "larger"),
    [
        ("tiny", {"data.max_size": 34}),
        ("tiny", {"data.batch_size": 2}),
        ("d-fine-nano", {"data.max_size": 34}),
        ("d-fine-nano", {"data.batch_size": 2}),
        ("rf-detr-nano", {}),  # without batch norms
    ],
)
def test_the_smallest_images_that_can_be_normalised_are_trained(run: Run, model: str, larger: dict[str, int]):
    options = {"tiny": run.options, "d-fine-nano": D_FINE, "rf-detr-nano": RF_DETR}[model]
    small = {"data.max_size": 32, "data.batch_size": 1, "schedule.steps": 2, "evaluation.interval": 2}
    replace(run, model=model, options={**options, **small, **larger}).ends()
