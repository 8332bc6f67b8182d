"""The report step on sets and runs made by code, read and written through a real store and real processes."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evaluation.coco import evaluate_boxes
from evaluation.errors import PredictionsError, RunError
from evaluation.metrics import Metrics
from evaluation.page import (
    MAX_CONFUSION_CLASSES,
    breakable,
    confusion_view,
    flat,
    loss_title,
    of_hundred,
    run_details,
    run_facts,
    share,
)
from evaluation.report import Report, write_report
from evaluation.run_files import parse_log
from tests.evaluation.datasets import Coco, Predictions, random_coco
from tests.evaluation.runs import RUN, SET_ID, folder_store, predictions_document, put_run, put_set

PREFIX = "runs/detr-train-x7k2p"
HOSTILE = "<script>alert(1)</script>$\\frac{a}$ & \"'\u202eabc"
VOID = {"meta", "img", "br", "link", "wbr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def reported(tmp_path: Path, splits: dict[str, tuple[Coco, Predictions]], **run: Any) -> tuple[Report, Page]:
    store = folder_store(tmp_path / "store")
    put_set(store, {name: coco for name, (coco, _) in splits.items()})
    put_run(store, PREFIX, splits, **run)
    report = write_report(store, SET_ID, PREFIX, tmp_path / "out", tmp_path / "scratch")
    return report, Page(report.page_path.read_text())


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def assert_self_contained(page: Page, path: Path) -> None:
    assert page.count("script") == 0
    head = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert [each["content"] for each in head if each.get("http-equiv") == "Content-Security-Policy"] == [POLICY]
    assert path.stat().st_size < 5_000_000
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/jpeg;base64,")), target


def test_the_step_writes_metrics_the_page_and_the_outputs(tmp_path: Path) -> None:
    val, test = random_coco(4, images=8, classes=3), random_coco(3, images=14, classes=3)
    report, page = reported(tmp_path, {"val": val, "test": test})
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "metrics.json",
        "outputs/ap",
        "outputs/ap50",
        "report/index.html",
    ]
    expected = evaluate_boxes(*test)
    assert float((out / "outputs" / "ap").read_text()) == pytest.approx(expected.ap, abs=1e-6)
    assert float((out / "outputs" / "ap50").read_text()) == pytest.approx(expected.ap50, abs=1e-6)
    metrics = msgspec.json.decode(report.metrics_path.read_bytes(), type=Metrics)
    assert metrics == report.metrics
    assert (metrics.run, metrics.set_id, metrics.headline) == ("detr-train-x7k2p", SET_ID, "test")
    assert metrics.splits["val"].coco == evaluate_boxes(*val).numbers()
    assert_self_contained(page, report.page_path)
    assert share(expected.ap) in page.text
    assert "On 14 test images" in page.text
    for said in ("cpu, 2 threads", "1,934,212", "training.seed", "Accuracy on the validation images", "1,200"):
        assert said in page.text
    pictures = [attributes for tag, attributes in page.tags if tag == "image"]
    assert len(pictures) == page.count("use") >= 12
    assert len({attributes["id"] for attributes in pictures}) == len(pictures)


def test_without_a_test_split_the_page_is_about_validation_and_says_so(tmp_path: Path) -> None:
    report, page = reported(tmp_path, {"val": random_coco(4, images=6, classes=3)})
    assert report.metrics.headline == "val"
    assert "There is no test split" in page.text


def test_a_model_that_finds_nothing_gets_a_page_that_says_so(tmp_path: Path) -> None:
    report, page = reported(tmp_path, {"test": (random_coco(4, images=6, classes=3)[0], [])}, log=b"", run=None)
    assert_self_contained(page, report.page_path)
    assert (tmp_path / "out" / "outputs" / "ap").read_text() == "0.000000"
    for said in ("The model found none of the", "no training curve", "has no run.json", "no prediction is right"):
        assert said in page.text
    assert "Fewest errors" not in page.text


@pytest.mark.parametrize("images", [0, 3])
def test_a_split_without_objects_gets_a_page(tmp_path: Path, images: int) -> None:
    coco, _ = random_coco(4, images=images, classes=2, objects=0)
    found = [{"image_id": 1, "category_id": 0, "bbox": [5, 5, 50, 50], "score": 0.7}] if images else []
    report, page = reported(tmp_path, {"test": (coco, found)})
    assert_self_contained(page, report.page_path)
    assert "show no object" in page.text
    assert (tmp_path / "out" / "outputs" / "ap").read_text() == "-1.000000"


def test_a_dense_split_names_both_limits(tmp_path: Path) -> None:
    coco, predictions = random_coco(5, images=2, classes=2, objects=300)
    report, page = reported(tmp_path, {"test": (coco, predictions), "val": random_coco(4, images=6, classes=2)})
    wide = report.metrics.splits["test"].at_max_dets
    assert wide
    assert f"AP (maxDets {wide.max_dets})" in page.text
    assert f"At COCO's maxDets 100 it is {share(report.metrics.splits['test'].coco['ap'])}" in page.text
    assert share(wide.ap) in page.text
    assert "recall 1 cannot be reached there" in page.text
    assert "ap_small at maxDets" in page.text
    assert float((tmp_path / "out" / "outputs" / "ap").read_text()) == pytest.approx(
        report.metrics.splits["test"].coco["ap"], abs=1e-6
    )


def test_a_label_at_the_right_edge_stays_within_its_picture(tmp_path: Path) -> None:
    coco: Coco = {
        "images": [{"id": 1, "width": 640, "height": 480}],
        "categories": [{"id": 0, "name": "raccoon"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 0, "bbox": [x, 90, 30, 30], "area": 900, "iscrowd": 0}
            for n, x in enumerate((20, 600), start=1)
        ],
    }
    _, page = reported(tmp_path, {"test": (coco, [])})
    labels = [attributes for tag, attributes in page.tags if tag == "text" and "font-size" in attributes]
    assert [(float(label["x"] or 0) < 320, label.get("text-anchor")) for label in labels] == [
        (True, None),
        (False, "end"),
    ]
    assert all(0 < float(label["x"] or 0) < 640 for label in labels)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    coco, predictions = random_coco(4, images=6, classes=3)
    coco["categories"][0]["name"] = HOSTILE
    coco["images"][0]["file_name"] = f'"><img src=x onerror=alert(1)>{HOSTILE}.jpg'
    run = {**RUN, "hardware": HOSTILE, "parameters": {HOSTILE: HOSTILE}}
    report, page = reported(tmp_path, {"test": (coco, predictions)}, run=run)
    assert_self_contained(page, report.page_path)
    assert page.count("img") == 0
    assert f"{HOSTILE}.jpg" in page.text


def test_the_page_is_the_same_when_made_again(tmp_path: Path) -> None:
    splits = {"test": random_coco(4, images=6, classes=3)}
    first, _ = reported(tmp_path / "a", splits)
    second, _ = reported(tmp_path / "b", splits)
    pages = [one.page_path.read_text().replace(str(tmp_path / name), "") for one, name in ((first, "a"), (second, "b"))]
    assert pages[0] == pages[1]


def test_many_classes_keep_the_confusion_table_readable() -> None:
    classes = [f"class {n}" for n in range(40)]
    matrix = [[int(row == column) for column in range(41)] for row in range(41)]
    matrix[33][34] = 9
    view = confusion_view(classes, matrix)
    assert len(view.names) == MAX_CONFUSION_CLASSES
    assert view.left_out == 40 - MAX_CONFUSION_CLASSES
    assert {"class 33", "class 34"} <= set(view.names)
    assert len(view.rows) == len(view.rows[0]) == MAX_CONFUSION_CLASSES + 1


def test_a_log_that_was_cut_off_keeps_its_whole_lines() -> None:
    log = parse_log(
        b'{"step": 1, "split": "train", "loss": 3.5}\n[]\n\n{"step": 2, "split": "train", "loss": NaN}\n{"st'
    )
    assert log.unreadable == 2
    assert log.series("loss", ("train",)) == [(1.0, 3.5)]


def test_run_facts_are_flattened_for_the_table() -> None:
    facts = dict(flat({"a": {"b": [1, 2], "c": None, "d": {}}, "e": [{"f": 1}], "g": 1234567, "h": 0.5, "i": True}))
    assert facts == {"a.b": "1, 2", "e.1.f": "1", "g": "1,234,567", "h": "0.5", "i": "True"}


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("detr-workflows/detr-job:0.1.0", False),
        ("", False),
        ("r.example.org/team/detr-job:0.1.0", True),
        ("localhost:5000/detr-workflows/detr-job:0.1.0", True),
        ("detr-workflows/detr-job:0.1.0@sha256:1234", True),
        ("sha256:1234", True),
    ],
)
def test_the_name_of_an_image_that_was_never_pulled_is_no_fact(image: str, shown: bool) -> None:
    facts = dict(run_facts({"format": 1, "run": "r", "image_digest": image, "config": {"a": 1}}))
    assert facts == {"Run": "r"} | ({"Image": image} if shown else {})


def test_automatic_values_stand_beside_their_reasons() -> None:
    run = {
        "config": {"training": {"precision": "auto"}, "data": {"min_sizes": [192, 224], "workers": None}},
        "auto": {"data.min_sizes": "small objects", "data.workers": "no GPU"},
        "precision": "bf16",
    }
    config, automatic = (dict(lines) for _, lines in run_details(run))
    assert config == {"training.precision": "bf16 (auto)", "data.min_sizes": "192, 224"}
    assert automatic == {"data.min_sizes": "192, 224: small objects", "data.workers": "no GPU"}
    assert dict(run_details({**run, "precision": ""})[0][1])["training.precision"] == "auto"


def test_long_names_may_break_after_dots_and_stay_escaped() -> None:
    assert breakable("data.<b>.c") == "data.<wbr>&lt;b&gt;.<wbr>c"


def test_losses_have_words() -> None:
    assert [loss_title(name) for name in ("loss", "loss_bbox_dense", "loss_dn_giou", "loss_ce_enc", "loss_new")] == [
        "total",
        "box (L1), dense targets",
        "overlap (GIoU), denoising",
        "class, encoder",
        "loss_new",
    ]


def test_one_class_has_one_line_in_each_curve(tmp_path: Path) -> None:
    _, page = reported(tmp_path, {"test": random_coco(4, images=6, classes=1)})
    assert "all classes" not in page.text


def test_sentences_do_not_round_to_perfection() -> None:
    assert [of_hundred(value) for value in (0.0, 0.001, 0.5, 0.999, 1.0)] == [
        "0 of 100",
        "less than 1 of 100",
        "50 of 100",
        "more than 99 of 100",
        "100 of 100",
    ]


def test_a_run_without_predictions_is_refused(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    coco, _ = random_coco(4, images=3, classes=2)
    put_set(store, {"val": coco})
    put_run(store, PREFIX, {})
    with pytest.raises(RunError, match=r"has neither predictions/val.json nor predictions/test.json"):
        write_report(store, SET_ID, PREFIX, tmp_path / "out", tmp_path / "scratch")


def test_predictions_of_another_set_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    coco, found = random_coco(4, images=3, classes=2)
    put_set(store, {"val": coco})
    document = predictions_document(coco, found, "val") | {"set": "ffffffffffffffff"}
    store.child(PREFIX).put_bytes("predictions/val.json", json.dumps(document).encode())
    with pytest.raises(PredictionsError, match=r"predictions/val.json was made on the prepared set ffff"):
        write_report(store, SET_ID, PREFIX, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "out").exists()


def command_line(*arguments: str, out: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    if out is not None:
        environment["OUT"] = str(out)
    return subprocess.run(
        [sys.executable, "-m", "evaluation", "report", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_reads_out_from_the_environment_and_answers_in_json(tmp_path: Path) -> None:
    store = folder_store(tmp_path / "store")
    content = random_coco(4, images=3, classes=2)
    put_set(store, {"test": content[0]})
    put_run(store, PREFIX, {"test": content})
    options = ("--store", store.url, "--set", SET_ID, "--run-prefix", PREFIX)
    done = command_line(*options, "--json", out=tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["split"] == "test"
    assert answer["ap50"] == pytest.approx(evaluate_boxes(*content).ap50)
    assert Path(answer["report"]).is_file()
    assert "max_dets" not in answer
    wrong = command_line(*options[:3], "fedcba9876543210", *options[4:], out=tmp_path / "out")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: there is no prepared set fedcba9876543210")
    assert wrong.stderr.count("\n") == 1
    nowhere = command_line(*options, out=None)
    assert nowhere.returncode == 2
    assert "--out" in nowhere.stderr


def printed(tmp_path: Path, coco: Coco, found: Predictions) -> list[str]:
    store = folder_store(tmp_path / "store")
    put_set(store, {"test": coco})
    put_run(store, PREFIX, {"test": (coco, found)})
    done = command_line("--store", store.url, "--set", SET_ID, "--run-prefix", PREFIX, out=tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_split_without_boxes_has_no_ap_to_print(tmp_path: Path) -> None:
    coco, _ = random_coco(4, images=3, classes=2, objects=0)
    assert printed(tmp_path, coco, []) == ["AP not measurable: no boxes  (test, 3 images)"]


def test_one_image_is_singular(tmp_path: Path) -> None:
    coco, _ = random_coco(4, images=1, classes=2, objects=0)
    assert printed(tmp_path, coco, []) == ["AP not measurable: no boxes  (test, 1 image)"]


def test_both_limits_are_printed_for_a_dense_split(tmp_path: Path) -> None:
    coco, found = random_coco(5, images=2, classes=2, objects=300)
    standard, wide, sentence = printed(tmp_path, coco, found)
    result = evaluate_boxes(coco, found)
    assert result.at_max_dets is not None
    assert standard == f"AP {result.ap:.3f}  AP50 {result.ap50:.3f}  (test, 2 images, maxDets 100)"
    assert wide.startswith(f"AP {result.at_max_dets.ap:.3f}  AP50 ")
    assert wide.endswith(f"  (maxDets {result.at_max_dets.max_dets})")
    assert "recall 1 cannot be reached there" in sentence


def test_a_folder_that_cannot_be_written_is_said_before_the_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report").write_text("a file")
    options = ("--store", f"file://{tmp_path}/store", "--set", SET_ID, "--run-prefix", PREFIX)
    done = command_line(*options, out=tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --out: {tmp_path}/out/report cannot be written: ")
    assert done.stderr.count("\n") == 1
