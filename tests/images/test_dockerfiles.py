"""What the Dockerfiles promise, read from their text: nothing is built here."""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ["cpu-steps", "cvat-bridge", "detr-job"]
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["packages"]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    word: str
    rest: str


def stages(image: str) -> dict[str, list[Instruction]]:
    """Stage → its instructions; what precedes the first FROM is `arguments`, the stage that is shipped `final`."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[Instruction]] = {"arguments": []}
    current = "arguments"
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            name = re.search(r"\bAS (\S+)$", rest)
            current = name[1] if name else "final"
            found[current] = []
        found[current].append(Instruction(word, rest))
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", f"images/{image}/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("image", IMAGES)
def test_every_stage_stands_on_one_base_that_can_be_replaced_and_is_not_latest(image: str) -> None:
    found = stages(image)
    (argument,) = found["arguments"]
    name, base = argument.rest.split("=")
    assert name == "BASE_IMAGE"
    assert re.fullmatch(r"[a-z/]+:[0-9][a-z0-9.-]*", base), base
    for stage, (origin, *_) in list(found.items())[1:]:
        assert origin.rest.split()[0] in {"${BASE_IMAGE}", *found}, stage


@pytest.mark.parametrize("image", IMAGES)
def test_no_image_is_pulled_to_read_the_dockerfile(image: str) -> None:
    assert "syntax=" not in (ROOT / "images" / image / "Dockerfile").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_the_user_is_numeric_so_that_a_cluster_can_see_it_is_not_root(image: str) -> None:
    users = [one.rest for one in stages(image)["final"] if one.word == "USER"]
    assert users[-1] == "10001:10001"


@pytest.mark.parametrize("image", IMAGES)
def test_dependencies_lie_below_the_code_and_do_not_depend_on_it(image: str) -> None:
    found = stages(image)
    words = [f"{one.word} {one.rest}" for one in found["final"]]
    install = next(at for at, text in enumerate(words) if "pip sync" in text)
    code = next(at for at, text in enumerate(words) if text.startswith("COPY --from=code"))
    assert install < code
    below = found["tools"] + found["lock"] + found["final"][:install]
    copied = [one.rest for one in below if one.word in {"ADD", "COPY"} and "--from" not in one.rest]
    assert copied == ["requirements/bootstrap.txt /tools/", f"requirements/{image}.txt /tools/requirements.txt"]


@pytest.mark.parametrize("image", IMAGES)
def test_what_changes_with_each_commit_comes_after_the_layers(image: str) -> None:
    words = [one.word + " " + one.rest for one in stages(image)["final"]]
    revision = next(at for at, text in enumerate(words) if text.startswith("ARG CODE_REVISION"))
    assert not [text for text in words[revision:] if text.split()[0] in {"RUN", "COPY", "ADD", "WORKDIR"}]


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_of_the_wheel_is_copied(image: str) -> None:
    copied = {one.rest for one in stages(image)["code"] if one.word == "COPY"}
    assert {f"{package} {package}" for package in PACKAGES} <= copied


def test_the_build_is_sent_the_packages_and_the_locks_and_not_the_rest() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {f"!{package}" for package in PACKAGES} <= set(rules)
    assert not {"!tests", "!runs", "!.git", "!.venv"} & set(rules)


@pytest.mark.parametrize("image", IMAGES)
def test_everything_installed_from_an_index_is_checked_by_hash(image: str) -> None:
    runs = [one.rest for stage in stages(image).values() for one in stage if one.word == "RUN"]
    commands = [
        command
        for run in runs
        for command in run.split(";")
        if re.search(r"\b(pip (install|sync)|uv build)\b", command)
    ]
    assert len(commands) == 5
    assert all("--require-hashes" in command or "--no-deps --no-index" in command for command in commands)


@pytest.mark.parametrize("image", IMAGES)
def test_the_address_of_an_index_is_no_argument_of_the_shipped_stage(image: str) -> None:
    # An argument of the last stage would stand in the image's history.
    names = {one.rest.split("=")[0] for one in stages(image)["final"] if one.word in {"ARG", "ENV"}}
    assert not {name for name in names if "INDEX" in name or "LINKS" in name}


def test_the_script_of_the_build_is_valid_shell() -> None:
    done = subprocess.run(["sh", "-n", "images/remove-installers.sh"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
