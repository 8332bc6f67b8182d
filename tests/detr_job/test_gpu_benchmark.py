"""benchmarks/gpu.sh: its parts work in their reduced form, and it says in one sentence why it cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def gpu(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "benchmarks" / "gpu.sh"), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": python, "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("parity", "parity of d_fine, bf16: loss "),
        ("speed", "times as fast as transformers; with our full loss "),
        ("run", "run: AP50 "),
        ("resume", "resume: weights differ by 0.0e+00 from an undisturbed run"),
    ],
)
@pytest.mark.timeout(600)
def test_each_part_works_with_small_models(part: str, said: str):
    done = gpu("--device", "cpu", part)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = gpu()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu.sh: PyTorch finds no GPU; use --device cpu to try the parts with small models\n"


def test_unknown_parts_and_missing_packages_are_named(tmp_path: Path):
    done = gpu("everything")
    assert (done.returncode, done.stderr) == (
        2,
        "gpu.sh: 'everything' is not a part; use parity, speed, run, resume\n",
    )
    bare = subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=False)
    assert bare.returncode == 0
    done = gpu("resume", python=str(tmp_path / "bare" / "bin" / "python"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no " in done.stderr
    assert "torch" in done.stderr
