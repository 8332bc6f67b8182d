"""The images as they were built: IMAGES_REGISTRY says where `make push` left them."""

import json
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.images.conftest import docker

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
IMAGES = ["cpu-steps", "cvat-bridge", "detr-job"]
SBOM = "/usr/share/detr-workflows/sbom.cdx.json"
# What Kubernetes gives a step: no root, no rights, nothing to write to but /tmp.
LOCKED_UP = [
    *("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
]


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, registry: str) -> str:
    return present(registry, request.param)


@pytest.fixture
def cpu_steps(registry: str) -> str:
    return present(registry, "cpu-steps")


@pytest.fixture
def cvat_bridge(registry: str) -> str:
    return present(registry, "cvat-bridge")


@pytest.fixture
def detr_job(registry: str) -> str:
    return present(registry, "detr-job")


@cache
def present(registry: str, name: str) -> str:
    """The image's full name, fetched when this docker has not got it."""
    tag = os.environ.get("IMAGES_TAG") or PROJECT["project"]["version"]
    full = f"{registry.rstrip('/')}/detr-workflows/{name}:{tag}"
    if docker("image", "inspect", full).returncode:
        pulled = docker("pull", "--quiet", full)
        assert pulled.returncode == 0, f"{full} is not there, build it with `make push`: {pulled.stderr}"
    return full


def inspect(image: str) -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", image).stdout)
    return dict(found)


def run(image: str, *words: str) -> str:
    """What a command printed in a locked-up container; it must succeed."""
    done = docker(*LOCKED_UP, image, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def asked(image: str, program: str) -> Any:
    """What a Python program in the image printed as JSON."""
    return json.loads(run(image, "python", "-c", program))


def short_name(image: str) -> str:
    return image.rsplit("/", maxsplit=1)[1].partition(":")[0]


def distributions(image: str) -> dict[str, str]:
    """Version of each Python package that is installed."""
    program = """
import importlib.metadata as m, json
print(json.dumps({d.name: d.version for d in m.distributions()}))
"""
    return {canonicalize_name(key): value for key, value in asked(image, program).items()}


@cache
def inventory_text(image: str) -> str:
    return run(image, "cat", SBOM)


def inventory(image: str) -> dict[str, Any]:
    return dict(json.loads(inventory_text(image)))


def packages(sbom: dict[str, Any], kind: str) -> dict[str, str]:
    """Version of each component whose package URL is of this kind."""
    found = [one for one in sbom["components"] if one.get("purl", "").startswith(f"pkg:{kind}/")]
    versions = {canonicalize_name(one["name"]) if kind == "pypi" else one["name"]: one["version"] for one in found}
    assert len(versions) == len(found)
    return versions


def importable(image: str, *modules: str) -> dict[str, bool]:
    program = (
        f"import importlib.util as u, json; print(json.dumps({{m: u.find_spec(m) is not None for m in {modules!r}}}))"
    )
    return dict(asked(image, program))


def locked(name: str) -> dict[str, set[str]]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    versions: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE):
        versions.setdefault(canonicalize_name(package), set()).add(version)
    return versions


def test_it_runs_as_10001_without_rights_on_a_read_only_root(image: str) -> None:
    program = """
import json, os, pathlib, tempfile
def writable(folder):
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
folders = ["/", "/opt/venv", "/var/tmp", "/tmp", str(pathlib.Path.home())]
print(json.dumps([os.getuid(), os.getgid(), {folder: writable(folder) for folder in folders}]))
"""
    uid, gid, writable = asked(image, program)
    assert (uid, gid) == (10001, 10001)
    assert writable == {"/": False, "/opt/venv": False, "/var/tmp": False, "/tmp": True}
    assert inspect(image)["Config"]["User"] == "10001:10001"


def test_it_holds_nothing_that_installs_or_compiles(image: str) -> None:
    tools = ("pip", "pip3", "uv", "uvx", "easy_install", "gcc", "cc", "g++", "make", "ld")
    assert asked(image, f"import json, shutil; print(json.dumps([t for t in {tools!r} if shutil.which(t)]))") == []
    modules = ("pip", "uv", "ensurepip", "wheel", "hatchling")
    probe = f"import importlib.util as u; print([m for m in {modules!r} if u.find_spec(m)])"
    assert run(image, "python", "-c", probe).strip() == "[]"
    # The base image's own Python, beside the environment.
    base = run(image, "python", "-c", "import sys; print(sys._base_executable)").strip()
    assert run(image, base, "-c", probe).strip() == "[]"


def test_it_holds_what_the_lock_names_and_nothing_else(image: str) -> None:
    installed = distributions(image)
    assert installed.pop("detr-workflows") == PROJECT["project"]["version"]
    lock = locked(short_name(image))
    assert {key: value for key, value in installed.items() if value not in lock.get(key, set())} == {}


def test_it_holds_every_file_of_our_packages(image: str) -> None:
    names = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = sorted(name for name in names.splitlines() if (ROOT / name).is_file())
    program = f"""
import json, pathlib, sysconfig
root = pathlib.Path(sysconfig.get_path("purelib"))
print(json.dumps([name for name in {wanted!r} if not (root / name).is_file()]))
"""
    assert asked(image, program) == [], "built from another tree: run `make images`"


def test_every_module_of_ours_is_compiled_so_that_a_read_only_root_starts_fast(image: str) -> None:
    program = f"""
import importlib.util as u, json, pathlib, sysconfig
root = pathlib.Path(sysconfig.get_path("purelib"))
files = [f for name in {PACKAGES!r} for f in (root / name).rglob("*.py")]
print(json.dumps([len(files), [str(f) for f in files if not pathlib.Path(u.cache_from_source(str(f))).is_file()]]))
"""
    count, missing = asked(image, program)
    assert count > 50
    assert missing == []


@pytest.mark.parametrize(
    "command",
    [
        ["data-prep", "--help"],
        ["detr-workflows", "--help"],
        ["detr-workflows", "parameters"],
        ["python", "-m", "evaluation", "--help"],
        ["python", "-m", "object_store", "--help"],
    ],
    ids=" ".join,
)
def test_a_cpu_step_starts_without_a_shell(cpu_steps: str, command: list[str]) -> None:
    assert run(cpu_steps, *command)


def test_a_cpu_step_does_its_work_in_tmp_alone(cpu_steps: str) -> None:
    assert "sample_trainval.zip" in run(cpu_steps, "data-prep", "make-sample", "/tmp/sample")


def test_training_starts_without_a_shell(detr_job: str) -> None:
    assert "train" in run(detr_job, "detr-job", "--help")
    assert importable(detr_job, "torch", *PACKAGES) == dict.fromkeys(["torch", *PACKAGES], True)
    assert (
        run(detr_job, "python", "-c", "import detr_job.training.trainer, torch; print(torch.ones(2).sum().item())")
        == "2.0\n"
    )


def test_cpu_steps_holds_no_torch_and_no_hera_and_stays_small(cpu_steps: str) -> None:
    absent = ("torch", "torchvision", "nvidia", "triton", "scipy", "hera")
    assert importable(cpu_steps, *absent) == dict.fromkeys(absent, False)
    assert inspect(cpu_steps)["Size"] < 450_000_000


def test_the_bridge_starts_without_a_shell(cvat_bridge: str) -> None:
    assert "Connect CVAT with the training workflows" in run(cvat_bridge, "cvat-bridge", "--help")
    used = ("fastapi", "uvicorn", "httpx", "kubernetes", "markdown_it", "obstore", *PACKAGES)
    assert importable(cvat_bridge, *used) == dict.fromkeys(used, True)


def test_the_bridge_holds_nothing_that_reads_images_and_stays_small(cvat_bridge: str) -> None:
    absent = ("torch", "numpy", "PIL", "scipy", "hera", "jinja2", "cvat_sdk")
    assert importable(cvat_bridge, *absent) == dict.fromkeys(absent, False)
    assert inspect(cvat_bridge)["Size"] < 400_000_000


def test_models_are_served_and_tasks_annotated_by_the_training_image(detr_job: str) -> None:
    used = ("cvat_sdk", "fastapi", "uvicorn")
    assert importable(detr_job, *used) == dict.fromkeys(used, True)
    assert "serve-models" in run(detr_job, "cvat-bridge", "--help")


def test_a_change_of_code_moves_only_a_few_megabytes(image: str) -> None:
    rows = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).stdout
    layers = [(int(size), text) for size, text in (row.split("\t", 1) for row in rows.splitlines())]
    dependencies = next(at for at, (_, text) in enumerate(layers) if "pip sync" in text)
    assert sum(size for size, _ in layers[:dependencies]) < 10_000_000


def test_nothing_tells_where_the_packages_came_from(image: str) -> None:
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert "pip sync" in history
    assert not re.search(r"INDEX_URL=|FIND_LINKS=|\|\d+ ", history)
    program = """
import json, pathlib
found = [str(f) for f in pathlib.Path("/opt/venv").rglob("direct_url.json") if '"file:///wheel/' not in f.read_text()]
print(json.dumps(found + [str(f) for f in pathlib.Path("/").glob("*/uv.toml")]))
"""
    assert asked(image, program) == []


def test_its_labels_tell_what_it_is(image: str) -> None:
    config = inspect(image)["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert f"/{labels['title']}:" in image
    assert labels["version"] == PROJECT["project"]["version"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert f"CODE_REVISION={labels['revision']}" in config["Env"]


def test_its_inventory_is_valid_and_the_same_for_the_same_content(image: str) -> None:
    # Here, because they take seconds to import, which every run of the tests would pay for.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = inventory_text(image)
    sbom = json.loads(text)
    assert JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"])).validate_str(text) is None
    assert "serialNumber" not in sbom
    assert "timestamp" not in sbom["metadata"]
    assert sbom["metadata"]["component"]["name"] == f"detr-workflows/{short_name(image)}"
    assert sbom["metadata"]["component"]["version"] == PROJECT["project"]["version"]


def test_its_inventory_lists_each_python_package(image: str) -> None:
    sbom = inventory(image)
    installed = distributions(image)
    # Ours is in no index: it has no package URL.
    ours = [one["version"] for one in sbom["components"] if one["name"] == "detr-workflows" and "purl" not in one]
    assert ours == [installed.pop("detr-workflows")]
    assert packages(sbom, "pypi") == installed


def test_the_inventory_of_the_training_image_lists_the_locked_torch(detr_job: str) -> None:
    found = packages(inventory(detr_job), "pypi")
    assert {found["torch"]} == locked("detr-job")["torch"]
    assert {name for name in found if name.startswith("nvidia-")}


def test_its_inventory_lists_each_debian_package_and_a_python(image: str) -> None:
    rows = run(image, "dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}\t${Package}\t${Version}\n")
    installed = [row.split("\t") for row in rows.splitlines()]
    sbom = inventory(image)
    found = packages(sbom, "deb")
    assert found == {name: version for status, name, version in installed if status.strip() == "ii"}
    assert len(found) > 50
    version = run(image, "python", "-c", "import platform; print(platform.python_version())").strip()
    # Debian's own, or the one that the official Python images add.
    assert any(
        one["version"].startswith(version) for one in sbom["components"] if re.match(r"python(3\.\d+)?$", one["name"])
    )


def test_its_licence_label_is_the_expression_of_its_inventory(image: str) -> None:
    label = inspect(image)["Config"]["Labels"]["org.opencontainers.image.licenses"]
    sbom = inventory(image)
    assert sbom["metadata"]["component"]["licenses"] == [{"expression": label}]
    assert "LicenseRef-Base-Image" in label
    proprietary = {one["name"] for one in sbom["components"] if "roprietary" in json.dumps(one.get("licenses"))}
    assert bool(proprietary) == ("LicenseRef-NVIDIA-Proprietary" in label), proprietary
    assert bool(proprietary) == (short_name(image) == "detr-job")


def test_its_base_is_the_image_that_its_labels_name(image: str) -> None:
    found = inspect(image)
    labels = {key: value for key, value in found["Config"]["Labels"].items() if ".image.base." in key}
    name = labels["org.opencontainers.image.base.name"]
    digest = labels["org.opencontainers.image.base.digest"]
    assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", digest)
    base = f"{name}@{digest}" if digest else name
    if docker("image", "inspect", base).returncode:
        pulled = docker("pull", "--quiet", base)
        assert pulled.returncode == 0, pulled.stderr
    layers = inspect(base)["RootFS"]["Layers"]
    assert layers
    assert found["RootFS"]["Layers"][: len(layers)] == layers
