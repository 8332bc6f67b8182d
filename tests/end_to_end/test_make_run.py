"""What `make run` hands on: the values of a person, as they were typed."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NASTY = "my $(shell touch pwned) `touch pwned` $(touch pwned) \"a\" 'b' ; touch pwned # $x %.zip"

PROGRAM = f"""#!{sys.executable}
import json, pathlib, sys
program = pathlib.Path(sys.argv[0])
with (program.parent / "calls").open("a") as calls:
    calls.write(json.dumps([program.name, *sys.argv[1:]]) + "\\n")
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Programs with the names of ours that note how they are called."""
    for name in ("data-prep", "detr-workflows"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make_run(programs: Path, *words: str, **environment: str) -> list[list[str]]:
    """Every call that `make run` makes; setting up is taken for done."""
    before = set(ROOT.iterdir())
    subprocess.run(
        ["make", "-o", "setup", f"BIN={programs}", "run", *words],
        check=True, capture_output=True, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    assert not {path for path in set(ROOT.iterdir()) - before if path.name == "pwned"}
    return [json.loads(line) for line in (programs / "calls").read_text().splitlines()]


def values(call: list[str]) -> dict[str, str]:
    assert call[:2] == ["detr-workflows", "run-local"]
    return dict(word.split("=", 1) for option, word in itertools.pairwise(call) if option == "-p")


@pytest.mark.parametrize("word", ["DATASTE", "minutes"])
def test_a_misspelt_word_is_refused_before_anything_happens(word: str, programs: Path):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make_run(programs, f"{word}=x y=z")
    assert f"make run has no word {word}: its words are DATASET TEST CONFIG" in refused.value.stderr.decode()
    assert not (programs / "calls").exists()


def test_without_words_it_chooses_a_model_for_the_sample(programs: Path):
    sample, run = make_run(programs)
    assert sample == ["data-prep", "make-sample", "runs/sample"]
    assert values(run) == {
        "device": "auto",
        "cvat-annotation-path": "runs/sample/sample_trainval.zip",
        "cvat-test-path": "runs/sample/sample_test.zip",
        "model": "auto",
        "cvat-finetune-checkpoint": "",
        "minutes": "",
        "overrides": "",
    }
    assert run[run.index("--store") + 1] == "runs/store"


def test_words_arrive_as_they_were_typed(programs: Path):
    words = {
        "DATASET": NASTY,
        "TEST": f"{NASTY}\nsecond",
        "CONFIG": "my configs/a b.yaml",
        "FINETUNE": "weights:d-fine-nano",
        "MINUTES": "10",
        "ARGS": NASTY,
    }
    (run,) = make_run(programs, *(f"{name}={value}" for name, value in words.items()))
    assert values(run) == {
        "device": "auto",
        "cvat-annotation-path": words["DATASET"],
        "cvat-test-path": words["TEST"],
        "model": words["CONFIG"],
        "cvat-finetune-checkpoint": words["FINETUNE"],
        "minutes": "10",
        "overrides": words["ARGS"],
    }


def test_variables_of_the_environment_that_share_a_name_change_nothing(programs: Path):
    leak = {"DATASET": "x", "TEST": "y", "CONFIG": "release", "MINUTES": "5", "ARGS": "--verbose"}
    assert make_run(programs, **leak)[1] == make_run(programs)[1]
