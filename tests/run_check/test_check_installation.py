"""`data-prep check` inside an installation, and for each template: pools, GPUs, keys, prefixes, models, sets."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from object_store import ObjectStore, open_store
from run_check.check import check
from run_check.errors import CheckError
from run_config import prepare_pods
from run_config.errors import ConfigError
from run_config.installation import VARIABLE, Installation, NodePool
from tests.data_prep.export_builder import simple_export, write_zip
from tests.object_store.answering_server import AnsweringServer, s3_error

COMMAND = Path(sys.executable).parent / "data-prep"
POOLS = (
    NodePool(name="gpu-a", label_value="small", gpu_count=2),
    NodePool(name="gpu-b", label_value="large", gpu_count=8),
    NodePool(name="cpu-a", label_value="plain", gpu_count=0),
)
WEIGHTS = "model.backbone_weights"


@pytest.fixture
def ours(bucket: str) -> Installation:
    """An installation whose store is a bucket, with the keys in the environment."""
    return Installation(
        store=f"s3://{bucket}/project",
        readable=("s3://exports",),
        writable=("runs",),
        store_secret="the-keys",
        node_pools=POOLS,
    )


@pytest.fixture
def texts(ours: Installation, s3, bucket: str, tmp_path: Path) -> dict[str, str]:
    """Parameters with which nothing is wrong."""
    path = write_zip(tmp_path / "cells.zip", simple_export(2))
    s3.upload_file(str(path), bucket, "project/dumps/cells.zip")
    return {
        "store": ours.store,
        "cvat-annotation-path": "dumps/cells.zip",
        "cvat-output-path": "runs",
        "model": "detr-r18",
        "cvat-finetune-checkpoint": "none",
        "sys-node-pool": "gpu-a",
    }


def said_by(texts: dict[str, str], installation: Installation, template: str = "detr-train") -> list[str]:
    with pytest.raises(CheckError) as caught:
        check(texts, "run-1", "uid", template=template, installation=installation)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_the_number_of_pods_follows_from_the_data_or_is_chosen(
    texts: dict[str, str], ours: Installation, monkeypatch: pytest.MonkeyPatch
):
    def pods(**more: str) -> int:
        return check(texts | more, "run-1", "uid", installation=ours).pods

    assert (pods(), pods(**{"prepare-pods": "4"})) == (1, 4)
    monkeypatch.setattr(prepare_pods, "SHARED_FROM_BYTES", 1)
    monkeypatch.setattr(prepare_pods, "BYTES_PER_POD", 2000)
    size_bytes = open_store(ours.store).head(texts["cvat-annotation-path"]).size_bytes
    assert pods() == -(-size_bytes // 2000) > 1
    assert pods(**{"prepare-pods": "1"}) == 1
    # A laptop has one process.
    assert check(texts | {"prepare-pods": "4"}, "run-1", "uid").pods == 1


def test_good_parameters_pass(texts: dict[str, str], ours: Installation):
    findings = check(texts, "run-1", "uid", installation=ours).findings
    assert "node pool: gpu-a, GPUs: 1" in findings
    assert f"output: {ours.store}/runs/run-1" in findings
    assert any(line.startswith(f"cvat-annotation-path: {ours.store}/dumps/cells.zip, ") for line in findings)


def test_everything_that_is_not_allowed_is_said_at_once(texts: dict[str, str], ours: Installation):
    texts |= {
        "store": "s3://another",
        "cvat-output-path": "datasets",
        "cvat-annotation-path": "dumps/cells.zip\n/etc/passwd",
        "cvat-test-path": "s3://secrets/a.zip",
        "cvat-finetune-checkpoint": "file:///root/model",
        "sys-node-pool": "gpu-c",
    }
    source, test, finetune, pool, output, store = said_by(texts, ours)
    assert store == f"store must be {ours.store} here, not 's3://another'; do not change the default of the form."
    assert output.startswith("cvat-output-path: 'datasets' may not be written here; allowed are runs")
    assert source.startswith("cvat-annotation-path: file:///etc/passwd may not be read here; allowed are s3://")
    assert test.startswith("cvat-test-path: s3://secrets/a.zip may not be read here")
    assert finetune.startswith("cvat-finetune-checkpoint: file:///root/model may not be read here")
    assert pool == "sys-node-pool must be one of gpu-a, gpu-b, cpu-a, not 'gpu-c'. Did you mean gpu-b?"


def test_a_key_is_never_taken_for_a_path_in_the_container(
    texts: dict[str, str], ours: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    texts["cvat-annotation-path"] = "cells.zip"
    (said,) = said_by(texts, ours)
    assert f"there is no object {ours.store}/cells.zip" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sys-node-pool": ""}, "sys-node-pool is missing: one of gpu-a, gpu-b, cpu-a."),
        ({"gpu-count": "0"},
         "device=cuda needs a GPU, and gpu-count is 0: set gpu-count=1, or choose device=cpu."),
        ({"sys-node-pool": "cpu-a"},
         ("device=cuda needs a GPU, and the pool cpu-a has none: choose sys-node-pool=gpu-a or gpu-b, or device=cpu "
          "with gpu-count=0.")),
        ({"gpu-count": "3"},
         "gpu-count=3 is more than the pool gpu-a allows: set it to at most 2, or choose sys-node-pool=gpu-b."),
        ({"gpu-count": "9"}, "gpu-count=9 is more than the pool gpu-a allows: set it to at most 2."),
        ({"sys-node-pool": "cpu-a", "device": "cpu"},
         ("gpu-count=1 is more than the pool cpu-a allows: set it to at most 0, or choose sys-node-pool=gpu-a or "
          "gpu-b.")),
    ],
)  # fmt: skip
def test_pool_gpus_and_device_go_together(texts: dict[str, str], ours: Installation, changes: dict, said: str):
    assert said_by(texts | changes, ours) == [said]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"device": "cpu", "gpu-count": "0", "sys-node-pool": "cpu-a"}, "node pool: cpu-a, GPUs: 0"),
        ({"device": "auto", "gpu-count": "0", "sys-node-pool": "cpu-a"}, "node pool: cpu-a, GPUs: 0"),
        ({"device": "cpu"}, "warning: device=cpu does not use the GPUs that gpu-count=1 reserves; set gpu-count=0"),
        ({"gpu-count": "2"}, "warning: training uses one GPU, but gpu-count=2 reserves 2"),
    ],
)
def test_what_is_only_odd_is_a_finding(texts: dict[str, str], ours: Installation, changes: dict, finding: str):
    assert finding in check(texts | changes, "run-1", "uid", installation=ours).findings


def test_without_pools_none_may_be_named(texts: dict[str, str], ours: Installation):
    without = ours.model_copy(update={"node_pools": ()})
    assert "GPUs: 1" in check(texts | {"sys-node-pool": ""}, "run-1", "uid", installation=without).findings
    (said,) = said_by(texts, without)
    assert said == "sys-node-pool: this installation has no node pools; leave it empty, not 'gpu-a'."


def test_on_a_laptop_nobody_asks_for_pools(texts: dict[str, str]):
    check(texts | {"sys-node-pool": "anything", "gpu-count": "0"}, "run-1", "uid")


@pytest.mark.parametrize(
    ("missing", "absent"),
    [
        (["AWS_SECRET_ACCESS_KEY"], "no secret-access-key"),
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "no access-key-id and no secret-access-key"),
    ],
)
def test_a_missing_secret_is_said_with_what_to_type(
    texts: dict[str, str], ours: Installation, monkeypatch: pytest.MonkeyPatch, missing: list[str], absent: str
):
    for name in missing:
        monkeypatch.delenv(name)
    (said,) = said_by(texts, ours)
    assert said == (
        f"the secret the-keys with the store's keys is missing in this namespace, or has {absent}: write "
        "each key into a file of its name and run `kubectl create secret generic the-keys --from-file=access-key-id "
        "--from-file=secret-access-key`"
    )


def test_where_credentials_come_from_elsewhere_no_secret_is_asked_for(
    texts: dict[str, str], ours: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = tester\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    check(texts, "run-1", "uid", installation=ours.model_copy(update={"store_secret": ""}))


def test_weights_of_the_backbone_are_looked_for_as_a_checkpoint_is(
    texts: dict[str, str], ours: Installation, s3, bucket: str
):
    texts["overrides"] = f"{WEIGHTS}=weights/r18.pth"
    (said,) = said_by(texts, ours)
    assert said.startswith(f"{WEIGHTS}: there is no file {ours.store}/weights/r18.pth: put the weights")
    s3.put_object(Bucket=bucket, Key="project/weights/r18.pth", Body=b"x")
    assert f"{WEIGHTS}: {ours.store}/weights/r18.pth" in check(texts, "run-1", "uid", installation=ours).findings
    (said,) = said_by(texts | {"overrides": f"{WEIGHTS}=/etc/passwd"}, ours)
    assert said.startswith(f"{WEIGHTS}: file:///etc/passwd may not be read here")


@pytest.mark.parametrize("place", ["cvat-exports/task-9/run-2/dataset.zip", "s3://{bucket}/project/cvat-exports", ""])
def test_what_was_exported_for_somebody_else_is_no_source_of_weights(
    texts: dict[str, str], ours: Installation, bucket: str, place: str
):
    bridged = ours.model_copy(update={"exports": "cvat-exports"})
    texts["overrides"] = f"{WEIGHTS}={place.format(bucket=bucket) or ours.store}"
    texts["cvat-finetune-checkpoint"] = "cvat-exports/task-9"
    said = said_by(texts, bridged)
    assert [line.partition(": ")[0] for line in said] == ["cvat-finetune-checkpoint", WEIGHTS]
    assert all(f"exports below {ours.store}/cvat-exports each belong to one person" in line for line in said)


def test_the_data_set_may_be_an_export_of_the_bridge(
    texts: dict[str, str], ours: Installation, s3, bucket: str, tmp_path: Path
):
    s3.upload_file(str(tmp_path / "cells.zip"), bucket, "project/cvat-exports/task-8/run-1/dataset.zip")
    texts["cvat-annotation-path"] = "cvat-exports/task-8/run-1/dataset.zip"
    check(texts, "run-1", "uid", installation=ours.model_copy(update={"exports": "cvat-exports"}))


def test_weights_of_the_backbone_may_be_a_path_on_a_laptop(texts: dict[str, str], tmp_path: Path):
    texts["overrides"] = f"{WEIGHTS}={tmp_path / 'r18.pth'}"
    with pytest.raises(CheckError, match="there is no file"):
        check(texts, "run-1", "uid")
    (tmp_path / "r18.pth").write_bytes(b"x")
    assert f"{WEIGHTS}: {tmp_path / 'r18.pth'}" in check(texts, "run-1", "uid").findings


def test_an_unknown_template_is_refused():
    with pytest.raises(ConfigError, match=r"--template: 'detr-tain' is not a template; did you mean detr-train\?"):
        check({}, "run-1", template="detr-tain")


def test_prepare_is_asked_for_its_own_parameters_alone(texts: dict[str, str], ours: Installation):
    taken = {name: texts[name] for name in ("store", "cvat-annotation-path", "cvat-output-path")}
    findings = check(taken, "run-1", "uid", template="detr-prepare", installation=ours).findings
    assert not any(finding.startswith(("model", "node pool")) for finding in findings)
    with pytest.raises(ConfigError, match="'model' is not a parameter"):
        check(taken | {"model": "tiny"}, "run-1", template="detr-prepare", installation=ours)
    (said,) = said_by(taken | {"cvat-annotation-path": "s3://secrets/a.zip"}, ours, "detr-prepare")
    assert "may not be read here" in said


@pytest.fixture
def of_evaluate(store: ObjectStore, run_prepare: Callable) -> dict[str, str]:
    """Parameters of detr-evaluate with which nothing is wrong."""
    done = run_prepare(simple_export(6), test=(simple_export(3, prefix="test-"),))
    store.put_bytes("runs/a/model/config.json", b"{}")
    return {"store": store.url, "trained-model": "runs/a/model", "prepared-set": done.manifest.id, "split": "test"}


def said_of_evaluate(texts: dict[str, str]) -> list[str]:
    with pytest.raises(CheckError) as caught:
        check(texts, "run-1", "uid", template="detr-evaluate")
    return str(caught.value).splitlines()


def test_evaluate_needs_a_model_and_a_set_with_the_split(of_evaluate: dict[str, str], store: ObjectStore):
    findings = check(of_evaluate, "run-1", "uid", template="detr-evaluate").findings
    assert f"trained-model: {store.url}/runs/a/model" in findings
    assert f"prepared-set: {of_evaluate['prepared-set']}, 3 images in test" in findings
    check(of_evaluate | {"trained-model": "runs/a"}, "run-1", "uid", template="detr-evaluate")


def test_evaluate_says_every_place_that_is_wrong(of_evaluate: dict[str, str], store: ObjectStore):
    model, prepared = said_of_evaluate(of_evaluate | {"trained-model": "runs/b", "prepared-set": "0" * 16})
    assert model.startswith(f"trained-model: there is no model at {store.url}/runs/b (no config.json)")
    assert prepared.startswith("prepared-set: there is no prepared set 0000000000000000 in ")


def test_evaluate_needs_images_in_the_split(of_evaluate: dict[str, str], run_prepare: Callable):
    alone = run_prepare(simple_export(6, prefix="other-"), val_fraction=0.0)
    (said,) = said_of_evaluate(of_evaluate | {"prepared-set": alone.manifest.id})
    assert said == (
        f"prepared-set: the prepared set {alone.manifest.id} has no images in test: choose another split (it has train)"
    )


def test_evaluate_may_not_read_models_from_elsewhere(ours: Installation):
    texts = {
        "store": ours.store,
        "cvat-output-path": "runs",
        "trained-model": "s3://secrets/model",
        "prepared-set": "0" * 16,
        "sys-node-pool": "gpu-a",
    }
    model, prepared = said_by(texts, ours, "detr-evaluate")
    assert model.startswith("trained-model: s3://secrets/model may not be read here")
    assert prepared.startswith("prepared-set: there is no prepared set")


def test_what_comes_from_cvat_is_checked_without_an_export(store: ObjectStore):
    texts = {"store": store.url, "cvat-subject": "task:8", "cvat-grant": "detr1.x.y", "model": "tiny"}
    findings = check(texts, "run-1", "uid", template="cvat-train").findings
    assert "model: tiny" in findings
    with pytest.raises(ConfigError, match="cvat-subject must be tasks or one project of CVAT"):
        check(texts | {"cvat-subject": "8"}, "run-1", "uid", template="cvat-train")


def test_annotate_needs_a_model_that_is_there(store: ObjectStore):
    store.put_bytes("runs/a/model/config.json", b"{}")
    texts = {"store": store.url, "cvat-subject": "task:8", "cvat-grant": "detr1.x.y", "trained-model": "runs/a/model"}
    findings = check(texts, "run-1", "uid", template="detr-annotate").findings
    assert f"trained-model: {store.url}/runs/a/model" in findings
    with pytest.raises(CheckError, match="trained-model: there is no model at"):
        check(texts | {"trained-model": "runs/b/model"}, "run-1", "uid", template="detr-annotate")


def settings(path: Path, installation: Installation) -> dict[str, str]:
    """The environment of a step in this installation."""
    path.write_text(json.dumps(installation.model_dump(by_alias=True, mode="json")))
    return os.environ | {VARIABLE: str(path)}


def test_the_command_reads_the_installations_settings(texts: dict[str, str], ours: Installation, tmp_path: Path):
    given = json.dumps([{"name": name, "value": value} for name, value in texts.items()])
    command = [COMMAND, "check", "--template=detr-train", "--run=run-1", f"--parameters-json={given}"]
    inside = settings(tmp_path / "settings.yaml", ours)
    good = subprocess.run(command, check=False, capture_output=True, text=True, env=inside)
    assert good.returncode == 0, good.stderr
    assert "node pool: gpu-a, GPUs: 1" in good.stdout
    bad = subprocess.run([*command, "-p", "gpu-count=5"], check=False, capture_output=True, text=True, env=inside)
    assert bad.returncode == 2
    assert "gpu-count=5 is more than the pool gpu-a allows" in bad.stderr
    (tmp_path / "settings.yaml").unlink()
    gone = subprocess.run(command, check=False, capture_output=True, text=True, env=inside)
    assert gone.returncode == 2
    assert "the ConfigMap of the chart is not in this namespace" in gone.stderr


def test_wrong_keys_are_a_sentence_within_seconds(
    texts: dict[str, str], ours: Installation, answering_server: AnsweringServer, tmp_path: Path
):
    answering_server.answer = lambda _: s3_error(403, "InvalidAccessKeyId")
    given = json.dumps(texts)
    command = [COMMAND, "check", "--run=run-1", f"--parameters-json={given}"]
    began = time.monotonic()
    inside = settings(tmp_path / "settings.yaml", ours)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=inside)
    assert time.monotonic() - began < 10
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "refuses the access key (InvalidAccessKeyId): check AWS_ACCESS_KEY_ID" in line
    assert line.endswith("They come from the secret the-keys: fix it there")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--store=s3://another", "--", "dumps/cells.zip"], "store must be s3://"),
        (["--store={store}", "--", "dumps/cells.zip\n/etc/passwd"], "cvat-annotation-path: file:///etc/passwd may not"),
        (["--store={store}", "--test=s3://secrets/a.zip", "--", "dumps/cells.zip"], "cvat-test-path: s3://secrets/a.zip"),
        (["--store={store}", "--val=s3://secrets/a.zip", "--", "dumps/cells.zip"], "--val: s3://secrets/a.zip may not"),
        (["--store={store}", "--", "cells.zip"], "there is no object s3://"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("texts")
def test_prepare_refuses_by_itself_what_is_not_allowed(
    ours: Installation, tmp_path: Path, options: list[str], said: str
):
    command = [COMMAND, "prepare", *(option.format(store=ours.store) for option in options)]
    inside = settings(tmp_path / "settings.yaml", ours)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=inside, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr.splitlines()[-1]


def test_published_weights_and_runs_are_read_from_the_installations_store(
    texts: dict[str, str], ours: Installation, s3, bucket: str
):
    for key in ("weights/d-fine-nano/card.json", "runs/first/run.json", "runs/first/best/config.json"):
        s3.put_object(Bucket=bucket, Key=f"project/{key}", Body=b"{}")
    for text, key in {
        "weights:d-fine-nano": "weights/d-fine-nano",
        "run:first": "runs/first",
        "first": "runs/first",
    }.items():
        findings = check(texts | {"cvat-finetune-checkpoint": text}, "run-1", "uid", installation=ours).findings
        assert f"cvat-finetune-checkpoint: {ours.store}/{key}" in findings
    kept = ours.model_copy(update={"exports": "runs/exports"})
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "run:exports"}, kept)
    assert "exports below" in said
