"""Published files are read without PyTorch: the same tensors as PyTorch reads, and nothing in a file runs."""

import argparse
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detr_job.errors import JobError
from detr_job.weights.tensor_files import read_tensors
from published_weights.arrays import read_arrays
from published_weights.errors import WeightsError
from tests.hostile.test_weights import in_our_words
from tests.hostile.weights import PLAIN_FILES, mutated_weights, odd_contents, state_dict

FILES = 300


def told(path: Path) -> str:
    try:
        for array in read_arrays(path).values():
            assert array.copy().shape == array.shape  # every value is there
    except WeightsError as error:
        return in_our_words(str(error), path)
    return ""


def assert_like_torch(path: Path) -> None:
    arrays, tensors = read_arrays(path), read_tensors(path)
    assert arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = (tensor.float() if tensor.is_floating_point() else tensor).detach()
        np.testing.assert_array_equal(arrays[name], wanted.numpy(), err_msg=name)
        assert arrays[name].dtype == wanted.numpy().dtype


def test_each_form_gives_the_tensors_that_pytorch_reads(tmp_path: Path):
    tensors = state_dict() | {"half": torch.randn(3, 4).bfloat16(), "module.double": torch.randn(2).double()}
    dense = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(dense, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "b.pth")
    torch.save({"model": OrderedDict(tensors), "args": argparse.Namespace(lr=1), "epoch": 3}, tmp_path / "c.pth")
    torch.save({"model": {}, "ema": {"module": tensors, "updates": 3}}, tmp_path / "d.pth")
    torch.save(
        {"state_dict": {f"module.{name}": torch.nn.Parameter(torch.ones(3)) for name in "ab"}}, tmp_path / "e.pth"
    )
    for path in sorted(tmp_path.iterdir()):
        assert_like_torch(path)


def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is saved, not of what is read
        paths = [mutated_weights(seed, tmp_path / "files") for seed in range(FILES)]
    read = [path for path in paths if not told(path)]
    assert 0 < len(read) < FILES / 2
    for path in read:
        try:
            read_tensors(path)
        except JobError:
            continue  # PyTorch is stricter about some fields of a pickle
        assert_like_torch(path)
    assert [path.name for path in tmp_path.iterdir()] == ["files"], "nothing ran"


def test_odd_contents_are_read_or_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in odd_contents():
            torch.save(content, path)
            told(path)
    assert [one.name for one in tmp_path.iterdir()] == ["odd.pth"], "nothing ran"


@pytest.mark.parametrize("content", PLAIN_FILES, ids=range(len(PLAIN_FILES)))
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_other_files_are_refused(content: bytes, name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    assert "not a file of weights" in told(tmp_path / name)


def test_the_command_line_starts_without_numpy_and_safetensors():
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('numpy', 'safetensors', 'torch', 'httpx')));"
        "from workflows.cli import app; from published_weights import bring, start, stored"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_needs_no_pytorch(tmp_path: Path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    program = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path;"
        "from published_weights import bring, layout, cli; from published_weights.arrays import read_arrays;"
        f"assert read_arrays(Path({str(tmp_path / 'a.pth')!r}))['a'].sum() == 3"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
