"""Folders that break whoever walks them, and names that no text can hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.changes import Reason
from data_prep.errors import SourceError
from data_prep.prepare import PrepareRequest, inspect
from data_prep.report.page import draw_report
from data_prep.sources.find import find_source
from data_prep.sources.names import source_places
from tests.data_prep.export_builder import simple_export, write_folder, write_zip

ODD = os.fsdecode(b"caf\xe9")


def counts(folder: Path) -> dict[str, int]:
    manifest, page = inspect(PrepareRequest((str(folder),)), draw_report)
    page.decode()
    return {change.reason: change.count for change in manifest.changes}


@pytest.mark.parametrize("target", ["000.png", "nothing", "001.png"])
def test_a_link_to_itself_or_to_nothing_is_a_missing_image(target: str, tmp_path: Path):
    folder = write_folder(tmp_path / "export", simple_export(20))
    link = folder / "images/default/000.png"
    link.unlink()
    link.symlink_to(target)
    missing = {} if target == "001.png" else {Reason.IMAGE_MISSING.label: 1}
    assert {name: count for name, count in counts(folder).items() if name == Reason.IMAGE_MISSING.label} == missing


def test_links_that_go_round_in_circles_end(tmp_path: Path):
    folder = write_folder(tmp_path / "export", simple_export())
    (folder / "images/again").symlink_to(folder)
    assert counts(folder) == {}


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    folder = write_folder(tmp_path / "export", simple_export(20))
    os.mkfifo(folder / "images/default/odd.png")
    (folder / "images/default/000.png").unlink()
    os.mkfifo(folder / "images/default/000.png")
    assert counts(folder) == {Reason.IMAGE_MISSING.label: 1}


def test_a_file_name_that_is_not_utf_8_is_reported(tmp_path: Path):
    folder = write_folder(tmp_path / "export", simple_export())
    (folder / f"images/default/{ODD}.png").write_bytes(b"x")
    manifest, page = inspect(PrepareRequest((str(folder),)), draw_report)
    (change,) = manifest.changes
    assert change.examples[0].file == "images/default/caf\ufffd.png"
    assert "caf\ufffd.png" in page.decode()


def test_a_folder_whose_name_is_not_utf_8_is_read(tmp_path: Path):
    folder = write_folder(tmp_path / ODD / "export", simple_export())
    assert counts(folder) == {}
    assert find_source(str(folder)).name.endswith("caf\ufffd/export")


@pytest.mark.parametrize("packed", [True, False])
def test_a_path_that_is_not_utf_8_is_prepared_by_the_command(packed: bool, tmp_path: Path):
    export = simple_export()
    source = write_zip(tmp_path / f"{ODD}.zip", export) if packed else write_folder(tmp_path / ODD, export)
    done = run("prepare", str(source), "--store", f"file://{tmp_path}/store", "--json")
    assert done.returncode == 0, done.stderr
    missing = run("prepare", f"{tmp_path}/no{ODD}", "--store", f"file://{tmp_path}/store")
    assert missing.returncode == 2
    assert b"there is no file or folder" in missing.stderr
    assert b"Traceback" not in missing.stderr


def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "data_prep.cli", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path):
    folder = write_folder(tmp_path / "export", simple_export())
    (folder / "images/default/000.png").chmod(0)
    with pytest.raises(SourceError, match=r"'images/default/000.png' in .* cannot be read \(Permission denied\)"):
        counts(folder)


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-this-name/x", "a\0b"])
def test_what_cannot_be_a_path_is_a_sentence(text: str):
    with pytest.raises(SourceError, match="check the path"):
        source_places([text])
    with pytest.raises(SourceError):
        find_source(text)
