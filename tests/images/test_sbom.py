"""The inventory of an image and its licence label, on the packages that are installed here: no image is built."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from images import sbom

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r'org\.opencontainers\.image\.licenses="([^"]*)"')


@pytest.fixture(scope="module")
def inventory() -> dict[str, Any]:
    return sbom.python_packages(Path(sys.executable))


@pytest.fixture
def installed(inventory: dict[str, Any]) -> dict[str, sbom.Component]:
    return {canonicalize_name(one["name"]): one for one in inventory["components"]}


def contents(image: str, installed: dict[str, sbom.Component]) -> list[sbom.Component]:
    """Components of an image: its lock, and our own package."""
    lock = (ROOT / "requirements" / f"{image}.txt").read_text()
    names = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", lock, re.MULTILINE)}
    return [one for name, one in installed.items() if name in names | {"detr-workflows"}]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems get other packages than the images")
@pytest.mark.parametrize("image", ["cpu-steps", "cvat-bridge", "detr-job"])
def test_the_licence_label_says_what_the_packages_say(image: str, installed: dict[str, sbom.Component]) -> None:
    label = LABEL.search((ROOT / "images" / image / "Dockerfile").read_text())
    assert label
    assert label[1] == sbom.licence_of_all(contents(image, installed))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems get other packages than the images")
def test_only_the_training_image_holds_what_nvidia_does_not_license_freely(
    installed: dict[str, sbom.Component],
) -> None:
    nvidia = [name for name in installed if name.startswith("nvidia-")]
    assert len(nvidia) > 10
    assert {sbom.declared(installed[name]) for name in nvidia} == {"(LicenseRef-NVIDIA-Proprietary)"}
    holds = {
        image: "LicenseRef-NVIDIA-Proprietary" in sbom.licence_of_all(contents(image, installed))
        for image in ("cpu-steps", "cvat-bridge", "detr-job")
    }
    assert holds == {"cpu-steps": False, "cvat-bridge": False, "detr-job": True}


def licences(*entries: dict[str, object]) -> sbom.Component:
    return {"name": "package", "licenses": list(entries)}


@pytest.mark.parametrize(
    ("component", "expression"),
    [
        (licences({"license": {"id": "MIT"}}), "LicenseRef-Base-Image AND MIT"),
        (licences({"expression": "MIT OR Apache-2.0"}), "LicenseRef-Base-Image AND (Apache-2.0 OR MIT)"),
        (licences({"license": {"name": "LicenseRef-Ours-Alone"}}), "LicenseRef-Base-Image AND LicenseRef-Ours-Alone"),
        (
            licences({"license": {"name": "License :: OSI Approved :: BSD License"}}),
            "BSD-3-Clause AND LicenseRef-Base-Image",
        ),
        (
            licences({"license": {"id": "MIT"}}, {"license": {"name": "License :: OSI Approved :: BSD License"}}),
            "LicenseRef-Base-Image AND MIT",
        ),
        (licences({"license": {"name": "Free for friends"}}), "LicenseRef-Base-Image AND LicenseRef-Unknown"),
        ({"name": "package"}, "LicenseRef-Base-Image AND LicenseRef-Unknown"),
    ],
)
def test_a_licence_that_nobody_knows_is_named_unknown_instead_of_left_out(
    component: sbom.Component, expression: str
) -> None:
    assert sbom.licence_of_all([component]) == expression


def test_an_inventory_has_no_times_and_no_random_numbers(inventory: dict[str, Any]) -> None:
    assert inventory["bomFormat"] == "CycloneDX"
    assert "serialNumber" not in inventory
    assert "timestamp" not in inventory["metadata"]
