"""Keys of a job's configuration that name places to read are known, whatever sets them."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from run_check.check import _LOOKS
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.job.keys import with_values
from run_config.job.places import PLACES, places, places_in_overrides
from run_config.job.presets import load_job_config

KEY = "model.backbone_weights"
PLACE = "s3://bucket/project/cvat-exports/task-9/x"


def free_texts(record: type[BaseModel], prefix: str) -> list[str]:
    """Keys that take any text: none but these could name a place."""
    return [f"{prefix}{name}" for name, field in record.model_fields.items() if field.annotation is str]


def test_every_key_with_free_text_is_a_place():
    sections = [
        (type(getattr(JobConfig(), name)), f"{name}.") for name in JobConfig.model_fields if name != "model"
    ] + [(model, "model.") for model in FAMILIES.values()]
    found = [key for record, prefix in sections for key in free_texts(record, prefix)]
    assert tuple(dict.fromkeys(found)) == PLACES == (KEY,)
    assert set(PLACES) <= set(_LOOKS), "check does not look at it"


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{KEY}={PLACE}"],
        [f"model={{family: detr, backbone_weights: '{PLACE}'}}"],
        [f"{KEY}={PLACE}", f"{KEY}=''"],
        [f'{KEY}="{PLACE[:-1]}\\x78"'],
        [f" {KEY} = {PLACE}"],
    ],
)
def test_an_override_that_names_a_place_is_found(overrides: list[str]):
    assert places_in_overrides(overrides) == [(KEY, PLACE)]


def test_a_file_that_names_a_place_is_found(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: detr-r18\nmodel: {{backbone_weights: {PLACE}}}\n")
    assert places(load_job_config(str(path))) == {KEY: PLACE}
    assert places(load_job_config("tiny")) == places(load_job_config("detr-r18")) == {}


def test_other_places_change_nothing_else():
    config = load_job_config("detr-r18", [f"{KEY}={PLACE}", "optimizer.lr=0.0002"])
    changed = with_values(config, {KEY: "file:///x"})
    assert places(changed) == {KEY: "file:///x"}
    assert with_values(changed, {KEY: PLACE}) == config
    assert with_values(config, {}) == config
