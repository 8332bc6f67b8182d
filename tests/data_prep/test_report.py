"""The report page: self-contained, safe with hostile names, and true."""

import html
import re
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_prep import findings
from data_prep.prepare import PrepareRequest, inspect
from data_prep.report.page import draw_report
from data_prep.report.preset_groups import preset_groups
from prepared_set.manifest import Manifest, Options
from run_config.families.detr import DetrModel
from run_config.families.tiny import TinyModel
from run_config.job.preset_files import presets_on_offer
from tests.data_prep.export_builder import Export, simple_export, write_zip

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def page_of(tmp_path: Path, *exports: Export, test: Export | None = None, **options: object) -> tuple[Manifest, str]:
    sources = [str(write_zip(tmp_path / f"{number}.zip", export)) for number, export in enumerate(exports)]
    tests = (str(write_zip(tmp_path / "test.zip", test)),) if test is not None else ()
    manifest, page = inspect(PrepareRequest(tuple(sources), test=tests, options=Options(**options)), draw_report)
    return manifest, page.decode()


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def test_hostile_names_are_shown_not_run(tmp_path: Path):
    export = simple_export(classes=(HOSTILE, "dog"))
    safe_on_disk = HOSTILE.replace("/", "|")
    export.add(f"{safe_on_disk}.png", [(HOSTILE, 1, 2, 10, 12)])
    export.add("b.png", [("dog", 60, 2, 10, 12)], attributes={"track_id": HOSTILE})
    export.coco["annotations"][-1]["id"] = HOSTILE
    _, source = page_of(tmp_path, export)
    page = Page(source)
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "link"} == set()
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in "".join(page.words)
    assert html.escape(HOSTILE, quote=False) not in source or "<script" not in source


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path):
    _, source = page_of(tmp_path, simple_export())
    page = Page(source)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("href", "src")]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert "url(" not in source
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_says_what_the_manifest_says(tmp_path: Path):
    export = simple_export(60)
    export.add("x.png", [("cat", 50, -5, 20, 35), ("cat", 10, 10, 0, 0)])
    manifest, source = page_of(tmp_path, export, test=simple_export(6, prefix="t"))
    text = Page(source).text
    total = sum(counts.boxes for counts in manifest.counts.values())
    assert f"67 images, {total} boxes, 2 classes" in text
    assert manifest.id in text
    for counts in manifest.counts.values():
        assert f"Boxes {counts.boxes} " in text
    assert "dropped 1 Boxes had no width or no height." in text
    assert "mended 1 Boxes reached over the edge of their image" in text
    assert "bbox [50, -5, 20, 35] in 64x48" in text
    for warning in manifest.warnings:
        assert warning in text


def test_a_set_in_order_says_that_nothing_was_changed(tmp_path: Path):
    _, source = page_of(tmp_path, simple_export(200), test=simple_export(12, prefix="t"))
    text = Page(source).text
    assert "Nothing: all images and boxes are as exported." in text
    assert "No warnings." in text


def test_samples_show_each_class_and_an_image_without_boxes(tmp_path: Path):
    classes = tuple(f"class {number}" for number in range(6))
    export = Export(classes)
    for number in range(60):
        export.add(f"{number}.png", [] if number % 9 == 8 else [(classes[0 if number > 6 else number % 6], 3, 3, 9, 9)])
    _, source = page_of(tmp_path, export, val_fraction=0)
    page = Page(source)
    assert "no boxes" in page.text
    captions = page.text.split("Samples")[1].split("What was changed")[0]
    assert sum(f"class {number} 1" in captions for number in range(6)) >= 5


def test_drawn_boxes_are_in_the_images_own_pixels(tmp_path: Path):
    export = Export()
    export.add("x.png", [("cat", 10, 20, 30, 15)])
    _, source = page_of(tmp_path, export)
    page = Page(source)
    drawing = next(a for tag, a in page.tags if tag == "svg" and a["viewbox"] == "0 0 64 48")
    box = next(a for tag, a in page.tags if tag == "rect" and "box" in (a["class"] or ""))
    assert drawing["role"] == "img"
    assert [box[key] for key in ("x", "y", "width", "height")] == ["10.0", "20.0", "30.0", "15.0"]


def test_a_large_crowded_set_stays_below_two_megabytes(tmp_path: Path):
    classes = tuple(f"a class with a rather long name, number {number}" for number in range(300))
    export = Export(classes)
    for number in range(24):
        boxes = [(classes[(number * 31 + k) % 300], k % 60, k // 60, 4, 4) for k in range(400)]
        export.add(f"{number}.jpg", boxes, size=(900, 600))
    manifest, source = page_of(tmp_path, export)
    assert len(source) < 2_000_000
    assert any("24 images have more than 300 boxes" in warning for warning in manifest.warnings)
    assert "the 300 largest boxes are drawn" in Page(source).text


def test_the_same_set_gives_the_same_page(tmp_path: Path):
    export = simple_export(30)
    assert page_of(tmp_path / "a", export) == page_of(tmp_path / "b", export)


@pytest.mark.parametrize(
    ("exports", "test", "warning"),
    [
        ([simple_export(20)], None, "Only 22 boxes: label at least some hundred for useful results."),
        ([simple_export(20)], None, "Only 3 images for validation"),
        ([simple_export(20)], None, "No test images: the validation metrics are optimistic"),
        ([simple_export(20)], None, "Fewer than 50 training boxes: cat ("),
        ([simple_export(20)], simple_export(4, ("cat", "emu"), prefix="t"), "No boxes in val: emu."),
        (
            [simple_export(20)],
            simple_export(4, ("cat", "Cat"), prefix="t"),
            "differ only in upper and lower case",
        ),
        ([simple_export(20)], simple_export(4, ("yak", "gnu"), prefix="t"), "No boxes in train: gnu, yak."),
        (
            [simple_export(20, ("cat", "dog"))],
            simple_export(4, ("cat", "dog", "emu"), prefix="t"),
            "No boxes in train: emu",
        ),
    ],
)
def test_warnings_name_what_to_mind(exports: list[Export], test: Export | None, warning: str, tmp_path: Path):
    manifest, _ = page_of(tmp_path, *exports, test=test)
    assert any(warning in one for one in manifest.warnings), manifest.warnings


@pytest.mark.parametrize(
    ("boxes", "warning"),
    [
        (60, ""),
        (61, ("1 image has more than 60 boxes (up to 61 on x.png): the queries of tiny (60) cannot find them all, set "
             "model.queries=81 or more.")),
        (400, ("1 image has more than 100 boxes (up to 400 on x.png): the queries of detr (100) and tiny (60) cannot "
              "find them all, set model.queries=420 or more.")),
    ],
)  # fmt: skip
def test_a_crowded_image_names_the_number_of_queries(
    boxes: int, warning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(findings, "FAMILIES", {"detr": DetrModel, "tiny": TinyModel})
    export = Export()
    export.add("x.png", [("cat", k % 60, k // 60, 4, 4) for k in range(boxes)])
    manifest, _ = page_of(tmp_path, export)
    assert [one for one in manifest.warnings if "queries" in one] == ([warning] if warning else [])


def test_a_class_without_any_box_is_named(tmp_path: Path):
    export = Export(("cat", "dog", "ghost"))
    for number in range(8):
        export.add(f"{number}.png", [("cat", 1, 2, 10, 12), ("dog", 5, 6, 10, 12)])
    manifest, _ = page_of(tmp_path, export)
    assert "No boxes in the whole set: ghost." in manifest.warnings


def test_the_page_names_presets_as_a_person_types_them(tmp_path: Path):
    text = Page(page_of(tmp_path, simple_export(12))[1]).text
    limits = "detr-* 100, tiny 60, rf-detr-* 300, d-fine-* 300, deformable-detr-* 300, faster-rcnn-* 100"
    assert f"the models find at most this many per image: {limits}." in text
    assert "Not in the table: deformable-detr-* and faster-rcnn-*, whose cell is not known." in text


def test_the_pattern_of_a_family_fits_all_its_presets_and_no_other():
    groups = preset_groups()
    for group, presets in groups.items():
        assert [name for name in presets_on_offer() if fnmatch(name, group)] == presets
