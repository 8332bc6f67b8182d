"""Exports as CVAT writes them, with a few things wrong in each: the seed says which."""

import io
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.data_prep.export_builder import simple_export

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, 2**63, 2**70, -(2**70), float("nan"), float("inf"), "", "7", " 7 ", "x" * 5000,
    "\u0000", "\ud800", "é", "../../x", "/etc/passwd", "{{=1+1}}", "<b>", [], {}, [[]], [1, 2, 3], {"a": {"b": [1]}},
    [0, 0, 1e-9, 1e9], ["1", "2", "3", "4"], [float("nan")] * 4,
)  # fmt: skip
NAMES: tuple[bytes, ...] = (
    b"", b"/", b".", b"./", b"..", b"../x.png", b"/x.png", b"C:/x.png", b"a\\..\\..\\x.png", b"x\0.png",
    b"\xff\xfe.png", b"\xc3\x28.png", "\u202e.png".encode(), b"a" * 300 + b".png", b"-rf", b"{{=1}}.png", b"a//b.png",
    b"CON", b"x\n.png",
)  # fmt: skip
Files = dict[bytes, bytes]


def mutated_export(seed: int, folder: Path) -> Path:
    """An export with one to three faults below `folder`: a zip, or a folder."""
    rng = random.Random(seed)
    export = simple_export(rng.randint(2, 8))
    for _ in range(rng.choice((0, 0, 1, 2))):
        _change_value(rng, export.coco)
    files = {os.fsencode(name): data for name, data in export.files().items()}
    for _ in range(rng.choice((0, 1, 1, 2))):
        rng.choice(_CHANGES)(rng, files)
    folder.mkdir(parents=True, exist_ok=True)
    return _write_folder(rng, files, folder) if rng.random() < 0.4 else _write_zip(rng, files, folder)


def _change_value(rng: random.Random, tree: Any) -> None:
    """Replace, remove or add one value somewhere."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.8:
            tree = tree[key]
            continue
        kind = rng.random()
        if kind < 0.7:
            tree[key] = rng.choice(VALUES)
        elif kind < 0.85:
            del tree[key]
        elif isinstance(tree, dict):
            tree[str(rng.choice(VALUES))[:100]] = rng.choice(VALUES)
        else:
            tree.append(tree[key])
        return


def _annotations(files: Files) -> bytes:
    return next((name for name in files if name.endswith(b".json")), min(files))


def _break_json(rng: random.Random, files: Files) -> None:
    data = files[_annotations(files)]
    depth = rng.choice((50, 1000, 100_000))
    files[_annotations(files)] = rng.choice(
        (
            data[: rng.randrange(len(data) + 1)],
            b"\xef\xbb\xbf" + data,
            data.decode("latin-1").encode("utf-16"),
            data.decode("latin-1").encode("utf-32"),
            data.replace(b'"id"', b'"\\u0069d": 1, "id"', 1),
            data.replace(b'"bbox"', b'"bbox": [1, 2, 3, 4], "bbox"', rng.randint(1, 3)),
            data.replace(b'"images":', b'"images": [], "images":', 1),
            data.replace(b'"iscrowd": 0', b'"iscrowd": ' + b"[" * depth + b"]" * depth, 1),
            data.replace(b'"segmentation": []', b'"segmentation": ' + b'{"a":' * depth + b"1" + b"}" * depth, 1),
            data.replace(b'"occluded"', b'"\xff\xfe"', 1),
            data.replace(b'"area": ', b'"area": -', 1),
            data.replace(b'"width": 64', b'"width": ' + b"9" * 5000, 1),
            data + b"\0" * 100,
            data + data,
            b"",
            b"null",
            b"[" * depth,
            b'{"images": [' + b"{}," * 5000 + b"{}]}",
        )
    )


def _flip_bytes(rng: random.Random, files: Files) -> None:
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    files[name] = bytes(data)


def _replace_image(rng: random.Random, files: Files) -> None:
    images = sorted(name for name in files if not name.endswith(b".json"))
    files[rng.choice(images)] = rng.choice((b"", b"GIF89a", b"%!PS-Adobe-3.0", _claiming(rng), _odd_image(rng)))


def _claiming(rng: random.Random) -> bytes:
    """A bitmap that claims any size."""
    sides = [rng.choice((0, 1, 33_000, 65_535, 2**31 - 1)) for _ in range(2)]
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, *sides, 1, 24, 0, 0, 0, 0, 0, 0)


def _odd_image(rng: random.Random) -> bytes:
    file = io.BytesIO()
    mode, form = rng.choice(
        (("F", "TIFF"), ("I", "TIFF"), ("1", "PNG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP"))
    )
    Image.new(mode, (rng.randint(1, 200), rng.randint(1, 200))).save(file, form)
    return file.getvalue()


def _add_name(rng: random.Random, files: Files) -> None:
    files[rng.choice((b"", b"images/default/", b"annotations/")) + rng.choice(NAMES)] = b"x"


def _rename(rng: random.Random, files: Files) -> None:
    name = rng.choice(sorted(files))
    files[rng.choice((b"", name.rpartition(b"/")[0] + b"/")) + rng.choice(NAMES)] = files.pop(name)


_CHANGES: tuple[Callable[[random.Random, Files], None], ...] = (
    _break_json, _break_json, _flip_bytes, _replace_image, _add_name, _add_name, _rename,
)  # fmt: skip


class _Entry(zipfile.ZipInfo):
    """Python's own cannot be written without a name: it looks at its last letter."""

    def is_dir(self) -> bool:
        return False


def _write_zip(rng: random.Random, files: Files, folder: Path) -> Path:
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for number, (name, data) in enumerate(files.items()):
            # Python writes no name that is not text: one of the same length stands for it.
            entry = _Entry(f"{number:0{max(len(name), 4)}}"[: len(name)])
            entry.external_attr = rng.choice((0o100644,) * 20 + (0o120777, 0o010644, 0)) << 16
            archive.writestr(entry, data, compress_type=archive.compression)
            entry.flag_bits |= rng.choice((0, 0x800, 0x800, 0x800))
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x05\x06")
    central = struct.unpack_from("<I", data, at + 16)[0]
    for name in files:
        place = struct.unpack_from("<I", data, central + 42)[0]
        data[central + 46 : central + 46 + len(name)] = name
        data[place + 30 : place + 30 + len(name)] = name
        # The flag says whether the name is UTF-8: it does so here whatever the name is.
        data[place + 7] = data[central + 9]
        central += 46 + sum(struct.unpack_from("<HHH", data, central + 28))
    if rng.random() < 0.3:
        start = rng.choice((0, at, struct.unpack_from("<I", data, at + 16)[0]))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(start, len(data))] = rng.choice((0, 1, 99, 255))
    path.write_bytes(data[: rng.choice((len(data),) * 9 + (rng.randrange(len(data)),))])
    return path


def _write_folder(rng: random.Random, files: Files, folder: Path) -> Path:
    root = folder / "export"
    for name, data in files.items():
        path = Path(os.path.normpath(root / os.fsdecode(name.lstrip(b"/"))))
        if root not in path.parents or b"\0" in name or len(os.fsencode(path.name)) > 255 or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    odd = root / "images" / rng.choice(("default/000.png", "odd.png", os.fsdecode(b"caf\xe9.png")))
    target = rng.choice((odd, root, Path("/etc/hostname"), Path("nothing"), None, None))
    if target is None and rng.random() < 0.7:
        return root
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.unlink(missing_ok=True)
    if target is None:
        os.mkfifo(odd)
    else:
        odd.symlink_to(target)
    return root
