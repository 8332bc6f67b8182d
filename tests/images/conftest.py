"""Docker and the registry of the images, for the tests that need them."""

import os
import subprocess

import pytest


def docker(*words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], input=stdin, capture_output=True, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="session")
def registry() -> str:
    """Where the images are, or a reason why nobody can look at them."""
    name = os.environ.get("IMAGES_REGISTRY")
    if not name:
        pytest.skip("IMAGES_REGISTRY is not set: it names the registry of `make push`")
    try:
        answer = docker("info")
    except FileNotFoundError:
        pytest.skip("there is no docker here")
    if answer.returncode:
        pytest.skip("docker's daemon does not answer: `docker info` fails")
    return name
