"""Weights are read as tensors; nothing in a file runs, and what cannot be read is said in one sentence."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detr_job.errors import JobError
from detr_job.weights.tensor_files import read_tensors

WEIGHTS = {"class_embed.weight": torch.arange(6.0).reshape(2, 3), "class_embed.bias": torch.zeros(2)}


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_safetensors_and_plain_checkpoints_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save(WEIGHTS, tmp_path / "model.pth")
    assert same(read_tensors(tmp_path / "model.safetensors"))
    assert same(read_tensors(tmp_path / "model.pth"))


def test_a_training_checkpoint_of_the_published_code_gives_its_weights(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(
        {
            "model": WEIGHTS,
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
            "epoch": 3,
            "args": argparse.Namespace(lr=1e-4, backbone="resnet50"),
        },
        path,
    )
    assert same(read_tensors(path))


def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": WEIGHTS, "args": Bomb()}, "evil.pth")
    with pytest.raises(JobError, match=r"evil\.pth: not a file of weights that can be read safely"):
        read_tensors(Path("evil.pth"))
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_missing_broken_and_foreign_files_are_refused_in_words(tmp_path, name: str):
    path = tmp_path / name
    with pytest.raises(JobError, match="not a file of weights"):
        read_tensors(path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(JobError, match="not a file of weights"):
        read_tensors(path)


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(JobError, match="holds no state dict"):
        read_tensors(tmp_path / "list.pth")
