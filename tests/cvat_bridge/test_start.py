"""What a training may start from, and what the form says that a run will train."""

from typing import Any

import msgspec
import pytest

from cvat_bridge.cluster import PoolChoice
from cvat_bridge.http.schemas import PlanSchema
from cvat_bridge.runs.run_files import RunFiles, StoredWeights
from cvat_bridge.templates.catalog import read_offered_template
from cvat_bridge.templates.plan import plan
from cvat_bridge.templates.start_choices import TrainedModel, start_choices
from object_store import ObjectStore, StoreUnavailable, open_store
from published_weights.stored import Card, new_card
from run_config.weights.catalogue import published
from tests.cvat_bridge.running_bridge import Bridge, bridge, kubernetes, our_template, store
from tests.cvat_bridge.test_form import fields, form, template

__all__ = ["bridge", "kubernetes", "store"]

STORE = "s3://bucket/team"
HOSTILE = "<img src=x onerror=alert(1)>\u202e\n"
SMALL, NANO = "rf-detr-small", "d-fine-nano"


def card(name: str, **changes: Any) -> Card:
    made = new_card(published(name), "https://example.org/x.pth", sha256="", md5="")
    return msgspec.structs.replace(made, **changes)


def put(objects: ObjectStore, name: str, content: Card | bytes) -> None:
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    objects.put_bytes(f"weights/{name}/card.json", data)


# The list


def test_the_form_offers_automatic_published_weights_earlier_runs_and_random_weights(bridge: Bridge) -> None:
    objects = open_store(bridge.store)
    for name in (SMALL, "d-fine-small-obj365"):
        put(objects, name, card(name))
    start = fields(form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}"))["cvat-finetune-checkpoint"]
    assert (start["default"], start["required"], start["other"]) == ("auto", False, True)
    assert [one["value"] for one in start["choices"]] == [
        "auto", "weights:d-fine-small-obj365", "weights:rf-detr-small", "none",
    ]  # fmt: skip
    assert [one["group"] for one in start["choices"]] == ["", "Published weights", "Published weights", ""]
    assert "Another location" in start["help_html"]
    unnamed, named = start["choices"][1:3]
    assert named["title"] == "rf-detr-small, Apache-2.0"
    assert named["detail"] == (
        "For the model rf-detr-small. Trained on Objects365, then COCO, AP 0.530 there. Classes: person, bicycle, car, "
        "motorcycle, airplane, bus and 74 more. Licence: Apache-2.0."
    )
    assert "366, whose names are not known" in unnamed["detail"]


def test_weights_under_a_licence_that_is_not_allowed_and_damaged_ones_are_not_offered(bridge: Bridge) -> None:
    objects = open_store(bridge.store)
    put(objects, SMALL, card(SMALL))
    put(objects, "d-fine-small", card("d-fine-small", weights_licence="AGPL-3.0"))
    put(objects, NANO, b"[" * 10_000)
    put(objects, "d-fine-medium", card(SMALL))
    start = fields(form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}"))["cvat-finetune-checkpoint"]
    assert [one["value"] for one in start["choices"]] == ["auto", f"weights:{SMALL}", "none"]


def test_texts_of_cards_and_models_are_short_and_in_one_line() -> None:
    hostile = card(SMALL, trained_on=HOSTILE * 100, preset=HOSTILE * 100, classes=(HOSTILE * 100,) * 100)
    model = TrainedModel("s3://x", "run", "run, AP 0.5", (HOSTILE * 100,) * 100)
    for one in start_choices([model], [hostile]):
        assert len(one["detail"]) < 700
        assert "\n" not in one["detail"]


def test_hundreds_of_runs_are_a_short_list_and_few_reads(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    run = bridge.browser(bridge.cvat.ann).start(task=[task.id]).json()["name"]
    for number in range(300):
        tree = msgspec.json.decode(msgspec.json.encode(bridge.kubernetes.objects["workflows"][run]))
        name = f"done-{number:03}"
        tree["metadata"] |= {
            "name": name,
            "uid": name,
            "creationTimestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        }
        nodes = {"a": {"id": "a", "name": "x.train", "displayName": "train", "type": "Pod", "phase": "Succeeded"}}
        tree["status"] = {"phase": "Succeeded", "nodes": nodes}
        bridge.kubernetes.add("workflows", name, tree)
    read: list[str] = []
    monkeypatch.setattr(RunFiles, "_read_model_config", lambda _, folder: read.append(folder))
    for _ in range(2):
        choices = fields(form(bridge, f"task={task.id}"))["cvat-finetune-checkpoint"]["choices"]
        assert [one["title"][:8] for one in choices if one["group"] == "Earlier runs"] == [
            f"done-{number}" for number in range(299, 279, -1)
        ]
    assert len(read) == 20


def test_a_store_that_is_away_takes_neither_the_form_nor_a_start(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: RunFiles) -> StoredWeights:
        raise StoreUnavailable("no")

    monkeypatch.setattr(RunFiles, "_read_weights", away)
    tree = form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}")
    choices = fields(tree)["cvat-finetune-checkpoint"]["choices"]
    assert [one["value"] for one in choices] == ["auto", "none"]
    assert template(tree)["plan"] is None


def test_an_empty_start_as_runs_of_earlier_releases_have_it_is_accepted(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    answer = bridge.browser(bridge.cvat.ann).start(task=[task.id], parameters={"cvat-finetune-checkpoint": ""})
    assert answer.status_code == 201, answer.text


# What will be trained


POOLS = (PoolChoice("gpu", "One T4", "", None, "g4dn", 1), PoolChoice("cpu", "Large CPU", "", None, "c5", 0))


def said(*weights: str, boxes: int | None = 4888, models: tuple[TrainedModel, ...] = ()) -> PlanSchema:
    offered = read_offered_template(our_template("cvat-train"))
    assert offered is not None
    subject: Any = {"images": 364, "boxes": boxes}
    cards = tuple(map(card, weights))
    found = plan(offered, POOLS, subject, models, StoredWeights(frozenset(weights), cards), STORE)
    assert found is not None
    return found


def test_automatic_is_said_for_each_pool_in_one_sentence_with_the_reason() -> None:
    plan_ = said(SMALL, NANO)
    assert plan_["by_pool"]["gpu"] == {
        "level": "info",
        "text": "Will train rf-detr-small from published weights on 364 images with 4,888 boxes, because One T4 has a "
        "GPU, and the store has the weights of rf-detr-small.",
        "advice": "",
    }
    assert plan_["by_pool"]["cpu"]["text"] == (
        "Will train d-fine-nano from published weights on 364 images with 4,888 boxes, because Large CPU has no GPU, "
        "and the store has the weights of d-fine-nano."
    )
    assert "because the run uses no GPU" in plan_["without_gpu"]["text"]
    assert "on 364 images, because" in said(SMALL, boxes=None)["by_pool"]["gpu"]["text"]


def test_without_weights_a_gpu_pool_gets_a_warning_with_the_command_and_a_cpu_trains_tiny() -> None:
    plan_ = said()
    gpu = plan_["by_pool"]["gpu"]
    assert gpu["level"] == "warning"
    assert f"run `detr-workflows weights pull rf-detr-small --store {STORE}`" in gpu["text"]
    assert "operator" in gpu["advice"]
    assert plan_["by_pool"]["cpu"]["text"].startswith("Will train tiny from random weights on 364 images")
    other = said(NANO)["by_pool"]["gpu"]
    assert other["level"] == "info"
    assert other["text"].startswith("Will train d-fine-nano from published weights")
    assert f"`detr-workflows weights pull rf-detr-small --store {STORE}`" in other["text"]


def test_a_model_that_was_chosen_says_what_it_starts_from() -> None:
    by_model = said(SMALL, "d-fine-small-obj365")["by_model"]
    assert by_model[SMALL]["text"].startswith(
        "Will train rf-detr-small from the published weights rf-detr-small on 364"
    )
    assert "from the published weights d-fine-small-obj365 on" in by_model["d-fine-small"]["text"]
    assert by_model["tiny"]["text"].startswith("Will train tiny from random weights on")
    missing = by_model["rf-detr-nano"]
    assert missing["level"] == "warning"
    assert f"`detr-workflows weights pull rf-detr-nano --store {STORE}`" in missing["text"]
    detr = by_model["detr-r18"]
    assert (detr["level"], detr["advice"]) == ("warning", "Choose another start or model.")
    assert "auto knows no published weights that fit this model" in detr["text"]
    assert "auto" not in by_model


def test_a_start_that_was_chosen_says_its_model_and_warns_of_another() -> None:
    old = TrainedModel("s3://b/one/model", "one", "one", ("a",), "tiny")
    unknown = TrainedModel("s3://b/two/model", "two", "two")
    by_start = said(NANO, models=(old, unknown))["by_start"]
    weights = by_start[f"weights:{NANO}"]
    assert weights["model"] == NANO
    assert weights["note"]["text"].startswith("Will train d-fine-nano from the published weights d-fine-nano on 364")
    assert weights["other"]["level"] == "warning"
    assert "choose auto or d-fine-nano" in weights["other"]["advice"]
    assert by_start[old.value]["note"]["text"].startswith("Will train tiny from the model of one on")
    assert by_start[unknown.value]["other"]["level"] == "info"
    assert by_start["none"]["note"]["text"].startswith("Will train tiny from random weights on")
    assert by_start["none"]["other"]["level"] == "warning"


def test_a_template_that_trains_nothing_of_ours_has_no_plan(bridge: Bridge) -> None:
    parameters = [{"name": "cvat-annotation-path"}, {"name": "model", "enum": ["auto", "tiny"], "value": "auto"}]
    tree = {"metadata": {"labels": {"used-by": "cvat"}}, "spec": {"arguments": {"parameters": parameters}}}
    bridge.kubernetes.add("workflowtemplates", "theirs", tree)
    tree = form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}")
    assert template(tree, "theirs")["plan"] is None
    assert template(tree, "detr-annotate")["plan"] is None
    assert template(tree)["plan"] is not None


def test_an_installation_without_pools_runs_on_a_gpu() -> None:
    offered = read_offered_template(our_template("cvat-train"))
    assert offered is not None
    subject: Any = {"images": 1, "boxes": 1}
    found = plan(offered, (), subject, (), StoredWeights(frozenset({SMALL}), ()), STORE)
    assert found is not None
    assert list(found["by_pool"]) == [""]
    assert "on 1 image with 1 box, because the machine has a GPU" in found["by_pool"][""]["text"]
