"""Whatever is in a file of weights, its reader answers with tensors or with one sentence, and runs nothing."""

import resource
import struct
import warnings
from pathlib import Path

import pytest
import torch

from detr_job.errors import JobError
from detr_job.weights.tensor_files import read_tensors
from tests.hostile.weights import PLAIN_FILES, mutated_weights, odd_contents

FILES = 300
LIBRARIES = ("weights_only", "safe_globals", "GLOBAL", "SafetensorError", "PytorchStreamReader", "\x1b")


def told(path: Path) -> str:
    """The sentence about a file; empty where it could be read."""
    try:
        tensors = read_tensors(path)
    except JobError as error:
        return in_our_words(str(error), path)
    for name, tensor in tensors.items():
        assert isinstance(name, str)
        assert tensor.clone().shape == tensor.shape  # every value is there
    return ""


def in_our_words(said: str, path: Path) -> str:
    assert said.isprintable(), said
    assert len(said) < 500
    assert str(path) in said
    assert not [word for word in LIBRARIES if word in said.replace(str(path), "")], said
    return said


def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is saved, not of what is read
        paths = [mutated_weights(seed, tmp_path / "files") for seed in range(FILES)]
    for path in paths:
        said[path.name] = told(path)
    refused = [sentence for sentence in said.values() if sentence]
    assert len(refused) > FILES / 2
    assert len(refused) < FILES, "some are good by chance"
    assert not (tmp_path / "this-file-was-unpickled-as-code").exists()
    # The files have a few kilobytes; what the libraries need at their first use is in this.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 500 << 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (PLAIN_FILES[1], "it is a pointer of Git LFS and not the file itself: fetch that"),
        (PLAIN_FILES[2], "it is a web page, as servers send when they refuse a download: download the file itself"),
        (b"PK\x03\x04" + bytes(50), "it is damaged or cut short"),
        (bytes(5000), "it is damaged, or not a PyTorch file"),
    ],
)
def test_files_of_another_kind_are_called_by_their_name(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert f"weights.pth: not a file of weights that can be read safely ({reason}" in told(path)


def test_a_folder_is_called_one(tmp_path: Path):
    for suffix in (".pth", ".safetensors"):
        (tmp_path / f"x{suffix}").mkdir()
        assert "(Is a directory)" in told(tmp_path / f"x{suffix}")


def test_a_torchscript_archive_is_called_one(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "m.pt")
    assert "it is a TorchScript archive, which holds code: save the model's state_dict() instead" in told(
        tmp_path / "m.pt"
    )


def test_objects_in_a_file_are_named(tmp_path: Path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "m.pth")
    assert (
        "it holds more than plain tensors, which may run code: __builtin__.set, torch.nn.modules.linear.Linear"
        in told(tmp_path / "m.pth")
    )


def test_a_few_bytes_do_not_claim_the_machines_memory(tmp_path: Path):
    """A thousand million values that are one value, and a tensor that lies nowhere."""
    for number, content in enumerate(odd_contents()[10:14]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(content, tmp_path / f"{number}.pth")
        assert told(tmp_path / f"{number}.pth")


def test_a_tensor_of_an_unknown_type_is_a_damaged_safetensors_file(tmp_path: Path):
    header = (
        b'{"a":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"X","shape":[0],"data_offsets":[2,2]}}'
    )
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"12")
    assert "it is damaged, or not a safetensors file" in told(path)
