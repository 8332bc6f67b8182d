"""Real exports, when somebody has them: BCCD as CVAT writes it."""

import zipfile
from pathlib import Path

import pytest

from tests.data_prep.conftest import Load


@pytest.mark.real_data
def test_the_real_exports_are_read_whole(real_data: Path, load: Load):
    trainval, test = real_data / "bccd_trainval_cvat_coco.zip", real_data / "bccd_test_cvat_coco.zip"
    local = load(trainval, test=(test,))
    manifest = local.manifest
    assert local.class_names == ("Platelets", "RBC", "WBC")
    counts = manifest.counts
    assert counts["train"].images + counts["val"].images == 292
    assert counts["test"].images == 72
    # Two of the 3,943 boxes of the export have neither width nor height.
    assert [(change.reason, change.count) for change in manifest.changes] == [("box-empty", 2)]
    assert counts["train"].boxes + counts["val"].boxes + 2 == 3943
    assert counts["test"].boxes == 945
    assert 40 <= counts["val"].images <= 48
    with zipfile.ZipFile(trainval) as archive:
        split = local.split("val")
        for index, record in enumerate(split.images):
            assert split.read(index) == archive.read(f"images/default/{record.file_name}")
            assert split.decode(index).size == (record.width, record.height)
