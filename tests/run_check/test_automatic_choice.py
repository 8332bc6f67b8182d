"""What `check` makes of `auto`: the model and the weights, by the machine and the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from object_store import ObjectStore
from run_check import installation as machines
from run_check.check import Passed, check
from run_check.errors import CheckError
from run_config.installation import Installation, NodePool
from tests.data_prep.export_builder import simple_export, write_zip

COMMAND = Path(sys.executable).parent / "data-prep"
RUN = "workflow-data/output/run-1"


@pytest.fixture
def texts(tmp_path: Path, store: ObjectStore) -> dict[str, str]:
    """Parameters that choose neither a model nor weights."""
    path = write_zip(tmp_path / "export.zip", simple_export(2))
    return {"store": store.url, "cvat-annotation-path": str(path), "device": "auto"}


@pytest.fixture
def cluster(store: ObjectStore, tmp_path: Path) -> Installation:
    pools = (NodePool(name="gpu", label_value="a"), NodePool(name="cpu", label_value="b", gpu_count=0))
    return Installation(store=store.url, readable=(tmp_path.as_uri(),), node_pools=pools)


def on(pool: str) -> dict[str, str]:
    return {"sys-node-pool": pool, "gpu-count": "1" if pool == "gpu" else "0"}


def put(store: ObjectStore, *names: str) -> None:
    for name in names:
        store.put_bytes(f"weights/{name}/card.json", b"{}")


def put_run(store: ObjectStore, folder: str = RUN, **description: object) -> None:
    told = {"workflow_uid": "", "model": "tiny", "finetune": "", "config": {"model": {}}} | description
    store.put_bytes(f"{folder}/run.json", json.dumps(told).encode())


def passed(texts: dict[str, str], installation: Installation | None = None) -> Passed:
    return check(texts, "run-1", installation=installation)


def refused(texts: dict[str, str], installation: Installation | None = None) -> str:
    with pytest.raises(CheckError) as caught:
        passed(texts, installation)
    (said,) = str(caught.value).splitlines()
    return said


def test_a_laptop_without_weights_trains_tiny_and_says_why(texts: dict[str, str], store: ObjectStore):
    done = passed(texts)
    assert done.model == "tiny"
    (said,) = [line for line in done.findings if line.startswith("model: ")]
    assert said == (
        "model: tiny (auto: no GPU, and the store has no weights of d-fine-nano; `detr-workflows weights pull "
        f"d-fine-nano --store {store.url}` brings those of a better model)"
    )
    assert not [line for line in done.findings if line.startswith("cvat-finetune-checkpoint")]


@pytest.mark.parametrize(("gpu", "model"), [(False, "d-fine-nano"), (True, "rf-detr-small")])
def test_the_model_has_its_weights_in_the_store(
    texts: dict[str, str], store: ObjectStore, monkeypatch: pytest.MonkeyPatch, gpu: bool, model: str
):
    monkeypatch.setattr(machines, "local_gpu", lambda: gpu)
    put(store, "rf-detr-small", "d-fine-nano")
    done = passed(texts)
    assert done.model == model
    assert f"cvat-finetune-checkpoint: {store.url}/weights/{model}" in done.findings


def test_in_a_cluster_the_pool_decides(texts: dict[str, str], store: ObjectStore, cluster: Installation):
    assert passed(texts | on("cpu"), cluster).model == "tiny"
    assert refused(texts | on("gpu"), cluster) == (
        "model: auto needs published weights on a GPU, and the store has none of rf-detr-small or d-fine-nano; run "
        f"`detr-workflows weights pull rf-detr-small --store {store.url}`, or choose a model"
    )
    put(store, "rf-detr-small", "d-fine-nano")
    assert passed(texts | on("cpu"), cluster).model == "d-fine-nano"
    assert passed(texts | on("gpu"), cluster).model == "rf-detr-small"
    assert passed(texts | on("gpu") | {"device": "cpu"}, cluster).model == "d-fine-nano"


@pytest.mark.parametrize("start", ["auto", ""])
@pytest.mark.parametrize("model", ["rf-detr-small", "d-fine-nano"])
def test_a_model_that_needs_weights_never_starts_at_random_by_itself(
    texts: dict[str, str], store: ObjectStore, model: str, start: str
):
    texts |= {"model": model, "cvat-finetune-checkpoint": start}
    assert refused(texts) == (
        f"cvat-finetune-checkpoint: the store has no weights of {model}, and {'RF-DETR' if 'rf' in model else 'D-FINE'}"
        f" needs some: run `detr-workflows weights pull {model} --store {store.url}`, or choose none to start from "
        f"random weights, which need more than {'10,000' if 'rf' in model else '1,000'} images"
    )
    assert passed(texts | {"cvat-finetune-checkpoint": "none"}).model == model
    put(store, model)
    assert f"cvat-finetune-checkpoint: {store.url}/weights/{model}" in passed(texts).findings


def test_a_configuration_file_starts_from_the_weights_of_its_base(
    texts: dict[str, str], store: ObjectStore, tmp_path: Path
):
    (tmp_path / "mine.yaml").write_text("base: between.yaml")
    (tmp_path / "between.yaml").write_text("base: d-fine-small\nschedule: {epochs: 3}")
    texts["model"] = str(tmp_path / "mine.yaml")
    assert "run `detr-workflows weights pull d-fine-small --store" in refused(texts)
    put(store, "d-fine-small-obj2coco")
    assert f"cvat-finetune-checkpoint: {store.url}/weights/d-fine-small-obj2coco" in passed(texts).findings
    (tmp_path / "mine.yaml").write_text("model: {family: rf_detr}")
    assert "auto knows no published weights that fit this model" in refused(texts)


@pytest.mark.parametrize(
    ("model", "override"),
    [
        ("detr-r50", "model.backbone=resnet101"),
        ("detr-r50", "model.queries=300"),
        ("detr-r50", "model.family=rf_detr"),
        ("deformable-detr-r50", "model.refine=true"),
        ("rf-detr-nano", "model.groups=1"),
    ],
)
def test_published_weights_of_another_architecture_are_not_taken(
    texts: dict[str, str], store: ObjectStore, model: str, override: str
):
    put(store, "detr-r50", "deformable-detr-r50", "rf-detr-nano")
    said = refused(texts | {"model": model, "overrides": override})
    assert "auto knows no published weights that fit this model: give others, or none to start from random" in said


@pytest.mark.parametrize(
    ("model", "override"),
    [
        ("detr-r50", "model.dropout=0"),
        ("d-fine-nano", "model.queries=100"),
        ("rf-detr-nano", "model.layer_decay=0.9"),
        ("faster-rcnn-r50", "model.queries=300"),
    ],
)
def test_settings_beside_the_weights_are_free(texts: dict[str, str], store: ObjectStore, model: str, override: str):
    put(store, model)
    said = passed(texts | {"model": model, "overrides": override}).findings
    assert f"cvat-finetune-checkpoint: {store.url}/weights/{model}" in said


def test_detr_starts_from_its_weights_else_from_its_backbone(texts: dict[str, str], store: ObjectStore):
    texts["model"] = "detr-r50"
    assert "`detr-workflows weights pull detr-r50 --store" in refused(texts)
    assert "none to start from random weights" in refused(texts | {"model": "detr-r18"})
    put(store, "resnet50")
    store.put_bytes("weights/resnet50/model.safetensors", b"x")
    assert f"model.backbone_weights: {store.url}/weights/resnet50/model.safetensors" in passed(texts).findings
    put(store, "detr-r50")
    assert f"cvat-finetune-checkpoint: {store.url}/weights/detr-r50" in passed(texts).findings
    for model in ("detr-r50", "deformable-detr-r50"):
        given = texts | chosen_backbone(store) | {"model": model}
        (chosen,) = [one for one in passed(given).findings if "weights" in one]
        assert chosen == f"model.backbone_weights: {store.url}/mine.pth"


def chosen_backbone(store: ObjectStore) -> dict[str, str]:
    store.put_bytes("mine.pth", b"x")
    return {"overrides": f"model.backbone_weights={store.url}/mine.pth"}


def test_the_model_is_that_of_the_weights_that_are_given(texts: dict[str, str], store: ObjectStore):
    put_run(store, "workflow-data/output/first", model="rf-detr-nano")
    store.put_bytes("workflow-data/output/first/model/config.json", b'{"preset": "rf-detr-nano"}')
    store.put_bytes("workflow-data/output/first/model/model.safetensors", b"x")
    store.put_bytes("weights/d-fine-medium/card.json", b'{"preset": "d-fine-medium"}')
    for text, model in {
        "weights:d-fine-medium": "d-fine-medium",
        "run:first": "rf-detr-nano",
        "first": "rf-detr-nano",
        "workflow-data/output/first/model": "rf-detr-nano",
        f"{store.url}/workflow-data/output/first/model/model.safetensors": "rf-detr-nano",
        "none": "tiny",
    }.items():
        assert passed(texts | {"cvat-finetune-checkpoint": text}).model == model, text
    store.put_bytes("other.pth", b"x")
    said = refused(texts | {"cvat-finetune-checkpoint": "other.pth"})
    assert said == "model: auto cannot tell the model of other.pth: choose the model that it is of"
    put_run(store, "workflow-data/output/second", model="mine")
    store.put_bytes("workflow-data/output/second/best/config.json", b'{"preset": "mine"}')
    said = refused(texts | {"cvat-finetune-checkpoint": "run:second"})
    assert said == "model: run:second was trained with the configuration file mine.yaml: set model to that file"
    job = {"model": {"family": "detr", "queries": 300, "dropout": 0.3}}
    store.put_bytes(
        "workflow-data/output/second/best/config.json", json.dumps({"preset": "detr-r50", "job": job}).encode()
    )
    said = refused(texts | {"cvat-finetune-checkpoint": "run:second"})
    assert said == (
        "model: run:second is of detr-r50 with other settings (model.queries): set model to detr-r50, and overrides to "
        "these settings"
    )


def test_a_run_that_has_begun_keeps_its_model_and_its_start(texts: dict[str, str], store: ObjectStore):
    put_run(store)
    put(store, "d-fine-nano")
    done = passed(texts)
    assert done.model == "tiny"
    assert "model: tiny (auto: this run began with it)" in done.findings
    # Earlier releases started at random if the parameter was empty. The weights of the others may be gone.
    for finetune in ("", f"{store.url}/weights/rf-detr-nano"):
        put_run(store, model="rf-detr-nano", finetune=finetune)
        for model in ("auto", "rf-detr-nano"):
            assert passed(texts | {"model": model}).model == "rf-detr-nano"


def test_the_step_hands_the_model_on(texts: dict[str, str], tmp_path: Path):
    given = [option for name, text in texts.items() for option in ("-p", f"{name}={text}")]
    subprocess.run(
        [COMMAND, "check", "--run=run-1", *given], check=True, env=os.environ | {"OUT": str(tmp_path / "out")}
    )
    assert (tmp_path / "out" / "outputs" / "model").read_text() == "tiny"
