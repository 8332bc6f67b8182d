"""Check PyTorch's own files (`.pth`) before they are read, or explain why one cannot be read.

A pickle that names anything except tensors and plain containers is refused, and so is an archive that unpacks to more
than its own size. Nothing is imported or executed, and PyTorch is not needed.
"""

import io
import pickletools
import re
import sys
import zipfile
from typing import BinaryIO

from run_config.foreign_files import saved_by_mistake
from run_config.wording import shortened

LEGACY_PICKLES = 5  # magic number, protocol, machine, content, keys of the storages
# The types in a state dict, an optimizer's state and DETR's command line arguments.
_PLAIN = frozenset(
    {
        "argparse Namespace",
        "builtins set",
        "_codecs encode",
        "collections OrderedDict",
        "torch Size",
        "torch device",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch.nn.parameter Parameter",
    }
)
_STORAGE = re.compile(r"torch \w+Storage|torch\.storage (Untyped|Typed)Storage|torch (u?int|float|bfloat|complex)\w+")
_MOST_NAMED = 3


class Unreadable(Exception):
    """Why a file cannot be read, as the part of a sentence after the file's name."""


def refuse_other_files(start: bytes) -> None:
    """Raise `Unreadable` when a file that begins like this is often saved by mistake instead of weights."""
    if cause := saved_by_mistake(start, binary=True):
        raise Unreadable(cause)


def refuse_code(file: BinaryIO, start: bytes) -> None:
    """Raise `Unreadable` when the pickles in the file name anything but tensors and plain containers."""
    file.seek(0)
    names = _names_in_archive(file) if start.startswith(b"PK") else _names_in_pickles(file, LEGACY_PICKLES)
    other = sorted({name.replace(" ", ".") for name in names if not _is_plain(name)})
    if other:
        raise Unreadable(f"it holds more than plain tensors, which may run code: {_listed(other)}")
    file.seek(0)


def _names_in_archive(file: BinaryIO) -> list[str]:
    """The names in the pickle of a zip archive, the usual format."""
    size = file.seek(0, io.SEEK_END)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise Unreadable("it is damaged or cut short: the end of the archive is missing") from error
    with archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise Unreadable("it unpacks to more than its own size; save it again with torch.save")
        inner = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "constants.pkl" in inner:
            raise Unreadable("it is a TorchScript archive, which holds code: save the model's state_dict() instead")
        if "data.pkl" not in inner:
            raise Unreadable("it is a zip archive without weights")
        if "byteorder" in inner and archive.read(inner["byteorder"]).decode() != sys.byteorder:
            raise Unreadable("it was written on a machine with another byte order: save it again on this one")
        return _names_in_pickles(io.BytesIO(archive.read(inner["data.pkl"])), 1)


def _names_in_pickles(file: BinaryIO, count: int) -> list[str]:
    """The "module name" of each class or function that the pickles name. Nothing is imported."""
    names = []
    for _ in range(count):
        for code, argument, _ in pickletools.genops(file):
            if code.name in ("GLOBAL", "INST"):
                names.append(str(argument))
            elif code.name == "STACK_GLOBAL":
                raise Unreadable("it was pickled in a form that may hold code: save it again with torch.save")
    return names


def _is_plain(name: str) -> bool:
    return name in _PLAIN or _STORAGE.fullmatch(name) is not None


def _listed(names: list[str]) -> str:
    """A few of the names in one line, shortened and cleaned because they are untrusted."""
    return shortened([re.sub(r"[^\w.]", "?", name)[:60] for name in names], _MOST_NAMED)
