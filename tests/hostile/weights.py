"""Files of weights with something wrong in each: the seed says what. Some are still good, by chance."""

import argparse
import functools
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**70, -(2**40))
VALUES: tuple[Any, ...] = (None, True, "", "x", 1.5, -1, 2**70, [], {}, [[1]], {"a": 1}, [-1], [2**62, 4], "F32")
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "C64", "F8_E4M3", "F8_E8M0", "F4", "U16", "X99", "", "f32")
PLAIN_FILES = (
    b"",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 166618694\n",
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>",
    b"\n  <?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b"\x89PNG\r\n\x1a\n" + bytes(200),
    b"\x1f\x8b\x08" + bytes(100),
    b"not weights at all",
    b"PK\x03\x04",
    b"PK\x05\x06" + bytes(18),
    bytes(5000),
    struct.pack("<Q", 2**62) + b"{}",
    struct.pack("<Q", 10**8 - 1) + b"{}",
    b"\x80\x02" + b"(" * 100_000,
    b"\x80\x02" + b"}" * 50_000 + b".",
)


class Code:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("this-file-was-unpickled-as-code", "w")


def state_dict() -> dict[str, torch.Tensor]:
    base = torch.arange(48.0)
    return OrderedDict(
        {
            "class_embed.weight": torch.ones(4, 6),
            "class_embed.bias": torch.zeros(4),
            "body.conv1.weight": torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1)).half(),
            "body.bn1.num_batches_tracked": torch.tensor(7),
            "alias": base[:24],
            "strided": base.view(6, 8).t()[1:, ::2],
            "empty": torch.zeros(0, 5),
        }
    )


def odd_contents() -> list[Any]:
    """What people have saved with torch.save, and what they have not."""
    tensors = state_dict()
    deep: Any = tensors
    for _ in range(100):
        deep = {"model": deep}
    return [
        [1, 2, 3],
        7,
        None,
        {},
        {"model": {}},
        {"model": None, "state_dict": tensors},
        {"model": {"model": tensors}},
        {3: torch.ones(2)},
        {("a", "b"): torch.ones(2)},
        {"a": 1},
        {"a": torch.ones(1).expand(10**9)},
        {"a": torch.ones(3, 3).to_sparse()},
        {"a": torch.empty(10**12, device="meta")},
        {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        {"a": torch.nn.Parameter(torch.ones(3))},
        {"a": torch.ones(2, dtype=torch.complex64)},
        {"a\x1b[31m\n{{=1}}": torch.ones(2)},
        {"model": tensors, "args": argparse.Namespace(lr=1e-4)},
        {"model": tensors, "args": Code()},
        {"a": bytearray(100)},
        torch.nn.Linear(2, 2),
        deep,
    ]


@functools.cache
def _bases() -> dict[str, bytes]:
    """One good file of each form."""
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save({"model": state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1e-4)}, zipped)
    torch.save(state_dict(), legacy, _use_new_zipfile_serialization=False)
    dense = {name: tensor.clone().contiguous() for name, tensor in state_dict().items()}
    return {"zip": zipped.getvalue(), "legacy": legacy.getvalue(), "safetensors": save_safetensors(dense)}


def mutated_weights(seed: int, folder: Path) -> Path:
    """A `.pth`, `.pt` or `.safetensors` file, or a folder of such a name, below `folder`."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = rng.choice((".pth", ".pth", ".pt", ".safetensors", ".safetensors"))
    path = folder / f"weights-{seed}{suffix}"
    if rng.random() < 0.01:
        path.mkdir(exist_ok=True)
        return path
    if rng.random() < 0.12:
        path.write_bytes(rng.choice(PLAIN_FILES))
        return path
    if suffix == ".safetensors":
        data = rng.choice((_header, _header, _raw))(rng, _bases()["safetensors"])
    else:
        data = rng.choice(_PICKLED)(rng)
    path.write_bytes(data)
    return path


def _raw(rng: random.Random, data: bytes) -> bytes:
    """Cut, changed, doubled or padded anywhere."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        at = rng.randrange(max(1, len(content)))
        kind = rng.randrange(6)
        if kind == 0:
            del content[at:]
        elif kind == 1:
            content[at : at + 1] = rng.randbytes(1)
        elif kind == 2:
            content[at:at] = rng.randbytes(rng.choice((1, 8, 500)))
        elif kind == 3:
            content[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS) % 2**64)
        elif kind == 4:
            del content[at : at + rng.choice((1, 8, 200))]
        else:
            content += content[at : at + 300]
    return bytes(content)


def _header(rng: random.Random, data: bytes) -> bytes:
    """Another header of a safetensors file, over the same bytes."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    for _ in range(rng.choice((1, 1, 2))):
        entry = header[rng.choice(sorted(header))]
        kind = rng.randrange(6)
        if not isinstance(entry, dict):
            continue
        if kind == 0:
            entry["dtype"] = rng.choice(DTYPES)
        elif kind == 1:
            entry["shape"] = rng.choice(([rng.choice(NUMBERS)], [0], [2**32, 2**32], [4, 6, 1], [-4, -6], [1.5]))
        elif kind == 2:
            entry["data_offsets"] = [rng.choice(NUMBERS), rng.choice(NUMBERS)]
        elif kind == 3:
            entry[rng.choice(("dtype", "shape", "data_offsets"))] = rng.choice(VALUES)
        elif kind == 4:
            header[rng.choice(("__metadata__", "alias", "\u0000"))] = rng.choice(VALUES)
        else:
            entry.pop(rng.choice(("dtype", "shape", "data_offsets")), None)
    text = json.dumps(header)
    if rng.random() < 0.2:
        text = text.replace("}", ', "alias": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 1)
    if rng.random() < 0.1:
        text = '{"__metadata__":' + "[" * 50_000 + "]" * 50_000 + "," + text[1:]
    encoded = text.encode()
    stated = rng.choice((len(encoded),) * 6 + (len(encoded) + 1, *NUMBERS[:8]))
    return struct.pack("<Q", stated % 2**64) + encoded + data[8 + length :]


def _entries(rng: random.Random) -> bytes:
    """A zip archive with other entries than PyTorch wrote."""
    source = zipfile.ZipFile(io.BytesIO(_bases()["zip"]))
    content = {entry.filename: source.read(entry) for entry in source.infolist()}
    root = next(iter(content)).partition("/")[0]
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(content))
        kind = rng.randrange(9)
        if kind == 0:
            del content[name]
        elif kind == 1:
            content[name] = content[name][: rng.randrange(len(content[name]) + 1)]
        elif kind == 2:
            content[name] += rng.randbytes(rng.choice((1, 1000)))
        elif kind == 3:
            content[f"{root}/constants.pkl"] = b"\x80\x02."
        elif kind == 4:
            content[f"{root}/byteorder"] = rng.choice((b"big", b"", b"\xff"))
        elif kind == 5:
            content = {key.replace(root, rng.choice(("", "..", "a/b", "é")), 1): data for key, data in content.items()}
            root = next(iter(content), "x").partition("/")[0]
        elif kind == 6:
            content[f"{root}/bomb"] = bytes(3_000_000)
        elif kind == 7:
            content[f"{root}/version"] = rng.choice((b"99", b"", b"x" * 100))
        else:
            content[name] = rng.randbytes(50)
        if not content:
            break
    file = io.BytesIO()
    compression = rng.choice((zipfile.ZIP_STORED,) * 3 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, data in content.items():
            target.writestr(name, data)
    return file.getvalue()


def _instructions(rng: random.Random) -> bytes:
    """A good archive whose pickle has a few wrong bytes."""
    source = zipfile.ZipFile(io.BytesIO(_bases()["zip"]))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = _raw(rng, data) if rng.random() < 0.9 else b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b"."
            target.writestr(entry.filename, data)
    return file.getvalue()


def _content(rng: random.Random) -> bytes:
    """A good file of another content."""
    file = io.BytesIO()
    content = rng.choice(odd_contents())
    kind = rng.randrange(4)
    if kind == 0:
        pickle.dump(list(range(9)) if isinstance(content, dict) else repr(content), file, protocol=rng.randrange(6))
    elif kind == 1:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("storages"))
    elif kind == 2 and not isinstance(content, torch.nn.Module):
        torch.save(content, file, pickle_protocol=rng.choice((2, 3, 4, 5)))
    else:
        torch.save(content, file)
    return file.getvalue()


def _legacy(rng: random.Random) -> bytes:
    return _raw(rng, _bases()["legacy"])


def _zipped(rng: random.Random) -> bytes:
    return _raw(rng, _bases()["zip"])


_PICKLED: tuple[Callable[[random.Random], bytes], ...] = (_zipped, _legacy, _entries, _instructions, _content)
