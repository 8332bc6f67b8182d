"""What the parameter `cvat-finetune-checkpoint` names, and that a word with two meanings is refused."""

from pathlib import Path

import pytest

from object_store import ObjectStore, open_store
from published_weights.start import meanings, missing, start_from
from run_config.errors import ConfigError

OUTPUT = "workflow-data/output"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store")


def start(text: str, store: ObjectStore, run: str = "second") -> str:
    return start_from(text, store, OUTPUT, run)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("weights:d-fine-nano", "weights/d-fine-nano"),
        ("run:first", f"{OUTPUT}/first"),
        ("runs/first/model", "runs/first/model"),
        ("s3://other/model.pth", "s3://other/model.pth"),
        ("/data/model.pth", "/data/model.pth"),
        ("model.pth", "model.pth"),
    ],
)
def test_each_form_names_a_place(text: str, wanted: str, store: ObjectStore):
    assert start(text, store) == wanted


@pytest.mark.parametrize(
    "text", ["weights:", "weights:../runs", "weights:A b", "run:", "run:..", "run:a/b", "run:%2e%2e"]
)
def test_a_malformed_name_is_refused(text: str, store: ObjectStore):
    with pytest.raises(ConfigError, match=r"is not (a|the) name of"):
        start(text, store)


def test_a_bare_word_is_a_run_weights_or_a_location_but_never_two(store: ObjectStore):
    store.put_bytes(f"{OUTPUT}/first/run.json", b"{}")
    assert start("first", store) == f"{OUTPUT}/first"
    assert start("first", store, run="first") == "first", "a run does not start from itself"
    store.put_bytes("weights/first/card.json", b"{}")
    with pytest.raises(ConfigError, match="'first' has 2 meanings: write weights:first or run:first"):
        start("first", store)
    store.delete(f"{OUTPUT}/first/run.json")
    assert start("first", store) == "weights/first"
    store.put_bytes("first/model/config.json", b"{}")
    with pytest.raises(ConfigError, match=f"write weights:first or {store.url}/first"):
        start("first", store)
    assert meanings("first", store, OUTPUT, "").keys() == {"weights:first"}


def test_the_command_that_brings_missing_weights():
    assert "detr-workflows weights pull d-fine-nano --store s3://b/p" in missing("s3://b/p/weights/d-fine-nano")
    assert missing("s3://b/p/weights/d-fine-nan") == (
        "the store has no weights named d-fine-nan, and there are no published weights named 'd-fine-nan' in the "
        "catalogue; did you mean d-fine-nano?"
    )
    assert "in the catalogue; there are rf-detr-nano, " in missing("s3://b/p/weights/mine")
    assert missing("s3://b/p/runs/first") == missing("s3://b/weights/a/b") == ""
