"""Training starts from published weights in the store and from earlier runs, by their names."""

import json
from dataclasses import replace

import pytest

from data_prep.checks.class_choice import ClassChoice
from data_prep.prepare import PrepareRequest, prepare
from detr_job.family import build_family
from object_store import open_store
from prepared_set.manifest import Options
from published_weights.stored import new_card, remove, write
from run_config.job.presets import load_job_config
from run_config.weights.catalogue import published
from tests.detr_job.pictures import mixed_set
from tests.detr_job.training_runs import D_FINE, DETR, TINY, Run

IMAGES = {name: value for name, value in D_FINE.items() if not name.startswith("model.")} | {"schedule.steps": 1}
"""Small images, but the model as published: `auto` takes no weights for another one."""


@pytest.fixture
def d_fine(run: Run) -> Run:
    """A run of D-FINE nano, and its weights in the store, with COCO's rows."""
    entry = published("d-fine-nano")
    family = build_family(load_job_config("d-fine-nano"), len(entry.classes))
    arrays = {name: tensor.numpy() for name, tensor in family.network.state_dict().items()}
    write(open_store(run.store_url), arrays, new_card(entry, "x.pth", sha256="", md5=""))
    return replace(run, model="d-fine-nano", options=IMAGES, more=starting("weights:d-fine-nano"))


def starting(text: str) -> tuple[str, ...]:
    return ("--device", "cpu", "--finetune", text)


def test_published_weights_are_named_and_a_resume_does_not_need_them(d_fine: Run):
    store = open_store(d_fine.store_url)
    says = d_fine.ends().says()
    assert f"starting from {store.url}/weights/d-fine-nano: " in says
    assert "no class has the same name in the checkpoint" in says
    assert "  ignored" not in says
    remove(store, "d-fine-nano")
    d_fine.ends()
    said = replace(d_fine, name="other").refused()
    assert f"run `detr-workflows weights pull d-fine-nano --store {store.url}`" in said


def test_an_earlier_run_is_named_and_a_word_with_two_meanings_is_refused(d_fine: Run):
    d_fine.ends()
    for number, text in enumerate((f"run:{d_fine.name}", d_fine.name)):
        says = replace(d_fine, name=f"later-{number}", more=starting(text)).ends().says()
        assert f"starting from {open_store(d_fine.store_url).url}/runs/{d_fine.name}/" in says
    open_store(d_fine.store_url).put_bytes(f"weights/{d_fine.name}/card.json", b"{}")
    said = replace(d_fine, name="later", more=starting(d_fine.name)).refused()
    assert f"cvat-finetune-checkpoint: {d_fine.name!r} has 2 meanings: write weights:{d_fine.name} or run:" in said


def test_auto_starts_from_the_weights_of_the_model_and_a_resume_keeps_them(d_fine: Run):
    auto = replace(d_fine, more=starting("auto"))
    store = open_store(d_fine.store_url)
    assert f"starting from {store.url}/weights/d-fine-nano: " in auto.ends().says()
    remove(store, "d-fine-nano")
    auto.ends()
    said = replace(auto, name="other").refused()
    assert "the store has no weights of d-fine-nano, and D-FINE needs some: run `detr-workflows weights pull" in said
    assert "starting from" not in replace(auto, name="random", more=starting("none")).ends().says()


def test_a_run_of_an_earlier_release_keeps_its_random_start(d_fine: Run):
    replace(d_fine, more=starting("none")).ends()
    for text in ("", "auto"):
        assert "starting from" not in replace(d_fine, more=starting(text)).ends().says()
    assert json.loads(d_fine.stored.get_bytes("run.json"))["finetune"] == ""


def test_an_automatic_model_is_kept(d_fine: Run):
    auto = replace(d_fine, model="auto", more=starting("auto"))
    auto.ends()
    assert json.loads(auto.stored.get_bytes("run.json"))["model"] == "d-fine-nano"
    remove(open_store(d_fine.store_url), "d-fine-nano")
    auto.ends()


def test_detr_starts_from_the_backbone_in_the_store_and_keeps_it(run: Run):
    store = open_store(run.store_url)
    body = build_family(load_job_config("detr-r18"), 1).network.body
    entry = replace(published("d-fine-nano"), name="resnet18")
    arrays = {name: tensor.numpy() for name, tensor in body.state_dict().items()}
    write(store, arrays, new_card(entry, "resnet18.pth", sha256="", md5=""))
    detr = replace(run, model="detr-r18", options=DETR | {"schedule.steps": 1}, more=starting("auto"))
    assert f"backbone from {store.url}/weights/resnet18/model.safetensors" in detr.ends().says()
    remove(store, "resnet18")
    detr.ends()
    assert "none to start from random weights" in replace(detr, name="other").refused()


def test_damaged_weights_are_refused(d_fine: Run):
    open_store(d_fine.store_url).put_bytes("weights/d-fine-nano/model.safetensors", b"x")
    assert "model.safetensors is missing or damaged" in d_fine.refused()


def test_a_new_label_starts_new_and_the_others_keep_what_the_old_model_knows(run: Run):
    """Class-incremental: the same pictures, first without one of their labels."""
    folder = run.folder / "pictures"
    folder.mkdir()
    both, store = mixed_set(folder), open_store(folder / "store")
    parts = [(str(folder / f"{name}.zip"),) for name in ("train", "test")]
    request = PrepareRequest(parts[0], (), parts[1], Options(val_fraction=0.0), choice=ClassChoice(kept=("square",)))
    one = prepare(request, store, lambda _, __: b"").manifest.id
    old = replace(run, store_url=store.url, set_id=one, name="old", options=TINY | {"schedule.steps": 1})
    old.ends()
    says = replace(old, set_id=both, name="new", more=starting("run:old")).ends().says()
    assert "heads initialised for the classes of this set: " in says
    assert "; rows kept of square\n" in says
    model = old.folder / "new-out" / "model" / "config.json"
    assert json.loads(model.read_bytes())["classes"] == ["disc", "square"]
