"""Classes are chosen, renamed and merged by name, and each changed box is counted."""

import json
from pathlib import Path

import pytest

from data_prep.changes import ChangeLog
from data_prep.checks.class_choice import ClassChoice, choose_classes, class_choice
from data_prep.errors import DataPrepError
from data_prep.prepare import PrepareRequest, prepare
from object_store import ObjectStore, open_store
from run_config.exit_codes import WRONG_INPUT
from tests.data_prep.export_builder import Export, write_zip
from tests.data_prep.test_cli import data_prep


def traffic() -> Export:
    export = Export(("car", "truck", "bus", "tree"))
    for number in range(12):
        name = export.classes[number % 4]
        export.add(f"{number}.png", [(name, 4, 4, 20, 20), ("tree", 30, 4, 20, 20)])
    return export


def counts(source: Path, store: ObjectStore, choice: ClassChoice) -> tuple[dict[str, int], dict[str, int]]:
    """Boxes by class, and changes by reason."""
    manifest = prepare(PrepareRequest((str(source),), choice=choice), store, lambda *_: b"").manifest
    boxes = [sum(column) for column in zip(*(one.boxes_per_class for one in manifest.counts.values()), strict=True)]
    return dict(zip(manifest.class_names, boxes, strict=True)), {one.reason: one.count for one in manifest.changes}


def test_classes_are_renamed_merged_and_chosen_by_their_new_names(tmp_path: Path, store: ObjectStore):
    source = write_zip(tmp_path / "x.zip", traffic())
    choice = class_choice(["vehicle", "car"], ["truck=vehicle,\nbus = vehicle"])
    boxes, changes = counts(source, store, choice)
    assert boxes == {"car": 3, "vehicle": 6}
    assert changes == {"class-not-chosen": 15, "class-renamed": 6}
    everything, none = counts(source, store, ClassChoice())
    assert (everything, none) == ({"bus": 3, "car": 3, "tree": 15, "truck": 3}, {})


def test_names_can_be_exchanged_and_a_name_may_have_a_comma(tmp_path: Path, store: ObjectStore):
    export = Export(("car", "tree", "sign, red"))
    for number in range(6):
        export.add(f"{number}.png", [("car", 4, 4, 20, 20), ("sign, red", 30, 4, 20, 20)])
    source = write_zip(tmp_path / "x.zip", export)
    boxes, _ = counts(source, store, class_choice([], ['car=tree,tree=car,"sign, red=sign"']))
    assert boxes == {"car": 0, "sign": 6, "tree": 6}
    boxes, _ = counts(source, store, class_choice(['"sign, red"'], []))
    assert boxes == {"sign, red": 6}


@pytest.mark.parametrize(
    ("classes", "class_map", "sentence"),
    [
        (["cars"], [], r"classes: no source has the class 'cars'; did you mean 'car'\?"),
        (["bike"], [], "classes: no source has the class 'bike'; there are 'bus', 'car', 'tree', 'truck'"),
        (["truck"], ["truck=car"], "classes: no source has the class 'truck'"),
        ([], ["trucks=car"], r"class-map: no source has the class 'trucks'; did you mean 'truck'\?"),
        ([], ["truck"], "class-map: 'truck' is not allowed; write OLD=NEW"),
        ([], ["truck="], "class-map: 'truck=' is not allowed"),
        ([], ["truck=a,truck=b"], "class-map: 'truck' gets the names 'a' and 'b'"),
    ],
)
def test_a_wrong_choice_is_a_sentence(
    classes: list[str], class_map: list[str], sentence: str, tmp_path: Path, store: ObjectStore
):
    with pytest.raises(DataPrepError, match=sentence):
        counts(write_zip(tmp_path / "x.zip", traffic()), store, class_choice(classes, class_map))


def test_another_choice_of_the_same_source_is_another_set(tmp_path: Path, store: ObjectStore):
    source = write_zip(tmp_path / "x.zip", traffic())
    assert counts(source, store, class_choice(["car"], []))[0] == {"car": 3}
    assert counts(source, store, class_choice(["bus"], []))[0] == {"bus": 3}


def test_no_choice_leaves_the_exports_alone():
    assert not ClassChoice()
    assert choose_classes([], ClassChoice(), ChangeLog()) == []


def test_a_run_chooses_classes_by_its_parameters(tmp_path: Path):
    source = write_zip(tmp_path / "x.zip", traffic())
    store = open_store(tmp_path / "store")
    parameters = {"classes": "vehicle\ntree", "class-map": "truck=vehicle, bus=vehicle", "annotation-format": "coco"}
    given = {"cvat-annotation-path": str(source), "store": store.url} | parameters
    done = data_prep("prepare", "--parameters-json", json.dumps(given), "--json")
    assert done.returncode == 0, done.stderr
    by_option = data_prep(
        "prepare", source, "--store", store.url, "--classes", "vehicle,tree", "--class-map", "truck=vehicle",
        "--class-map", "bus=vehicle", "--json",
    )  # fmt: skip
    assert json.loads(by_option.stdout)["set"] == json.loads(done.stdout)["set"]
    wrong = data_prep("inspect", source, "--format", "yolo9")
    assert (wrong.returncode, "--format 'yolo9' is not allowed; use auto, coco, " in wrong.stderr) == (
        WRONG_INPUT,
        True,
    )


def test_the_report_shows_what_was_not_chosen(tmp_path: Path):
    source, page = write_zip(tmp_path / "x.zip", traffic()), tmp_path / "page.html"
    done = data_prep("inspect", source, "--classes", "car", "-o", page)
    assert done.returncode == 0, done.stderr
    assert "Boxes have a class that was not chosen." in page.read_text()


@pytest.mark.parametrize(
    ("classes", "class_map", "parameter"), [(["a" * 200_000], [], "classes"), ([], ['"' + "a" * 200_000], "class-map")]
)
def test_a_list_that_is_not_readable_is_refused_with_a_sentence(
    classes: list[str], class_map: list[str], parameter: str
):
    with pytest.raises(DataPrepError, match=f"^{parameter}: the list is not readable"):
        class_choice(classes, class_map)
