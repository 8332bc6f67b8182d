"""What older releases stored is read with the values that do what those releases did."""

from typing import Any

import pytest

from run_config.errors import ConfigError
from run_config.job.config import Data, Loss
from run_config.job.presets import load_job_config
from run_config.job.stored_config import differences, keys_without_a_value, stored_config
from run_config.section import added_later


@pytest.fixture
def older() -> dict[str, Any]:
    """As a release stored it that had neither of these keys."""
    tree = load_job_config("tiny").model_dump(mode="json")
    del tree["loss"]["no_object"], tree["data"]["augmentation"]
    return tree


def test_a_key_that_was_added_later_gets_the_value_that_it_states(
    older: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loss.model_fields["no_object"], "json_schema_extra", added_later(0.7))
    config = stored_config(older, "run.json")
    assert config.loss.no_object == 0.7
    assert "loss.no_object" not in keys_without_a_value(older)
    assert "data.augmentation.flip" in keys_without_a_value(older)
    assert "no_object" not in older["loss"]


def test_a_key_may_state_that_nothing_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = load_job_config("tiny").model_dump(mode="json")
    del tree["data"]["cache"]
    assert keys_without_a_value(tree) == ("data.cache",)
    monkeypatch.setattr(Data.model_fields["cache"], "json_schema_extra", added_later(True))
    assert keys_without_a_value(tree) == ()
    assert stored_config(tree, "run.json").data.cache


def test_a_present_release_reads_what_it_wrote() -> None:
    for preset in ("tiny", "detr-r50"):
        config = load_job_config(preset)
        tree = config.model_dump(mode="json")
        assert keys_without_a_value(tree) == ()
        assert stored_config(tree, preset) == config


def test_a_key_of_a_later_release_is_refused_by_name() -> None:
    tree = load_job_config("tiny").model_dump(mode="json")
    tree["loss"]["new_term"] = 1
    with pytest.raises(ConfigError, match=r"^run\.json: unknown key loss\.new_term"):
        stored_config(tree, "run.json")


def test_differences_are_named_by_their_dotted_keys() -> None:
    changed = load_job_config("tiny", ["data.augmentation.flip=0.1", "optimizer.lr=0.5"])
    found = differences(load_job_config("tiny"), changed)
    assert found.keys() == {"data.augmentation.flip", "optimizer.lr"}
    assert found["data.augmentation.flip"][1] == 0.1
    other_family = differences(load_job_config("tiny"), load_job_config("detr-r50"))
    assert other_family["model.backbone"] == (None, "resnet50")
