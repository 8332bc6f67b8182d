"""The command line: verbs, answers for people and programs, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.cli import main
from object_store import ObjectStore
from prepared_set.reader import PreparedSet
from run_config.exit_codes import WRONG_INPUT
from tests.data_prep.export_builder import simple_export, write_zip


def data_prep(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "export.zip", simple_export())


def test_prepare_answers_people_and_the_next_step(source: Path, tmp_path: Path, store: ObjectStore):
    done = data_prep("prepare", source, "--test", "", "--store", store.url, OUT=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    set_id = (tmp_path / "out/outputs/prepared-set").read_text()
    assert done.stdout.splitlines()[0] == f"prepared set {set_id}"
    assert "  train  10 images" in done.stdout
    assert "warning: No test images" in done.stdout
    assert f"report: {store.url}/datasets/{set_id}/report.html" in done.stdout
    assert f"checking {source}: 12 images" in done.stderr
    assert PreparedSet.open(store, set_id).id == set_id
    again = data_prep("prepare", source, "--store", store.url)
    assert again.stdout.splitlines()[0] == f"prepared set {set_id} (was there already)"
    assert not again.stderr


def test_prepare_answers_programs_in_json(source: Path, store: ObjectStore):
    done = data_prep("prepare", source, "--store", store.url, "--json", "--seed", 3, "--val-fraction", 0.25)
    answer = json.loads(done.stdout)
    assert PreparedSet.open(store, answer["set"]).manifest.options.seed == 3
    assert answer["store"] == store.url
    assert answer["was_there"] is False
    assert answer["classes"] == ["cat", "dog"]
    assert answer["counts"]["val"]["images"] in range(2, 5)
    assert answer["split"]["val"] == "image"
    assert answer["changes"] == []
    assert answer["warnings"]


def test_inspect_says_the_same_and_writes_only_the_page(source: Path, tmp_path: Path, store: ObjectStore):
    before = set(tmp_path.rglob("*"))
    inspected = json.loads(data_prep("inspect", source, "--report", tmp_path / "page.html", "--json").stdout)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "page.html"}
    prepared = json.loads(data_prep("prepare", source, "--store", store.url, "--json").stdout)
    page = store.get_bytes(f"datasets/{prepared['set']}/report.html")
    assert (tmp_path / "page.html").read_bytes() == page
    for key in ("set", "classes", "counts", "split", "changes", "warnings"):
        assert inspected[key] == prepared[key]


def test_rewrite_paths_counts_the_images(tmp_path: Path):
    path = tmp_path / "instances_default.json"
    path.write_text(json.dumps(simple_export(4).coco))
    done = data_prep("rewrite-paths", path, "--image-dir", "/mnt/data", "-o", tmp_path / "out.json")
    assert done.stdout == f"{tmp_path / 'out.json'}: 4 images\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("prepare", "nowhere.zip", "--store", "{store}"), "there is no file or folder nowhere.zip"),
        (("prepare", " ", "--store", "{store}"), "no source is given; give at least one export"),
        (("prepare", "", "--store", "{store}"), "an argument is empty: name a file or folder"),
        (("prepare", "{source}", "--store", "ftp://x"), "only s3://bucket/prefix"),
        (("prepare", "{source}"), "Missing option '--store'"),
        (("prepare", "{source}", "--store", "{store}", "--val-fraction", "2"), "less than or equal to 0.9"),
        (("inspect", "{source}", "-o", "/no/where/page.html"), "/no/where/page.html cannot be written: No such file"),
        (("rewrite-paths", "no.json", "--image-dir", "d", "-o", "o.json"), "no.json cannot be read: No such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...],
    sentence: str,
    source: Path,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    filled = [one.format(source=source, store=store.url) for one in arguments]
    monkeypatch.setattr(sys, "argv", ["data-prep", *filled])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == WRONG_INPUT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last


def test_help_lists_the_verbs_without_loading_the_heavy_parts():
    code = (
        "import sys, data_prep.cli; from typer.testing import CliRunner;"
        "print(CliRunner().invoke(data_prep.cli.app, ['--help']).output);"
        "print([m for m in ('numpy', 'PIL', 'boto3', 'jinja2', 'rich.progress') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for verb in ("prepare", "inspect", "rewrite-paths"):
        assert verb in output
    assert output.splitlines()[-1] == "[]"


def test_prepared_set_imports_no_plots_and_no_torch():
    code = (
        "import sys, prepared_set.reader;"
        "print([m for m in ('torch', 'matplotlib', 'pycocotools', 'jinja2', 'boto3', 'obstore') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_place_is_tried_before_the_sources_are_read(source: Path, tmp_path: Path):
    """The export is damaged, and nobody has come so far as to say it."""
    source.write_bytes(source.read_bytes()[:100] + bytes(100))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    free = f"file://{tmp_path}/store"
    calls = [
        (data_prep("prepare", source, "--store", free, OUT=str(blocked)), f"$OUT: {blocked}/outputs cannot be written"),
        (data_prep("prepare", source, "--store", f"file://{blocked}"), str(blocked)),
        (data_prep("inspect", source, "-o", tmp_path), f"--report: {tmp_path} is a folder"),
        (data_prep("rewrite-paths", source, "--image-dir", "d", "-o", blocked / "o.json"), f"--output: {blocked}"),
    ]
    for done, sentence in calls:
        assert done.returncode == WRONG_INPUT
        assert done.stderr.startswith("error: ")
        assert sentence in done.stderr.splitlines()[-1]


def test_limits_and_the_form_of_boxes_are_options_of_a_person(tmp_path: Path, store: ObjectStore):
    export = simple_export(30)
    for one in export.coco["annotations"]:
        one["bbox"] = [one["bbox"][0] / 64, one["bbox"][1] / 48, one["bbox"][2] / 64, one["bbox"][3] / 48]
    source = write_zip(tmp_path / "x.zip", export)
    refused = data_prep("prepare", source, "--store", store.url)
    assert refused.returncode == WRONG_INPUT
    assert "fit as x, y, width, height as fractions of the image" in refused.stderr
    done = data_prep("prepare", source, "--store", store.url, "--boxes", "shares", "--json")
    right = data_prep("prepare", write_zip(tmp_path / "y.zip", simple_export(30)), "--store", store.url, "--json")
    assert json.loads(done.stdout)["set"] == json.loads(right.stdout)["set"]
    loose = data_prep("inspect", source, "--limit", "misread-boxes=1", "--limit", "tiny-boxes=1", "--json")
    assert loose.returncode == 0, loose.stderr
    wrong = data_prep("inspect", source, "--limit", "boxes=1")
    assert (wrong.returncode, "the names are unusable-images, " in wrong.stderr) == (WRONG_INPUT, True)
    wrong = data_prep("inspect", source, "--boxes", "yolo")
    assert (wrong.returncode, "use auto, xywh, corners, " in wrong.stderr) == (WRONG_INPUT, True)


def test_an_installation_sets_the_limits_and_no_option_loosens_them(tmp_path: Path):
    export = simple_export(30)
    for one in export.coco["annotations"][:12]:
        one["bbox"] = [1, 1, 0, 5]
    source = write_zip(tmp_path / "x.zip", export)
    settings = tmp_path / "settings.yaml"
    settings.write_text("{version: 1, store: 's3://bucket', dataLimits: {droppedBoxes: 0.9}}")
    relaxed = data_prep("inspect", source, DETR_WORKFLOWS_SETTINGS=str(settings))
    assert relaxed.returncode == 0, relaxed.stderr
    loosened = data_prep("inspect", source, "--limit", "dropped-boxes=1", DETR_WORKFLOWS_SETTINGS=str(settings))
    assert (loosened.returncode, "this installation sets its limits" in loosened.stderr) == (WRONG_INPUT, True)
    settings.write_text("{version: 1, store: 's3://bucket', dataLimits: {droppedBoxes: 0.01}}")
    refused = data_prep("inspect", source, DETR_WORKFLOWS_SETTINGS=str(settings))
    assert refused.returncode == WRONG_INPUT
    assert "ask the administrator to set the chart's value dataLimits.droppedBoxes to SHARE" in refused.stderr
    assert "--limit" not in refused.stderr
    here = data_prep("inspect", source)
    assert (here.returncode, "pass --limit dropped-boxes=SHARE" in here.stderr) == (WRONG_INPUT, True)


def test_a_way_on_that_no_run_has_is_not_named_in_an_installation(tmp_path: Path):
    export = simple_export(30)
    for one in export.coco["annotations"]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x / 64, y / 48, width / 64, height / 48]
    source = write_zip(tmp_path / "x.zip", export)
    settings = tmp_path / "settings.yaml"
    settings.write_text("{version: 1, store: 's3://bucket'}")
    refused = data_prep("inspect", source, DETR_WORKFLOWS_SETTINGS=str(settings))
    assert "convert them (data-prep convert --boxes shares does) and use the result" in refused.stderr
    assert "the chart's value dataLimits.misreadBoxes to 1" in refused.stderr
    here = data_prep("inspect", source)
    assert "pass --boxes shares to convert them; to use them as they are, pass --limit misread-boxes=1" in here.stderr


def test_corrections_can_be_refused_by_their_name(tmp_path: Path):
    export = simple_export(30)
    export.coco["annotations"][0]["bbox"] = [1, 1, 0, 5]
    source = write_zip(tmp_path / "x.zip", export)
    assert data_prep("inspect", source, "--refuse", "box-outside").returncode == 0
    refused = data_prep("inspect", source, "--refuse", "box-outside", "--refuse", "box-empty")
    assert (refused.returncode, "1 x box-empty" in refused.stderr) == (WRONG_INPUT, True)
    wrong = data_prep("inspect", source, "--refuse", "boxes")
    assert (wrong.returncode, "'boxes' is not known; the names are " in wrong.stderr) == (WRONG_INPUT, True)
    settings = tmp_path / "settings.yaml"
    settings.write_text("{version: 1, store: 's3://bucket', dataLimits: {refuse: [box-empty]}}")
    by_installation = data_prep("inspect", source, DETR_WORKFLOWS_SETTINGS=str(settings))
    assert (by_installation.returncode, "1 x box-empty" in by_installation.stderr) == (WRONG_INPUT, True)
    settings.write_text("{version: 1, store: 's3://bucket', dataLimits: {droppedBoxes: 0.9}}")
    added = data_prep("inspect", source, "--refuse", "box-empty", DETR_WORKFLOWS_SETTINGS=str(settings))
    assert added.returncode == WRONG_INPUT
