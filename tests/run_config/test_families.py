"""A family of models is known from the registry alone."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from run_config.errors import ConfigError
from run_config.families.model import ModelConfig
from run_config.families.registry import DEFAULT, FAMILIES
from run_config.job.keys import keys
from run_config.job.preset_files import preset_names, preset_text, presets_on_offer
from run_config.job.presets import checked, load_job_config, presets_from_scratch
from run_config.job.stored_config import differences, stored_config
from run_config.parameters import BY_NAME

ROOT = Path(__file__).parents[2]
PACKAGES = ("run_config", "object_store", "data_prep", "detr_job", "evaluation", "workflows", "cvat_bridge")
SHARED = {"registry", "model", "__init__"}
KNOWN = ", ".join(map(repr, FAMILIES))


class ToyModel(ModelConfig):
    title = "Toy"

    family: Literal["made-up"] = Field("made-up", description="Model family.")
    stacks: int = Field(3, gt=0, description="Layers.")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "made-up", ToyModel)


def test_every_family_has_its_configuration_its_folder_and_a_preset():
    modules = {path.stem for path in (ROOT / "run_config" / "families").glob("*.py")} - SHARED
    folders = {path.parent.name for path in (ROOT / "detr_job" / "models").glob("*/family.py")}
    presets = {load_job_config(name).model.family for name in preset_names()}
    assert modules == folders == presets == set(FAMILIES)
    assert DEFAULT in FAMILIES
    for name, model in FAMILIES.items():
        assert model().family == name
        assert model.title
        assert model().most_objects > 0
        assert set(model().depths) <= set(model.model_fields)


@pytest.mark.usefixtures("toy")
def test_a_family_that_is_registered_can_be_configured_and_read_again():
    config = checked({"model": {"family": "made-up", "stacks": 5}}, "file")
    assert config.model == ToyModel(stacks=5)
    assert stored_config(config.model_dump(mode="json"), "run.json") == config
    assert [key.name for key in keys() if key.family == "made-up"] == ["model.family", "model.stacks"]
    assert differences(config, checked({}, "file"))["model.stacks"] == (5, None)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"family": "made-up", "stacks": 0}, "file: model.stacks must be above 0, not 0"),
        ({"family": "made-up", "stack": 1}, "file: unknown key model.stack; did you mean model.stacks?"),
        (
            {"family": "detr", "stacks": 1},
            "file: model.stacks belongs to models of the family made-up, and this one is detr",
        ),
        ({"family": "yolo"}, f"file: model.family must be {KNOWN}, 'made-up', not 'yolo'"),
        ({"family": ["made-up"]}, f"file: model.family must be {KNOWN}, 'made-up', not ['made-up']"),
        ({"family": None}, f"file: model.family must be {KNOWN}, 'made-up', not empty"),
        ([], "file: model must be a group of keys, not []"),
    ],
)
def test_what_no_family_takes_is_refused_in_a_sentence(model: object, said: str):
    with pytest.raises(ConfigError) as caught:
        checked({"model": model}, "file")
    assert str(caught.value) == said


def test_the_parameter_offers_the_presets_with_their_first_lines_in_their_order():
    parameter = BY_NAME["model"]
    assert parameter.choices == ("auto", *presets_on_offer())
    assert sorted(presets_on_offer()) == list(preset_names())
    assert parameter.default == "auto"
    assert parameter.choices[1] == "detr-r50"
    for number, (name, line) in enumerate(presets_on_offer().items(), 1):
        assert preset_text(name).startswith(f"# {number}. {line}\n"), "the order has no gaps and no number twice"
        assert f"- `{name}`: {line}" in parameter.help


def test_the_presets_for_few_images_are_those_that_start_at_random():
    assert "tiny" in presets_from_scratch()
    assert not any(name.startswith("detr-") for name in presets_from_scratch())


def test_no_code_outside_a_family_names_it():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name, line in names_of_families(path)
    ]
    assert found == []


def names_of_families(path: Path) -> Iterator[tuple[str, int]]:
    """Family names as whole texts, their classes, and imports of their modules, with their lines."""
    package = path.relative_to(ROOT).parts
    # What `model=auto` chooses from are presets, one of which has the name of its family.
    if package[:2] == ("run_config", "families") or package == ("run_config", "weights", "automatic.py"):
        return
    own = package[2] if package[:2] == ("detr_job", "models") else ""
    others = set(FAMILIES) - {own}
    classes = {FAMILIES[name].__name__ for name in others}
    modules = {f"{place}.{name}" for place in ("run_config.families", "detr_job.models") for name in others}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Constant(value=str(text)) if text in others:
                yield text, node.lineno
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if name in classes:
                yield name, node.lineno
            case ast.ImportFrom(module=str(module)) if any(f"{module}.".startswith(f"{one}.") for one in modules):
                yield module, node.lineno
