"""run.json says where a model comes from and keeps runs apart; metrics.jsonl goes back with the checkpoint."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from detr_job.errors import JobError
from detr_job.training.run_folder import MetricsLog, describe_run, open_run, resumed_settings
from object_store import AlreadyExists, NoSuchKey, ObjectStore, StoreError, open_store
from run_config.job.config import JobConfig, Loss
from run_config.job.presets import is_chosen, load_job_config
from run_config.section import added_later


def description(**changes: Any) -> dict[str, Any]:
    overrides = changes.pop("overrides", ())
    given: dict[str, Any] = {
        "run": "first",
        "uid": "uid-1",
        "parameters": {"epochs": "3"},
        "config": load_job_config("tiny", overrides).model_dump(mode="json"),
        "auto": {},
        "preset": "tiny",
        "finetune": "",
        "set_id": "abc",
        "classes": ("gear", "nut"),
        "hardware": "a processor",
        "precision": "fp32",
        "model_parameters": 12,
    }
    return describe_run(**(given | changes))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "run")


def test_run_json_names_everything_that_made_the_model(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGE_DIGEST", "sha256:1234")
    monkeypatch.setenv("CODE_REVISION", "abcdef")
    open_run(store, description())
    written = json.loads(store.get_bytes("run.json"))
    assert written["format"] == 1
    assert written["restarts"] == 0
    assert written["workflow_uid"] == "uid-1"
    assert written["parameters"] == {"epochs": "3"}
    assert written["prepared_set"] == "abc"
    assert written["classes"] == ["gear", "nut"]
    assert written["seed"] == written["config"]["training"]["seed"]
    assert written["image_digest"] == "sha256:1234"
    assert written["code_version"].endswith("+abcdef")
    assert written["hardware"] == "a processor"
    assert written["finetune"] == ""
    assert written["started"].endswith("+00:00")


def test_restarts_are_counted_and_the_start_stays(store: ObjectStore):
    first = open_run(store, description() | {"started": "2020-01-01T00:00:00+00:00"})
    assert first["restarts"] == 0
    for count in (1, 2):
        again = open_run(store, description(hardware=f"machine {count}", precision="bf16"))
        assert again["precision"] == "fp32"
        assert again["restarts"] == count
        assert again["started"] == "2020-01-01T00:00:00+00:00"
        assert json.loads(store.get_bytes("run.json")) == again


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"uid": "uid-2"}, r"belongs to another workflow \(uid uid-1, this is uid-2\): choose another run name"),
        ({"uid": ""}, r"belongs to another workflow \(uid uid-1, this is none\)"),
        ({"set_id": "xyz"}, "was started on the prepared set abc, not on xyz: choose another run name"),
        ({"finetune": "s3://b/model"}, "was started from fresh weights, not from s3://b/model: choose another"),
        ({"overrides": ["optimizer.lr=0.5"]}, r"other settings \(optimizer.lr \S+ -> 0.5\): choose another run name"),
        ({"overrides": ["data.min_sizes=[64]"]}, r"other settings \(data.min_sizes \[\d+\] -> \[64\]\)"),
        ({"overrides": ["model={family: detr}"]}, "other settings"),
    ],
)
def test_another_run_under_the_same_name_is_refused(store: ObjectStore, changes: dict[str, Any], sentence: str):
    open_run(store, description())
    before = store.get_bytes("run.json")
    with pytest.raises(JobError, match=sentence) as error:
        open_run(store, description(**changes))
    assert error.value.exit_code == 2
    assert store.get_bytes("run.json") == before


def test_checkpoints_of_which_nothing_is_known_are_not_trained_further(store: ObjectStore):
    open_run(store, description())
    store.put_bytes("checkpoints/step-00000010/manifest.json", b"{}")
    store.delete("run.json")
    with pytest.raises(JobError, match=r"has checkpoints but no run\.json, .* restore it, or choose another run name"):
        open_run(store, description())
    assert not store.exists("run.json")


def test_a_refused_longer_schedule_names_the_way_to_train_further(store: ObjectStore):
    open_run(store, description())
    sentence = (
        f"To train that run's model further, with these settings, also set cvat-finetune-checkpoint to {store.url}"
    )
    with pytest.raises(JobError, match=re.escape(sentence)):
        open_run(store, description(overrides=["schedule.epochs=900"]))


@pytest.mark.parametrize(
    "preset",
    ["tiny", "detr-r18", "d-fine-nano", "rf-detr-nano", "deformable-detr-r50-two-stage", "faster-rcnn-mobilenet"],
)
def test_another_number_of_queries_is_refused_for_a_run_that_has_begun(store: ObjectStore, preset: str):
    before, now = (
        load_job_config(preset, [f"model.queries={queries}"]).model_dump(mode="json") for queries in (120, 121)
    )
    open_run(store, description(config=before, preset=preset))
    with pytest.raises(JobError, match=r"was started with other settings \(model.queries 120 -> 121\): choose another"):
        open_run(store, description(config=now, preset=preset))


@pytest.mark.parametrize("key", ["data.workers=3", "evaluation.batch_size=1", "checkpoints.keep=9"])
def test_what_does_not_change_the_training_may_differ(store: ObjectStore, key: str):
    open_run(store, description())
    assert open_run(store, description(overrides=[key]))["restarts"] == 1


OLDER = "0.0.9"


def stored_by_an_older_release(store: ObjectStore, *missing: str, **changes: Any) -> None:
    """A run.json whose configuration lacks keys that were added since."""
    run = description(**changes) | {"code_version": OLDER}
    for key in missing:
        section, name = key.split(".")
        del run["config"][section][name]
    store.put_bytes("run.json", json.dumps(run).encode())


def resumed(
    store: ObjectStore, *overrides: str, preset: str = "tiny", auto: frozenset[str] = frozenset()
) -> tuple[JobConfig, dict[str, tuple[Any, Any]]]:
    """The settings that a start of this release goes on with."""

    def chosen(key: str) -> bool:
        return is_chosen(key, preset, overrides)

    config, kept, open_keys = resumed_settings(store, load_job_config(preset, overrides), preset, chosen, auto)
    assert not open_keys
    return config, kept


def test_auto_values_stay_those_of_the_first_start(store: ObjectStore):
    auto = frozenset(("optimizer.lr", "schedule.steps"))
    config = load_job_config("tiny", ["optimizer.lr=0.5", "schedule.steps=77"])
    open_run(store, description(config=config.model_dump(mode="json"), auto=dict.fromkeys(auto, "because")))
    again, kept = resumed(store, auto=auto)
    assert (again, kept) == (config, {})
    assert open_run(store, description(config=again.model_dump(mode="json"), auto={}))["auto"] == dict.fromkeys(
        auto, "because"
    )


def test_an_explicit_value_is_compared_with_the_auto_value_of_the_run(store: ObjectStore):
    config = load_job_config("tiny", ["optimizer.lr=0.5"])
    open_run(store, description(config=config.model_dump(mode="json"), auto={"optimizer.lr": "because"}))
    again, _ = resumed(store, "optimizer.lr=0.25")
    with pytest.raises(JobError, match=r"other settings \(optimizer.lr 0.5 -> 0.25\)"):
        open_run(store, description(config=again.model_dump(mode="json")))


def test_a_run_of_a_release_without_auto_values_keeps_its_own(store: ObjectStore):
    stored_by_an_older_release(store, "data.balance", overrides=["optimizer.lr=0.5"])
    config, kept = resumed(store, auto=frozenset(("optimizer.lr", "data.balance")))
    assert (config.optimizer.lr, config.data.balance) == (0.5, False)
    assert kept == {"optimizer.lr": (0.5, "auto"), "data.balance": (False, "auto")}


def test_a_run_of_an_older_release_goes_on_as_that_release_trained(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Loss.model_fields["no_object"], "json_schema_extra", added_later(0.7))
    stored_by_an_older_release(store, "loss.no_object")
    config, kept = resumed(store)
    assert config.loss.no_object == 0.7
    assert kept == {"loss.no_object": (0.7, 0.1)}
    again = open_run(store, description(config=config.model_dump(mode="json")))
    assert (again["restarts"], again["config"]["loss"]["no_object"]) == (1, 0.7)
    assert resumed(store) == (load_job_config("tiny"), {})  # this release wrote run.json now, and compares strictly


def test_a_key_that_states_no_older_value_refuses_in_one_sentence(store: ObjectStore):
    stored_by_an_older_release(store, "loss.no_object")
    sentence = (
        r"was started by the release 0\.0\.9, which did not have loss\.no_object: finish it with that release, or "
        "choose another run name"
    )
    with pytest.raises(JobError, match=sentence):
        resumed(store)
    with pytest.raises(JobError, match=sentence):
        open_run(store, description())


def test_defaults_that_a_release_changed_stay_those_of_the_run(store: ObjectStore):
    stored_by_an_older_release(store, overrides=["optimizer.lr=0.5", "data.workers=3"])
    lr, workers = load_job_config("tiny").optimizer.lr, load_job_config("tiny").data.workers
    config, kept = resumed(store)
    assert kept == {"optimizer.lr": (0.5, lr)}
    assert (config.optimizer.lr, config.data.workers) == (0.5, workers)


@pytest.mark.parametrize("overrides", [("optimizer.lr=0.25",), ("optimizer={lr: 0.25}",)])
def test_what_a_person_chooses_is_never_replaced(store: ObjectStore, overrides: tuple[str, ...]):
    stored_by_an_older_release(store, overrides=["optimizer.lr=0.5"])
    with pytest.raises(JobError, match=r"other settings \(optimizer.lr 0.5 -> 0.25\): choose another run name"):
        resumed(store, *overrides)


def test_another_model_under_the_name_of_an_older_run_is_refused(store: ObjectStore):
    stored_by_an_older_release(store)
    config, kept = resumed(store, preset="detr-r50")
    assert (config, kept) == (load_job_config("detr-r50"), {})
    with pytest.raises(JobError, match="other settings"):
        open_run(store, description(config=config.model_dump(mode="json"), preset="detr-r50"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"format": 99}', b"\xff\xfe", b'{"format": 1, "micro_batch_size": 0}'],
)
def test_a_run_json_of_another_kind_is_refused(store: ObjectStore, content: bytes):
    store.put_bytes("run.json", content)
    with pytest.raises(JobError, match="choose another run name"):
        open_run(store, description())
    assert store.get_bytes("run.json") == content


def test_of_two_that_start_at_once_one_is_let_through(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    real, both = store.get_bytes, threading.Barrier(2)
    answers: list[object] = []

    def get_bytes(key: str) -> bytes:
        try:
            return real(key)
        except NoSuchKey:
            both.wait(30)  # until the other has seen that nobody was first, too
            raise

    def start(uid: str) -> None:
        try:
            answers.append(open_run(store, description(uid=uid)))
        except StoreError as error:
            answers.append(error)

    monkeypatch.setattr(store, "get_bytes", get_bytes)
    threads = [threading.Thread(target=start, args=(uid,)) for uid in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(answer) for answer in answers if not isinstance(answer, dict)) == [AlreadyExists]
    assert len(answers) == 2


def stored(store: ObjectStore, *lines: str) -> None:
    store.put_bytes("metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())


def test_metrics_are_cut_back_to_the_step_and_the_evaluation_of_the_checkpoint(store: ObjectStore):
    metrics = MetricsLog(store)
    for step in (2, 4, 6):
        metrics.add(step, step / 10, "train", {"loss": 1.5})
        metrics.add(step, step / 10, "val", {"ap": 0.5})
    store.put_bytes("metrics.jsonl", metrics.content())
    again = MetricsLog(store, 4, 2)
    again.add(5, 0.5, "train", {"loss": 1.0})
    lines = [json.loads(line) for line in again.content().decode().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (2, "val"), (4, "train"), (5, "train")]
    assert lines[-1] == {"step": 5, "epoch": 0.5, "split": "train", "loss": 1.0}


def test_damaged_lines_of_metrics_are_dropped(store: ObjectStore):
    good = '{"step": 1, "epoch": 0.1, "split": "train", "loss": 1.0}'
    stored(store, good, '{"step": 2, "spl', "[]", "", '{"split": "train"}', "7", good)
    assert MetricsLog(store, 9, 9).content().decode().splitlines() == [good, good]


def test_without_a_checkpoint_metrics_begin_anew(store: ObjectStore):
    stored(store, '{"step": 1, "epoch": 0.1, "split": "train", "loss": 1.0}')
    assert MetricsLog(store).content() == b""


def test_metrics_that_were_never_stored_are_empty(store: ObjectStore):
    assert MetricsLog(store, 5, 5).content() == b""
