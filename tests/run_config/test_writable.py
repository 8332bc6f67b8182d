"""A place that will be written is tried before the work, and left as it was."""

import errno
import os
from pathlib import Path

import pytest

from run_config.errors import ConfigError
from run_config.writable import require_writable


def complaint(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        require_writable(folder, "--out")
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert said.startswith(f"--out: {folder} cannot be written: ")
    return said


@pytest.mark.parametrize("below", ["", "new", "new/and/deeper"])
def test_a_good_folder_is_left_as_it_was(tmp_path: Path, below: str):
    require_writable(tmp_path / below, "--out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    assert "a file is in the way" in complaint(tmp_path / "file")
    assert "a file is in the way" in complaint(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_names_that_are_too_long_or_impossible_are_said(tmp_path: Path):
    assert "choose a shorter path" in complaint(tmp_path / ("x" * 300))
    assert "embedded null" in complaint(tmp_path / "a\0b")


def test_a_folder_of_the_kernel_is_said():
    complaint(Path("/proc/results"))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "Disk quota exceeded; free some of your quota"),
        (errno.EROFS, "Read-only file system; choose a folder on a disk that can be written"),
        (errno.EACCES, "Permission denied; check the owner and the permissions"),
        (errno.EIO, "Input/output error; choose another folder"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_what_the_system_refuses_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str, call: str
):
    """Root may write where others may not, so the system's answers are given here."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    said = complaint(tmp_path / "new")
    monkeypatch.undo()
    assert advice in said
    assert list(tmp_path.iterdir()) == []
