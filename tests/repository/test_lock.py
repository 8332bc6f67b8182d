"""The lock files: what pyproject.toml asks for, with hashes and without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = {
    "cpu-steps": ["cpu-steps", "client"],
    "cvat-bridge": ["client", "cvat-bridge"],
    "detr-job": ["detr-job"],
    "dev": ["cpu-steps", "client", "cvat-bridge", "detr-job", "workflows", "dev"],
}


def locked(name: str) -> dict[str, list[Version]]:
    """Package → versions: one, or one a Python version."""
    versions: dict[str, list[Version]] = {}
    for package, version in re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE
    ):
        versions.setdefault(canonicalize_name(package), []).append(Version(version))
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_pyproject_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in LOCKS[name]:
        wanted += project["optional-dependencies"][extra]
    versions = locked(name)
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            continue
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in requirements/{name}.txt: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in found), f"{text}: run `make lock`"


@pytest.mark.parametrize("name", [*LOCKS, "bootstrap", "build"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert "-index-url" not in text
    packages = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert packages
    assert all("--hash=sha256:" in package for package in packages)


def test_the_images_get_only_what_their_steps_need() -> None:
    assert not {"torch", "torchvision", "hera", "transformers"} & locked("cpu-steps").keys()
    assert not {"hera", "moto", "kubernetes", "transformers"} & locked("detr-job").keys()
    assert not {"hera", "moto", "torch", "cvat-sdk", "boto3-stubs"} & locked("cvat-bridge").keys()
