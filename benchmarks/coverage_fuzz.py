"""Coverage-guided fuzzing of the readers that take bytes, with atheris where a wheel of it installs.

    python -m benchmarks.coverage_fuzz [--reader json-marks] [--runs 20000] [--atheris PYTHON]

Atheris goes into a temporary environment that also sees the packages of this one; `--atheris` names the Python of an
existing one. A reader must accept its bytes or refuse them with one of our own errors. Prints one line for each reader;
at any other exception atheris prints the traceback and the bytes, and the benchmark stops.
"""

import io
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer


@dataclass
class BytesAsFiles:
    """A source whose only file has the given bytes."""

    path: str
    data: bytes
    shown_name: str = "fuzz"
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = {self.path: len(self.data)}

    def __hash__(self) -> int:
        return id(self)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of the file."""
        return self.data[:limit] if name == self.path else b""

    def close(self) -> None:
        """Nothing to close."""


def json_marks(data: bytes) -> None:
    """Recognise COCO by the start of a JSON file, and read it."""
    from data_prep.changes import ChangeLog
    from data_prep.formats.coco_file import parse_coco
    from data_prep.formats.json_marks import may_be_coco

    may_be_coco(BytesAsFiles("a.json", data), "a.json")
    parse_coco(data, "a.json", ChangeLog())


def yaml(data: bytes) -> None:
    """Read a `data.yaml`."""
    from data_prep.formats.ultralytics import read_mapping

    read_mapping(BytesAsFiles("data.yaml", data), "data.yaml")


def xml(data: bytes) -> None:
    """Read CVAT's XML."""
    from data_prep.changes import ChangeLog
    from data_prep.formats.cvat_images import CvatImages

    files = BytesAsFiles("annotations.xml", data)
    if CvatImages().roots(files):
        for image in CvatImages().read(files, ChangeLog()).images:
            list(image.annotations)


def tfrecord(data: bytes) -> None:
    """Read one `tf.train.Example`, in a frame whose checksum is right."""
    from data_prep.changes import ChangeLog
    from data_prep.formats.tfrecord import TfRecord, masked_crc

    length = len(data).to_bytes(8, "little")
    framed = length + masked_crc(length).to_bytes(4, "little") + data + bytes(4)
    TfRecord().read(BytesAsFiles("a.tfrecord", framed), ChangeLog())


def zip_names(data: bytes) -> None:
    """Open a zip whose bytes, among them names and flags, are given."""
    from data_prep.sources.archive import ZipExport

    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        file.write(data)
        file.flush()
        archive = ZipExport(Path(file.name), "a.zip")
        try:
            for name in archive.sizes:
                archive.read(name, 1 << 20)
        finally:
            archive.close()


def exif(data: bytes) -> None:
    """Decode a JPEG with a given EXIF block."""
    from data_prep.image_check import check_image

    head = b"\xff\xd8\xff\xe1" + (len(data[:60_000]) + 8).to_bytes(2, "big") + b"Exif\0\0" + data[:60_000]
    check_image(head + _jpeg()[2:])


def _jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images/a.png", b"x" * 20)
    return file.getvalue()


READERS: Mapping[str, tuple[Callable[[bytes], None], Callable[[], bytes]]] = {
    "json-marks": (json_marks, lambda: b'{"images":[{"id":1,"file_name":"a.png"}],"annotations":[],"categories":[]}'),
    "yaml": (yaml, lambda: b"train: images/train\nnames: {0: car}\n"),
    "xml": (xml, lambda: b'<annotations><image id="0" name="a.png" width="4" height="4"></image></annotations>'),
    "tfrecord": (tfrecord, lambda: b"\x0a\x10\x0a\x0e\x0a\x05image\x12\x05\x0a\x03\x0a\x01x"),
    "zip-names": (zip_names, _zip),
    "exif": (exif, lambda: b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
}
"""Name → the function that reads bytes, and bytes to start from."""


def read_one(reader: str, data: bytes) -> None:
    """Read bytes. Raises what is no refusal."""
    try:
        READERS[reader][0](data)
    except Exception as error:
        if getattr(error, "exit_code", None) != 2:
            raise


def environment(folder: Path) -> str | None:
    """The Python of a new environment with atheris, which sees this environment's packages. None: it cannot be had."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "atheris"]
    return None if subprocess.run(install, check=False).returncode else python


def main(reader: str = "", runs: int = 20_000, atheris: str = "") -> None:
    """Fuzz the readers, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="coverage-fuzz-") as name:
        python = atheris or environment(Path(name, "atheris"))
        if python is None:
            version = ".".join(map(str, sys.version_info[:2]))
            print(f"no wheel of atheris installs for Python {version} here: left out")
            return
        for one in [reader] if reader else READERS:
            start = Path(name, one)
            start.mkdir()
            (start / "first").write_bytes(READERS[one][1]())
            paths = [str(Path.cwd()), sysconfig.get_path("purelib")]
            script = f"import sys\nsys.path += {paths!r}\nfrom benchmarks.coverage_fuzz import fuzz\n"
            script += f"fuzz({one!r}, {runs}, {str(start)!r})"
            done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\n{one}: exit code {done.returncode}")
            print(f"{one}: {runs:,} inputs, each accepted or refused in one sentence", flush=True)


def fuzz(reader: str, runs: int, corpus: str) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris  # type: ignore[import-not-found]  # in an environment of its own

    with atheris.instrument_imports(include=["data_prep"]):
        for one in ("coco", "json_marks", "ultralytics", "cvat_images", "tfrecord"):
            __import__(f"data_prep.formats.{one}")
    options = [reader, f"-runs={runs}", "-timeout=30", "-rss_limit_mb=2048", "-verbosity=0", corpus]
    atheris.Setup(options, lambda data: read_one(reader, data))
    atheris.Fuzz()


if __name__ == "__main__":
    typer.run(main)
