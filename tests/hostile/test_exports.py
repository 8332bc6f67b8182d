"""Mutated exports: `prepare` works or says what is wrong, within bounded memory, and writes only into its store."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.prepare import PrepareRequest, inspect, prepare
from data_prep.report.page import draw_report
from data_prep.report.summary import as_json, as_lines
from object_store import open_store
from prepared_set.reader import PreparedSet
from tests.hostile.exports import mutated_export

CASES, PARTS = 300, 10


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damage that it reads past
@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutated_export_is_prepared_or_refused_with_a_sentence(part: int, tmp_path: Path):
    done = 0
    for seed in range(part, CASES, PARTS):
        folder = tmp_path / str(seed)
        source = mutated_export(seed, folder)
        before = listing(tmp_path)
        try:
            manifest, page = inspect(PrepareRequest((str(source),)), draw_report)
            page.decode()
            "\n".join([as_json(manifest), *as_lines(manifest)]).encode()
            if seed % 3 == 0:
                store = open_store(str(folder / "store"))
                prepared = prepare(PrepareRequest((str(source),)), store, draw_report).manifest
                assert PreparedSet.open(store, prepared.id).manifest.id == manifest.id
            done, sentence = done + 1, "it is prepared"
        except DataPrepError as error:
            sentence = str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert 10 < len(sentence.encode()) < 20_000, f"seed {seed}"
        after = listing(tmp_path)
        assert {path for path in after ^ before if not path.is_relative_to(folder / "store")} == set(), f"seed {seed}"
    assert done >= 2  # not all of them are refused


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_the_same_seed_makes_the_same_export(tmp_path: Path):
    for seed in range(20):
        one, other = (mutated_export(seed, tmp_path / f"{seed}{side}") for side in "ab")
        assert one.is_dir() == other.is_dir()
        if one.is_file():
            assert one.read_bytes()[:200] == other.read_bytes()[:200]


LIMITED = """
import resource, sys
from pathlib import Path
def peak_bytes():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from data_prep.errors import DataPrepError
from data_prep.prepare import PrepareRequest, inspect
from data_prep.report.page import draw_report
from tests.hostile.exports import mutated_export
for seed in range(40):
    try:
        inspect(PrepareRequest((str(mutated_export(seed, Path(sys.argv[1], str(seed)))),)), draw_report)
    except DataPrepError:
        pass
print(peak_bytes() >> 20)
"""


def test_mutated_exports_take_little_memory(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400
