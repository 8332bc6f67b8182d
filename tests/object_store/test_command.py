"""`python -m object_store`: what other processes ask of a store."""

import subprocess
import sys
from pathlib import Path

import pytest

from object_store import open_store


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "object_store", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_folder_goes_below_a_prefix(tmp_path: Path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "config.json").write_text("{}")
    done = ask("put-folder", tmp_path / "out", (tmp_path / "store" / "my runs" / "a").as_uri())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert open_store(tmp_path / "store").get_bytes("my runs/a/model/config.json") == b"{}"


@pytest.mark.usefixtures("s3")
def test_keys_that_are_there_are_printed(bucket: str):
    open_store(f"s3://{bucket}/runs").put_bytes("a-2/finished.json", b"{}")
    done = ask("exists", f"s3://{bucket}/runs", "a/finished.json", "a-2/finished.json", "a-3/finished.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a-2/finished.json\n", "")


def test_what_is_wrong_is_one_line_and_the_errors_exit_code(tmp_path: Path):
    done = ask("put-folder", tmp_path / "nothing", tmp_path / "store")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert ask("exists", "gs://bucket", "key").returncode == 2
