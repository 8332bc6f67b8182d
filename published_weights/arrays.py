"""Read the tensors of a published file as NumPy arrays, without PyTorch.

Nothing in a file is executed. The pickle of a `.pth` file is scanned first (`pickle_scan`), and then read with a reader
that knows a fixed list of names: containers, and stand-ins for PyTorch's tensors and storages.
"""

import collections
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

from published_weights.contents import is_safetensors, plain_names, state_dict_in
from published_weights.errors import WeightsError
from published_weights.pickle_scan import Unreadable, refuse_code, refuse_other_files

Array = NDArray[Any]
_BF16 = "bfloat16"
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": _BF16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BF16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_arrays(path: Path, name: str = "") -> dict[str, Array]:
    """The tensors of a `.safetensors` or `.pth` file by name: float32, or integers as they are stored.

    Of a training checkpoint only the weights, or their moving average, are returned. The arrays may be views that
    cannot be written to. name: the file's name in messages, if it is not its path.

    Raises WeightsError when the file is missing, damaged, holds code, or has no named tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
            refuse_other_files(start)
            safe = is_safetensors(path, start)
            found = _in_safetensors(path.read_bytes()) if safe else _in_pickle(file, start, path.stat().st_size)
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(
            f"{name or path}: not a file of weights that can be read safely ({reason}); give a .safetensors file, or a "
            ".pth file that holds tensors only"
        ) from error
    return plain_names(found)


def _in_safetensors(data: bytes) -> dict[str, Array]:
    try:
        return {
            name: _typed(bytes(one["data"]), _SAFETENSORS[one["dtype"]]).reshape(one["shape"])
            for name, one in deserialize(data)  # type: ignore[no-untyped-call]
        }
    except Exception as error:
        # safetensors has its own error, and unknown types or wrong shapes raise others.
        raise Unreadable("it is damaged, or not a safetensors file") from error


def _in_pickle(file: BinaryIO, start: bytes, size_bytes: int) -> dict[str, Array]:
    """The tensors of a zip archive as `torch.save` writes it. Raises Unreadable for any other file."""
    if not start.startswith(b"PK"):
        raise Unreadable("it was saved in the form of PyTorch before 1.6, or is damaged: save it again with torch.save")
    try:
        refuse_code(file, start)
        with zipfile.ZipFile(file) as archive:
            tensors = _tensors(archive, size_bytes)
            storages = {one.storage.key: archive.read(one.storage.entry) for one in tensors.values()}
        return {name: one.array(storages[one.storage.key]) for name, one in tensors.items()}
    except Unreadable:
        raise
    except Exception as error:
        # For damaged bytes, pickle, zipfile and NumPy raise many kinds of exceptions.
        raise Unreadable("it is damaged, or not a PyTorch file") from error


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    entry: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor before its values are read. Offset and strides are in elements, as PyTorch stores them."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=object))

    def array(self, data: bytes) -> Array:
        values = _typed(data, self.storage.dtype)
        if min((self.offset, *self.shape, *self.strides), default=0) < 0 or len(self.shape) != len(self.strides):
            raise Unreadable("a tensor has a negative size")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if self.count > len(values) or (self.count and last >= len(values)):
            raise Unreadable("a tensor is larger than its values")
        strides = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


def _typed(data: bytes, dtype: str) -> Array:
    """The values as float32, or as integers."""
    if dtype == _BF16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    values: Array = np.frombuffer(data, dtype)
    return values.astype("<f4") if values.dtype.kind == "f" and values.dtype.itemsize != 4 else values


def _tensors(archive: zipfile.ZipFile, size_bytes: int) -> dict[str, _Tensor]:
    (pickled,) = [name for name in archive.namelist() if name.partition("/")[2] == "data.pkl"]
    data = archive.read(pickled)
    for code, argument, _ in pickletools.genops(data):
        # A large index makes Python's reader allocate a table of that size.
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(str(argument)) > len(data):
            raise Unreadable("it is damaged, or not a PyTorch file")
    content = state_dict_in(_Reader(io.BytesIO(data), pickled.removesuffix("data.pkl")).load())
    if not isinstance(content, dict) or not content:
        raise Unreadable("it holds no state dict")
    if not all(isinstance(key, str) and isinstance(value, _Tensor) for key, value in content.items()):
        raise Unreadable("it holds no state dict: not all of it are named tensors")
    if sum(one.count for one in content.values()) > size_bytes:
        raise Unreadable("its tensors are larger than the file")
    return dict(content)


class _Plain:
    """Takes the place of objects that are read and not used, such as the arguments of the training."""


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_MEANINGS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("argparse", "Namespace"): _Plain,
    ("builtins", "set"): set,
    ("_codecs", "encode"): lambda text, _: str(text).encode("latin-1"),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *_: None,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


class _Reader(pickle.Unpickler):
    """Reads a pickle with the meanings above. Nothing is imported by name."""

    def __init__(self, file: BinaryIO, folder: str) -> None:
        super().__init__(file, encoding="utf-8")
        self._folder = folder

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in _MEANINGS:
            raise Unreadable(f"it holds {module}.{name}, which is not known here"[:120])
        return _MEANINGS[module, name]

    def persistent_load(self, pid: tuple[object, ...]) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, str) or dtype not in _STORAGES.values():
            raise Unreadable("it is damaged, or not a PyTorch file")
        return _Storage(str(key), f"{self._folder}data/{key}", dtype)
