"""BASE_IMAGE: which image is built on, and what the labels of the built image say about it."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.conftest import docker

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + 64 * "a"
LABEL = "org.opencontainers.image.base."


def resolved(name: str, *options: str, program: str = "docker") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "images/resolve-base.sh", name, *options],
        cwd=ROOT,
        env=os.environ | {"DOCKER": program},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (f"python:3.11@{DIGEST}", "docker.io/library/python:3.11"),
        (f"python@{DIGEST}", "docker.io/library/python"),
        (f"docker.io/python:3.11@{DIGEST}", "docker.io/library/python:3.11"),
        (f"team/python:3.11@{DIGEST}", "docker.io/team/python:3.11"),
        (f"mirror.example.org/python:3.11@{DIGEST}", "mirror.example.org/python:3.11"),
        (f"mirror.example.org:5000/a/b/python@{DIGEST}", "mirror.example.org:5000/a/b/python"),
        (f"localhost/python:3.11@{DIGEST}", "localhost/python:3.11"),
    ],
)
def test_a_digest_that_is_given_is_built_on_without_asking_anyone(given: str, name: str) -> None:
    done = resolved(given, program="false")
    assert (done.returncode, done.stdout.split()) == (0, [given, name, DIGEST])


@pytest.mark.parametrize(
    "given",
    [
        "https://person:hunter2@mirror.example.org/python:3.11",
        "person:hunter2@mirror.example.org/python:3.11",
        "hunter2 python:3.11",
        "python:3.11\nhunter2",
        "python:3.11@sha256:hunter2",
        "hunter2:",
        "$(echo hunter2)",
    ],
)
def test_what_is_no_image_name_is_refused_and_not_repeated_since_it_may_hold_a_password(given: str) -> None:
    done = resolved(given, program="false")
    assert done.returncode == 2
    assert "BASE_IMAGE is not the name of an image: write name:tag" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_a_base_image_among_the_build_flags_is_refused_because_the_labels_would_not_name_it() -> None:
    done = subprocess.run(
        ["make", "images", "DOCKER=false", "BUILD_FLAGS=--build-arg BASE_IMAGE=python:3.12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "give the base image as BASE_IMAGE=" in done.stderr


@pytest.fixture
def base() -> Iterator[str]:
    """An image that only this docker has."""
    name = f"base-image-test/{uuid.uuid4().hex[:12]}:1"
    imported(name)
    yield name
    docker("image", "rm", "--force", name)


def imported(name: str) -> None:
    """An image that no other has the layers of."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(uuid.uuid4().hex))
    done = docker("import", "-", name, stdin=content.getvalue())
    assert done.returncode == 0, done.stderr


@pytest.fixture
def pushed(registry: str) -> Iterator[tuple[str, str]]:
    """Name with tag, and digest, of an image that a registry has and this docker has not."""
    name = f"{registry.rstrip('/')}/base-image-test/{uuid.uuid4().hex[:12]}:1"
    yield name, push(name)
    remove(name)


def push(name: str) -> str:
    """Push a new image under this name and forget it here; its digest, as the registry told it."""
    imported(name)
    done = docker("push", name)
    assert done.returncode == 0, done.stderr
    digest = done.stdout.partition("digest: ")[2].split()[0]
    remove(name)
    return digest


def remove(name: str) -> None:
    repository = name.rpartition(":")[0]
    left = docker("image", "ls", "--all", "--quiet", repository).stdout.split()
    if left:
        docker("image", "rm", "--force", *left)


@pytest.mark.usefixtures("registry")
def test_an_image_of_this_machine_alone_has_no_digest_and_the_build_says_so(base: str) -> None:
    done = resolved(base)
    assert (done.returncode, done.stdout.split()) == (0, [base, base])
    assert f"no registry confirmed {base}" in done.stderr
    assert f"{LABEL}digest stays empty" in done.stderr


def test_a_tag_is_resolved_to_the_digest_that_the_registry_has(pushed: tuple[str, str]) -> None:
    name, digest = pushed
    for _ in ("not here yet", "here already"):
        done = resolved(name)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [f"{name}@{digest}", name, digest], "")


def test_a_tag_that_moved_is_followed_when_pull_is_among_the_build_flags(pushed: tuple[str, str]) -> None:
    name, first = pushed
    assert resolved(name).stdout.split()[-1] == first
    kept = docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()
    second = push(name)
    docker("pull", "--quiet", f"{name.rpartition(':')[0]}@{first}")
    docker("tag", kept, name)
    assert resolved(name).stdout.split()[-1] == first
    assert resolved(name, "--pull").stdout.split()[-1] == second


def test_an_image_that_nobody_has_is_an_error(registry: str) -> None:
    done = resolved(f"{registry.rstrip('/')}/base-image-test/none:1")
    assert done.returncode != 0
    assert done.stdout == ""


def built(folder: Path, base: str) -> dict[str, str]:
    """Labels of an image that the Makefile built on this base, which has the labels of its own base."""
    dockerfile = folder / "images" / "tiny" / "Dockerfile"
    dockerfile.parent.mkdir(parents=True)
    dockerfile.write_text(f'ARG BASE_IMAGE={base}\nFROM ${{BASE_IMAGE}}\nLABEL title="tiny"\n')
    shutil.copy(ROOT / "images" / "resolve-base.sh", folder / "images")
    words = ["make", "-f", str(ROOT / "Makefile"), "images", "IMAGES=tiny", f"TAG={folder.name}", "REGISTRY="]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name = f"detr-workflows/tiny:{folder.name}"
    labels: dict[str, str] = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", name).stdout)
    docker("image", "rm", "--force", name)
    return labels


def test_the_build_records_the_base_of_the_registry(pushed: tuple[str, str], tmp_path: Path) -> None:
    name, digest = pushed
    labels = built(tmp_path, name)
    assert (labels[f"{LABEL}name"], labels[f"{LABEL}digest"]) == (name, digest)
    assert labels["title"] == "tiny"


@pytest.mark.usefixtures("registry")
def test_the_build_does_not_pass_on_what_the_base_says_about_its_own_base(base: str, tmp_path: Path) -> None:
    content = f'FROM {base}\nLABEL {LABEL}name="debian" {LABEL}digest="{DIGEST}"\n'
    assert docker("build", "--tag", base, "-", stdin=content.encode()).returncode == 0
    labels = built(tmp_path, base)
    assert (labels[f"{LABEL}name"], labels[f"{LABEL}digest"]) == (base, "")
