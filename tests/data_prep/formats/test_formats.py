"""What the registry of annotation formats promises to a format, and a format to the rest of the package."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from data_prep.changes import ChangeLog, Reason
from data_prep.errors import AnnotationError, SourceError
from data_prep.export_reader import ReadingRules, read_export
from data_prep.formats import registry
from data_prep.formats.coco import Coco
from data_prep.formats.record import Annotation, Annotations, ListedImage
from data_prep.sources.archive import ZipExport
from data_prep.sources.files import ExportFiles
from data_prep.sources.find import find_source
from object_store import ObjectStore, open_store
from run_config.automatic_boxes import AutomaticBoxes
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture, simple_export, write_zip

ROOT = Path(__file__).parents[3]
SCHEMA = "cards 3"
CLASSES = {"gear": frozenset({7}), "bolt": frozenset()}
OUTLINE = [[2.0, 2.0, 20.0, 2.0, 20.0, 20.0]]


class Cards:
    """A format of this test's own: `cards.json`, recognised by what it says of itself."""

    name = "Cards 3.0"
    looks_like = "cards.json"

    def roots(self, files: ExportFiles) -> list[str]:
        found = [path for path in files.sizes if path.rpartition("/")[2] == "cards.json"]
        right = [path for path in found if json.loads(files.read(path, 1 << 20)).get("schema") == SCHEMA]
        return [path.removesuffix("cards.json") for path in right]

    def own_files(self, files: ExportFiles) -> list[str]:
        return sorted(files.sizes)

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        cards = json.loads(files.read("cards.json", 1 << 20))["cards"]
        for card in cards:
            for one in [one for one in card["things"] if one["is"] not in CLASSES]:
                card["things"].remove(one)
                changes.add(Reason.UNKNOWN_CATEGORY, card["file"], detail=one["is"])
        images = [
            ListedImage(
                card["file"], ("photos/",), card["part"], "cards.json",
                [self._annotation(number, one) for number, one in enumerate(card["things"])],
                recording=card.get("film"),
            )
            for card in cards
        ]  # fmt: skip
        return Annotations(images, CLASSES)

    def _annotation(self, number: int, one: dict) -> Annotation:
        return Annotation(
            one["is"],
            tuple(one["at"]) if "at" in one else None,
            place=f"line {number + 1}",
            rotation=one.get("turned", 0.0),
            outline=msgspec.Raw(json.dumps(one.get("outline", [])).encode()),
            area=one.get("area"),
            track_id=one.get("track"),
            source=one.get("by"),
            attributes=msgspec.Raw(json.dumps(one.get("notes", {})).encode()),
        )


def card_files(cards: Sequence[dict]) -> dict[str, bytes]:
    """A source in the made-up format."""
    pictures = {f"photos/{card['file']}": picture(card["file"]) for card in cards}
    return {"cards.json": json.dumps({"schema": SCHEMA, "cards": cards}).encode()} | pictures


CARDS = [
    {"file": "a.png", "part": "train", "things": [{"is": "gear", "at": [10, 10, 20, 8], "turned": 90.0, "by": "auto"}]},
    {
        "file": "b.png",
        "part": "train",
        "things": [{"is": "bolt", "at": [1, 1, 9, 9], "notes": {"z": 1, "a": "x"}}, {"is": "nut"}],
    },
    {"file": "c.png", "part": "train", "things": [{"is": "bolt"}, {"is": "gear", "at": [2, 2, 0, 5]}]},
    {"file": "d.png", "part": "val", "things": [{"is": "bolt", "at": [1, 1, 20, 20], "outline": OUTLINE, "area": 162}]},
]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Cards:
    """The made-up format, registered."""
    added = Cards()
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, added))
    return added


@pytest.mark.usefixtures("cards")
def test_a_registered_format_goes_through_to_a_prepared_set(tmp_path: Path, load: Load):
    local = load(
        write_zip(tmp_path / "cards.zip", **card_files(CARDS)), rules=ReadingRules(automatic_boxes=AutomaticBoxes.KEEP)
    )
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("bolt", ()), ("gear", (7,))]
    assert [record.file_name for record in local.split("train").images] == ["a.png", "b.png", "c.png"]
    turned, plain, none = local.split("train").images
    assert turned.boxes.tolist() == [[16, 4, 24, 24]], "the upright box around the turned one"
    assert (plain.width, plain.height, len(none.boxes)) == (64, 48, 0)
    train = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert [one["attributes"] for one in train] == [{}, {"a": "x", "z": 1}]
    (val,) = json.loads((local.root / "annotations/val.json").read_bytes())["annotations"]
    assert (val["segmentation"], val["area"]) == (OUTLINE, 162)
    changes = {change.reason: change for change in local.manifest.changes}
    assert set(changes) == {
        "unknown-category", "box-not-a-number", "box-empty", "box-rotated", "image-size-unknown",
    }  # fmt: skip
    assert changes["box-not-a-number"].examples[0].annotation_id == "line 1"
    assert changes["box-empty"].examples[0].detail == "bbox (2, 2, 0, 5)"


def test_the_record_keeps_what_a_prepared_set_has_no_place_for(tmp_path: Path, cards: Cards):
    path = write_zip(tmp_path / "cards.zip", **card_files(CARDS))
    with find_source(str(path)).open(tmp_path) as files:
        images = cards.read(files, ChangeLog()).images
    (first,) = images[0].annotations
    assert (first.source, first.rotation, first.box) == ("auto", 90.0, (10, 10, 20, 8))


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize("tie", ["film", "track"])
def test_frames_of_one_recording_and_boxes_of_one_track_are_not_split(tie: str, load: Load, tmp_path: Path):
    """Ten images, in five pairs that belong together: none is both in train and in val."""
    made = [
        {
            "file": f"{number}.png", "part": "default", **({"film": f"f{number // 2}"} if tie == "film" else {}),
            "things": [{"is": "gear", "at": [1, 1, 9, 9], "track": f"t{number // 2}" if tie == "track" else None}],
        }
        for number in range(10)
    ]  # fmt: skip
    local = load(write_zip(tmp_path / "cards.zip", **card_files(made)), val_fraction=0.4)
    of_val = sorted(int(Path(record.file_name).stem) for record in local.split("val").images)
    assert len(of_val) == 4
    assert [number ^ 1 for number in of_val[::2]] == of_val[1::2]


@pytest.mark.usefixtures("cards")
def test_two_images_of_one_annotation_file_cannot_be_the_same_file(tmp_path: Path, run_prepare: Prepare):
    twice = write_zip(tmp_path / "cards.zip", **card_files([CARDS[0], CARDS[0]]))
    with pytest.raises(AnnotationError, match=r"'a.png' and 'a.png' are the same file 'photos/a.png'"):
        run_prepare(twice)


def test_a_source_that_no_format_recognises_is_told_which_there_are(
    tmp_path: Path, run_prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    source = write_zip(tmp_path / "x.zip", **{"cards.txt": b"other"})
    monkeypatch.setattr(registry, "FORMATS", (Coco(),))
    with pytest.raises(SourceError) as refusal:
        run_prepare(source)
    assert str(refusal.value) == (
        f"{source} has no annotations/instances_*.json: it must be a CVAT export in the format 'COCO 1.0', "
        "packed or unpacked"
    )
    monkeypatch.setattr(registry, "FORMATS", (Coco(), Cards()))
    with pytest.raises(SourceError) as refusal:
        run_prepare(source)
    assert str(refusal.value) == (
        f"{source} has no annotations/instances_*.json or cards.json: it must be a CVAT export in the format "
        "'COCO 1.0' or 'Cards 3.0', packed or unpacked"
    )


@pytest.mark.usefixtures("cards")
def test_a_source_that_two_formats_recognise_is_refused(tmp_path: Path, run_prepare: Prepare):
    both = write_zip(tmp_path / "x.zip", simple_export(), **card_files(CARDS))
    with pytest.raises(SourceError) as refusal:
        run_prepare(both)
    assert str(refusal.value) == (
        f"{both} holds annotations in several formats ('COCO 1.0' and 'Cards 3.0') of the same files: keep the files "
        "of one of them, or pass --format coco"
    )


@pytest.mark.usefixtures("cards")
def test_a_format_may_look_into_a_file_that_lies_in_a_bucket(bucket: str, load: Load, tmp_path: Path):
    remote: ObjectStore = open_store(f"s3://{bucket}/dump", retry_for_s=0)
    for name, data in card_files(CARDS).items():
        remote.put_bytes(name, data)
    assert load(remote.url).id == load(write_zip(tmp_path / "cards.zip", **card_files(CARDS))).id
    remote.put_bytes("cards.json", b'{"schema": "other"}')
    with pytest.raises(SourceError, match=r"holds 'cards.json': it looks like another JSON format"):
        find_source(remote.url)


def test_of_coco_the_record_has_all_that_cvat_writes(tmp_path: Path):
    export = Export(("cat", " dog "), subset="Train")
    first = export.add("clip/frame_000001.png")
    export.annotate(first, ("cat", 1, 2, 30, 4.5), attributes={"rotation": 30, "track_id": 7, "keyframe": True})
    export.annotate(first, (" dog ", 1, 2, 3, 4), segmentation=OUTLINE, iscrowd=1, attributes={"rotation": 30})
    export.annotate(first, ("cat", 1, 2, 3, 4))["bbox"] = ["1", 2, 3, 4]
    export.annotate(first, ("cat", 1, 2, 3, 4))["bbox"] = [None, 2, 3, 4]
    path = write_zip(tmp_path / "x.zip", export)
    with find_source(str(path)).open(tmp_path) as files:
        read = Coco().read(files, ChangeLog())
        changes = ChangeLog()
        (found,) = registry.find_exports(files)
        (built,) = read_export(found, changes).images
    (image,) = read.images
    assert (image.file_name, image.subset, image.width, image.height) == ("clip/frame_000001.png", "Train", 64, 48)
    assert (image.folders, image.listed_in) == (("images/Train/", "images/", ""), "annotations/instances_Train.json")
    assert read.classes == {"cat": {1}, "dog": {2}}
    rectangle, polygon, as_text, broken = image.annotations
    assert (rectangle.class_name, rectangle.box, rectangle.rotation, rectangle.track_id, rectangle.place) == (
        "cat", (1, 2, 30, 4.5), 30, "7", 1,
    )  # fmt: skip
    assert msgspec.json.decode(rectangle.attributes) == {
        "occluded": False, "rotation": 30, "track_id": 7, "keyframe": True,
    }  # fmt: skip
    assert (polygon.class_name, polygon.rotation, polygon.area, polygon.is_crowd) == ("dog", 0, 12, True)
    assert msgspec.json.decode(polygon.outline) == OUTLINE
    assert (as_text.box, as_text.box_was_text) == ((1, 2, 3, 4), True)
    assert (broken.box, broken.box_as_written) == (None, [None, 2, 3, 4])
    assert [one.source for one in image.annotations] == [None] * 4, "they can be gone through again"
    assert (built.recording, built.tracks) == ("clip", {"7"})
    assert changes.count(Reason.BOX_ROTATED, Reason.CROWD, Reason.TEXT_NUMBER, Reason.BOX_NOT_A_NUMBER) == 4


def test_cvats_name_of_the_format_stands_in_one_module():
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    naming = [path for package in packages for path in package.rglob("*.py") if Coco.name in path.read_text()]
    assert [path.relative_to(ROOT).as_posix() for path in naming] == ["run_config/cvat_formats.py"]


def test_a_json_file_of_any_name_is_read_once_to_recognise_it_and_once_for_its_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export = simple_export()
    coco = json.dumps(export.coco).encode()
    path = write_zip(tmp_path / "x.zip", **{"result.json": coco, **export.pictures})
    read: list[str] = []
    inner = ZipExport.read
    monkeypatch.setattr(ZipExport, "read", lambda self, name, limit: (read.append(name), inner(self, name, limit))[1])
    with find_source(str(path)).open(tmp_path) as files:
        (found,) = registry.find_exports(files)
        found.own_files()
        found.format.read(files, ChangeLog())
    assert read == ["result.json"] * 2
