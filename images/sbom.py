"""Write the software bill of materials (SBOM) of an image: its Python packages, Debian packages and Python itself.

Runs during the build of an image, with cyclonedx-bom from requirements/build.txt: `sbom.py IMAGE-NAME PYTHON OUTPUT`.
The result is CycloneDX JSON without times or random numbers. `metadata.component.licenses` holds the licence expression
of the whole image. The image's label org.opencontainers.image.licenses must be the same.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import Licensing, get_spdx_licensing
from packageurl import PackageURL

Component = dict[str, Any]

BASE_IMAGE = "LicenseRef-Base-Image"
"""Packages of the base image: GPL, LGPL, MIT and others, each described in /usr/share/doc/PACKAGE/copyright."""
UNKNOWN = "LicenseRef-Unknown"
"""A package without a declared licence: find its licence and add it to CONCLUDED."""
CONCLUDED = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "nvidia-cusparselt-cu13": "LicenseRef-NVIDIA-Proprietary",
    "torchvision": "BSD-3-Clause",
}
"""Licences of packages whose metadata states none that cyclonedx-bom can read."""
NAMED = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX identifiers of classifiers that name a group of licences."""
SPDX: Licensing = get_spdx_licensing()


def python_packages(python: Path) -> dict[str, Any]:
    """The packages of a Python environment, as cyclonedx-bom lists them."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    done = subprocess.run([*command, "--output-format", "JSON", str(python)], capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"cyclonedx-py could not read {python}: {done.stderr.decode()}")
    inventory: dict[str, Any] = json.loads(done.stdout)
    for component in inventory["components"]:
        concluded = CONCLUDED.get(component["name"].lower())
        if concluded and not component.get("licenses"):
            component["licenses"] = [{"expression": concluded, "acknowledgement": "concluded"}]
    return inventory


def debian_packages() -> list[Component]:
    """The packages of dpkg. Empty: the system has no dpkg."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return []
    fields = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
    rows = subprocess.run([dpkg, "--show", "--showformat", fields], capture_output=True, text=True, check=True).stdout  # noqa: S603
    system = platform.freedesktop_os_release()
    distribution = f"{system['ID']}-{system.get('VERSION_ID', 'unstable')}"
    found = []
    for status, name, version, architecture in (row.split("\t") for row in rows.splitlines()):
        if status.strip() == "ii":
            qualifiers = {"arch": architecture, "distro": distribution}
            url = PackageURL("deb", system["ID"], name, version, qualifiers).to_string()
            found.append({"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url})
    return found


def interpreter(python: Path) -> list[Component]:
    """The Python interpreter of the environment. Empty: it belongs to a Debian package."""
    program = "import platform, sys; print(sys._base_executable, platform.python_version())"
    printed = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout  # noqa: S603
    executable, version = printed.split()
    if dpkg := shutil.which("dpkg-query"):
        search = [dpkg, "--search", os.path.realpath(executable)]
        if subprocess.run(search, capture_output=True, check=False).returncode == 0:  # noqa: S603
            return []
    url = PackageURL("generic", None, "python", version).to_string()
    licence = [{"license": {"id": "PSF-2.0", "acknowledgement": "concluded"}}]
    return [
        {"type": "platform", "bom-ref": url, "name": "python", "version": version, "purl": url, "licenses": licence}
    ]


def declared(component: Component) -> str:
    """The licence of a package as one SPDX expression."""
    entries = component.get("licenses") or []
    texts = [entry["expression"] for entry in entries if "expression" in entry]
    texts += [entry["license"]["id"] for entry in entries if "id" in entry.get("license", {})]
    if not texts:  # Classifiers are less precise than SPDX identifiers.
        names = [entry["license"]["name"] for entry in entries]
        texts = [NAMED.get(name, name if name.startswith("LicenseRef-") else UNKNOWN) for name in names]
    return " AND ".join(f"({text})" for text in texts) or UNKNOWN


def licence_of_all(components: Iterable[Component]) -> str:
    """The SPDX expression for distributing these packages together with the base image."""
    return str(SPDX.parse(" AND ".join(f"({text})" for text in [*map(declared, components), BASE_IMAGE])).simplify())


def inventory_of(image: str, python: Path) -> dict[str, Any]:
    """The complete inventory of the current system."""
    inventory = python_packages(python)
    packages: list[Component] = inventory["components"]
    packages += interpreter(python)
    own = next(one for one in packages if one["name"] == "detr-workflows")
    inventory["metadata"]["component"] = {
        "type": "container",
        "bom-ref": image,
        "name": image,
        "version": own["version"],
        "licenses": [{"expression": licence_of_all(packages)}],
    }
    inventory["components"] = [*packages, *debian_packages()]
    return inventory


def main(image: str, python: str, output: str) -> None:
    """Write the inventory after validating it against the schema of CycloneDX."""
    inventory = inventory_of(image, Path(python))
    text = json.dumps(inventory, indent=1, sort_keys=True) + "\n"
    fault = JsonStrictValidator(SchemaVersion.from_version(inventory["specVersion"])).validate_str(text)
    if fault is not None:
        sys.exit(f"the inventory of {image} is not valid CycloneDX: {fault}")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
