"""docs/configuration.md says what the code says."""

from pathlib import Path

import pytest
import yaml

from run_config.job.keys import keys
from run_config.job.preset_files import preset_names
from run_config.job.presets import auto_keys, load_job_config
from run_config.job.recipe import Facts, resolved
from run_config.job.reference import MARKER, markdown

FACTS = Facts(
    images=100, validation_images=20, boxes=99, class_images=(9, 90), median_side=0.2, centre_shift=0.0, pretrained=True
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_document_has_the_tables_that_the_code_writes():
    text = DOCUMENT.read_text(encoding="utf-8")
    _, _, tables = text.partition(f"{MARKER}\n\n")
    assert tables == markdown(), (
        f"below its marker, {DOCUMENT.name} is what `python -m run_config.job.reference` prints"
    )


def test_every_key_has_a_meaning_and_a_row():
    tables = markdown()
    for key in keys():
        assert key.meaning.endswith("."), key.name
        assert f"| `{key.name}` |" in tables


def test_tables_have_as_many_cells_in_every_row():
    for block in markdown().split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


@pytest.mark.parametrize("preset", preset_names())
def test_what_a_preset_is_said_to_set_gives_the_preset(preset: str):
    row = next(line for line in markdown().splitlines() if line.startswith(f"| `{preset}` |"))
    shown = [part.strip("`") for part in row.rpartition(" | ")[2].removesuffix(" |").split("` `")]
    overrides = [text for text in shown if "=" in text and not text.endswith("=empty")]
    family = load_job_config(preset).model.family
    said = load_job_config("detr-r50", [f"model.family={family}", *overrides])
    auto = auto_keys("detr-r50", overrides)
    assert auto == auto_keys(preset)
    assert resolved(said, auto, FACTS) == resolved(load_job_config(preset), auto, FACTS)


def test_the_examples_of_the_document_are_valid(tmp_path, monkeypatch):
    text = DOCUMENT.read_text(encoding="utf-8").partition(MARKER)[0]
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(example)["base"] == "tiny"
    monkeypatch.chdir(tmp_path)
    Path("cells.yaml").write_text(example)
    assert load_job_config("cells.yaml", ["optimizer.lr=5e-4", "data.min_sizes=[256,320]"]).data.min_sizes == (256, 320)
