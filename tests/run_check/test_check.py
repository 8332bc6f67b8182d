"""`data-prep check`: what a run is told before it starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import SourceError
from data_prep.sources.names import source_places
from object_store import ObjectStore, StoreUnavailable
from run_check import places as check_places
from run_check.check import check
from run_check.errors import CheckError
from run_config.errors import ConfigError
from run_config.step_parameters import texts_from_json
from tests.data_prep.export_builder import simple_export, write_zip

COMMAND = Path(sys.executable).parent / "data-prep"
UID = "0b1c"


@pytest.fixture
def texts(tmp_path: Path, store: ObjectStore) -> dict[str, str]:
    """Parameters with which nothing is wrong."""
    path = write_zip(tmp_path / "my export.zip", simple_export(2))
    return {"store": store.url, "cvat-annotation-path": str(path), "model": "tiny"}


def said_by(texts: dict[str, str], uid: str = UID) -> list[str]:
    with pytest.raises(CheckError) as caught:
        check(texts, "run-1", uid)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_good_parameters_pass_and_leave_nothing_in_the_store(texts: dict[str, str], store: ObjectStore):
    findings = check(texts, "run-1", UID).findings
    assert "model: tiny" in findings
    assert f"output: {store.url}/workflow-data/output/run-1" in findings
    assert any("my export.zip, 0.0 MB" in finding for finding in findings)
    assert list(store.list()) == []


def test_every_place_that_is_wrong_is_said_at_once(texts: dict[str, str], store: ObjectStore):
    texts |= {
        "cvat-annotation-path": "annotation-dump/cells\n/nowhere/export.zip",
        "cvat-test-path": "file:///nowhere/test.zip",
        "cvat-finetune-checkpoint": "runs/earlier/model",
    }
    no_file = "cvat-annotation-path: there is no file or folder"
    no_checkpoint = f"cvat-finetune-checkpoint: there is no checkpoint at {store.url}/runs/earlier/model"
    assert said_by(texts) == [
        f"{no_checkpoint}: give the model/ folder of an earlier run, or a file of weights.",
        f"{no_file} annotation-dump/cells, neither here nor below the store {store.url}: check the path.",
        f"{no_file} /nowhere/export.zip: check the path.",
        "cvat-test-path: there is no file or folder file:///nowhere/test.zip: check the path.",
    ]


def test_a_run_that_is_not_there_is_answered_with_those_that_are(texts: dict[str, str], store: ObjectStore):
    for key in (
        "cells-1/model/config.json",
        "cells-2/best/config.json",
        "cells-3/run.json",
        "animals/model/config.json",
    ):
        store.put_bytes(f"workflow-data/output/{key}", b"{}")
    store.put_bytes("workflow-data/output/team/deep/model/config.json", b"{}")
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "run:cell-2"})
    assert said.endswith("; runs with a model beside it: cells-2, cells-1, animals")
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "run:cell-2", "model": "auto"})
    assert "there is no checkpoint at" in said


def test_a_path_in_this_folder_is_told_from_a_key_of_the_store(
    texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "x" * 300})
    assert "a file name has at most 255 bytes" in said
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "out/model"})
    assert "/out/model, and out/model in this folder is another place: write its full path: give" in said


@pytest.mark.parametrize(("key", "entry"), [("earlier/model/config.json", "preset"), ("earlier/run.json", "model")])
def test_weights_of_another_family_are_refused_at_once(key: str, entry: str, texts: dict[str, str], store: ObjectStore):
    store.put_bytes("workflow-data/output/earlier/model/config.json", b"{}")
    store.put_bytes(f"workflow-data/output/{key}", json.dumps({entry: "detr-r18"}).encode())
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "run:earlier"})
    assert said == (
        "cvat-finetune-checkpoint: run:earlier is a model of detr-r18, and another architecture than Tiny: choose the "
        "model detr-r18, or weights of this one"
    )
    check(texts | {"cvat-finetune-checkpoint": "run:earlier", "model": "detr-r50"}, "run-1", UID)


def test_a_wrong_value_is_said_although_the_store_is_unreachable(
    texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(check_places, "PATIENCE_S", 0.0)
    with pytest.raises(ConfigError, match="epochs must be a whole number from 1 to 10000, not 'many'"):
        check(texts | {"epochs": "many", "store": "s3://no-such-bucket"}, "run-1", UID)


def test_mistakes_of_every_kind_are_said_at_once(texts: dict[str, str], store: ObjectStore):
    store.put_bytes("workflow-data/output/run-1/run.json", b'{"workflow_uid": "another"}')
    texts |= {
        "epochs": "many",
        "modle": "tiny",
        "overrides": "optimizer.lr=fast",
        "cvat-test-path": "/nowhere/test.zip",
        "cvat-finetune-checkpoint": "runs/earlier/model",
    }
    said = said_by(texts)
    assert [line.partition(" ")[0] for line in said] == [
        "'modle'", "epochs", "tiny:", "cvat-output-path:", "cvat-finetune-checkpoint:", "cvat-test-path:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("overrides", "schedule.stps=3", "unknown key schedule.stps; did you mean schedule.steps?"),
        ("overrides", "optimizer.lr=fast", "optimizer.lr"),
        ("overrides", "queries 300", "not of the form key=value"),
        ("model", "/nowhere/mine.yaml", "configuration file /nowhere/mine.yaml does not exist"),
    ],
)
def test_the_jobs_configuration_is_read_as_the_job_will_read_it(
    texts: dict[str, str], parameter: str, value: str, said: str
):
    assert said in said_by(texts | {parameter: value})[0]


def test_a_zip_that_is_no_export_is_refused(texts: dict[str, str], tmp_path: Path):
    path = tmp_path / "my export.zip"
    path.write_bytes(path.read_bytes()[:100])
    assert "is not a readable zip" in said_by(texts)[0]


def test_a_folder_without_annotations_is_refused(texts: dict[str, str], tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    texts["cvat-annotation-path"] = str(tmp_path / "pictures")
    assert "has 1 image, but no annotations/instances_*.json" in said_by(texts)[0]


def test_a_store_that_cannot_be_written_is_said(texts: dict[str, str], tmp_path: Path):
    (tmp_path / "in the way").write_text("a file where the store should be")
    texts["store"] = (tmp_path / "in the way").as_uri()
    (said,) = said_by(texts)
    assert said.startswith("cvat-output-path: ")
    assert "in the way" in said


def test_a_folder_of_another_workflow_is_refused(texts: dict[str, str], store: ObjectStore):
    key = "workflow-data/output/run-1/run.json"
    store.put_bytes(key, json.dumps({"workflow_uid": "another"}).encode())
    (said,) = said_by(texts)
    assert "belongs to another workflow (uid another, this is 0b1c)" in said
    check(texts, "run-1", "another")
    store.put_bytes(key, b"[]")
    assert "is damaged" in said_by(texts)[0]


@pytest.mark.parametrize("key", ["runs/a/model/config.json", "runs/a/model.safetensors"])
def test_a_checkpoint_is_a_folder_of_a_run_or_a_file(texts: dict[str, str], store: ObjectStore, key: str):
    store.put_bytes(key, b"{}")
    for text in {"runs/a/model/config.json": ["runs/a", "runs/a/model/"]}.get(key, [key]):
        check(texts | {"cvat-finetune-checkpoint": text}, "run-1", UID)


def test_sources_in_a_bucket_are_found_below_the_store_and_by_url(
    texts: dict[str, str], tmp_path: Path, s3, bucket: str
):
    s3.upload_file(str(tmp_path / "my export.zip"), bucket, "dumps/cells.zip")
    s3.put_object(Bucket=bucket, Key="dumps/folder/annotations/instances_default.json", Body=b"{}")
    texts |= {"store": f"s3://{bucket}", "cvat-annotation-path": f"dumps/cells.zip\ns3://{bucket}/dumps/folder"}
    check(texts, "run-1", UID)
    s3.put_object(Bucket=bucket, Key="dumps/page.zip", Body=b"<html>")
    texts["cvat-annotation-path"] = "dumps/page.zip\ndumps/other.zip\ndumps/nothing"
    page, other, nothing = said_by(texts)
    assert page == f"cvat-annotation-path: s3://{bucket}/dumps/page.zip is not a zip: export the task again."
    assert f"there is no object s3://{bucket}/dumps/other.zip" in other
    assert f"there is nothing below s3://{bucket}/dumps/nothing" in nothing


@pytest.mark.usefixtures("s3")
def test_an_unreachable_store_is_a_fault_that_passes(texts: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(check_places, "PATIENCE_S", 0.0)
    with pytest.raises(StoreUnavailable) as caught:
        check(texts | {"store": "s3://bucket"}, "run-1", UID)
    assert caught.value.exit_code == 75


def test_parameters_come_as_argo_writes_them_or_as_an_object():
    argo = '[{"name":"epochs","value":"3","description":"d"},{"name":"store"},{"name":"seed","value":7}]'
    assert texts_from_json(argo) == {"epochs": "3", "seed": "7"}
    assert texts_from_json('{"epochs": "3", "minutes": 2}') == {"epochs": "3", "minutes": "2"}


@pytest.mark.parametrize("content", ["", "3", '["epochs"]', '[{"value": "3"}]'])
def test_what_is_no_set_of_parameters_is_refused(content: str):
    with pytest.raises(ConfigError, match="--parameters-json"):
        texts_from_json(content)


def test_the_command_says_one_line_for_each_mistake_and_ends_with_2(texts: dict[str, str]):
    given = json.dumps([{"name": name, "value": value} for name, value in texts.items()])
    command = [COMMAND, "check", "--run=run-1", f"--parameters-json={given}"]
    good = subprocess.run(command, check=False, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run([*command, "-p", "epocs=3"], check=False, capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr == "error: 'epocs' is not a parameter; did you mean epochs?\n"


def test_one_text_may_name_several_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    places = source_places(["here\n\ns3://bucket/a.zip", "", f"{(tmp_path / 'here').as_uri()}"], "s3://store/root")
    assert places == ("here", "s3://bucket/a.zip", str(tmp_path / "here"))
    assert source_places(["dumps/b"], "s3://store/root") == ("s3://store/root/dumps/b",)


@pytest.mark.parametrize("line", ["/nowhere", "./nowhere", "../nowhere", "file:///nowhere", "nowhere"])
def test_a_local_source_that_is_not_there_is_said_as_it_was_typed(line: str):
    with pytest.raises(SourceError, match=f"there is no file or folder {line}: check the path"):
        source_places([line])


def test_a_start_is_named_by_weights_run_or_word(texts: dict[str, str], store: ObjectStore):
    store.put_bytes("weights/d-fine-nano/card.json", b"{}")
    store.put_bytes("workflow-data/output/first/run.json", b"{}")
    store.put_bytes("workflow-data/output/first/best/config.json", b"{}")
    for text, key in {
        "weights:d-fine-nano": "weights/d-fine-nano",
        "d-fine-nano": "weights/d-fine-nano",
        "run:first": "workflow-data/output/first",
        "first": "workflow-data/output/first",
    }.items():
        findings = check(texts | {"cvat-finetune-checkpoint": text}, "run-1", UID).findings
        assert f"cvat-finetune-checkpoint: {store.url}/{key}" in findings
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "weights:rf-detr-small"})
    assert said == (
        "cvat-finetune-checkpoint: the store has no weights named rf-detr-small; run `detr-workflows weights pull "
        f"rf-detr-small --store {store.url}`"
    )
    store.put_bytes("weights/first/card.json", b"{}")
    (said,) = said_by(texts | {"cvat-finetune-checkpoint": "first"})
    assert "'first' has 2 meanings: write weights:first or run:first" in said
