"""The class of an error has its exit code, and the numbers stand in one place."""

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import object_store.errors
from run_config import exit_codes

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)


def families() -> set[type[Exception]]:
    """Every exception of ours that is meant for a person."""
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    return {kind for kind in below(Exception) if kind.__module__.startswith(PACKAGES) and hasattr(kind, "exit_code")}


def test_a_store_error_and_the_command_lines_mean_the_same_by_a_number():
    assert object_store.errors.WRONG_INPUT == exit_codes.WRONG_INPUT
    assert object_store.errors.PASSING_FAULT == exit_codes.PASSING_FAULT


def test_every_error_for_a_person_has_a_code_of_the_contract():
    known = {value for name, value in vars(exit_codes).items() if name.isupper()}
    found = {kind.__name__: kind.exit_code for kind in families()}
    assert len(found) > 40
    assert {name for name, code in found.items() if code not in known} == set()


def test_waiting_helps_against_some_errors_and_never_against_others():
    passing = {kind.__name__ for kind in families() if kind.exit_code == exit_codes.PASSING_FAULT}
    store = {kind.__name__ for kind in families() if issubclass(kind, object_store.errors.StoreError)}
    assert passing & store == {"ObjectChanged", "PassingError", "StoreUnavailable", "WrongBytes"}
    assert passing >= {"CvatUnavailableError", "Interrupted", "ModelNotNow", "NoMemory", "StoreLeftBehind"}
    assert not passing & {"CvatRefusedError", "DamagedCheckpoint", "NotFinite", "SourceError", "StoreRefused"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_file_has_the_numbers(package: str):
    for path in (ROOT / package).rglob("*.py"):
        assert not re.findall(r"exit_code *= *\d+", path.read_text(encoding="utf-8")), path
