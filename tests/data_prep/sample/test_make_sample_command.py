"""`data-prep make-sample` as `make run` calls it."""

import json
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).parent / "data-prep"


def test_a_sample_is_drawn_once(tmp_path: Path):
    command = [COMMAND, "make-sample", tmp_path / "my sample", "--images", "4", "--json"]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(2))
    assert "drawing sample images: 4 images" in first.stderr
    assert second.stderr == ""
    files = json.loads(first.stdout)
    assert files == {
        "trainval": f"{tmp_path}/my sample/sample_trainval.zip",
        "test": f"{tmp_path}/my sample/sample_test.zip",
        "reused": False,
    }
    assert json.loads(second.stdout) == files | {"reused": True}
