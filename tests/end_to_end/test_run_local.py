"""The whole loop as a person on a laptop runs it: the real template, real processes, a small export."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.data_prep.export_builder import simple_export, write_zip

COMMAND = Path(sys.executable).parent / "detr-workflows"
PATIENCE_S = 240

# A model and pictures that two busy cores train in seconds.
SMALL = (
    "data.min_sizes=[64] data.max_size=96 data.eval_size=64 data.batch_size=4 model.hidden_dim=32 "
    "model.feedforward_dim=32 model.stem_channels=8 model.stage_channels=[8,16,16,16] model.stage_blocks=[1,1,1,1] "
    "model.decoder_layers=2 model.queries=10 training.log_interval=1 "
)


class Laptop:
    """A folder with an export and a test export, and the command that runs detr-train on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._started: list[subprocess.Popen[str]] = []
        write_zip(folder / "my export.zip", simple_export(24))
        write_zip(folder / "test.zip", simple_export(6, prefix="test-"))

    def command(self, overrides: str, changes: dict[str, str] | None = None) -> list[str]:
        given = {
            "cvat-annotation-path": "my export.zip",
            "cvat-test-path": "test.zip",
            "model": "tiny",
            "device": "cpu",
            "overrides": SMALL + overrides,
        }
        return self.command_of("detr-train", given | (changes or {}))

    def command_of(self, template: str, given: dict[str, str]) -> list[str]:
        pairs = [option for name, value in given.items() for option in ("-p", f"{name}={value}")]
        return [str(COMMAND), "run-local", template, "--store", "store", "--scratch", "scratch", *pairs]

    def run(self, overrides: str, changes: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.run_command(self.command(overrides, changes))

    def run_of(self, template: str, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return self.run_command(self.command_of(template, given))

    def run_command(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S, cwd=self.folder)

    def start(self, overrides: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.command(overrides), stdout=pipe, stderr=pipe, text=True, cwd=self.folder)
        self._started.append(process)
        return process

    def runs(self, template: str = "detr-train") -> list[Path]:
        return sorted((self.store / "workflow-data" / "output").glob(f"{template}-*"))

    def stop_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
            process.communicate()


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    one = Laptop(tmp_path)
    yield one
    one.stop_all()


def steps_trained(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["split"] == "train"]


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        if process.poll() is not None:
            pytest.fail(f"the run ended before: {process.communicate()}")
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def results_of(run: Path) -> dict[str, str]:
    return json.loads((run / "finished.json").read_text())["results"]


def test_a_set_is_prepared_once_and_becomes_a_model_that_is_measured_on_it(laptop: Laptop):
    prepared = laptop.run_of("detr-prepare", {"cvat-annotation-path": "my export.zip", "cvat-test-path": "test.zip"})
    assert prepared.returncode == 0, prepared.stderr
    (run,) = laptop.runs("detr-prepare")
    set_id = results_of(run)["prepared-set"]
    assert f"prepared set {set_id}" in prepared.stdout.splitlines()

    done = laptop.run("schedule.steps=4")
    assert done.returncode == 0, done.stderr
    assert f"prepared set {set_id} (was there already)" in done.stdout
    (run,) = laptop.runs()
    leaves_a_model_with_its_numbers_and_pictures(laptop, run, done.stdout.splitlines())

    given = {"prepared-set": set_id, "device": "cpu"}
    for model in (f"workflow-data/output/{run.name}/model", f"store/workflow-data/output/{run.name}/model"):
        measured = laptop.run_of("detr-evaluate", given | {"trained-model": model})
        assert measured.returncode == 0, measured.stderr
    first, second = laptop.runs("detr-evaluate")
    assert results_of(first) == results_of(second)
    assert results_of(first)["ap"] == results_of(run)["ap"]
    assert [path.name for path in (first / "predictions").iterdir()] == ["test.json"]
    assert "<html" in (first / "report" / "index.html").read_text()

    val = laptop.run_of("detr-evaluate", given | {"trained-model": str(run / "model"), "split": "val"})
    assert val.returncode == 0, val.stderr
    (third,) = {each.name for each in laptop.runs("detr-evaluate")} - {first.name, second.name}
    assert [path.name for path in (first.parent / third / "predictions").iterdir()] == ["val.json"]


def leaves_a_model_with_its_numbers_and_pictures(laptop: Laptop, run: Path, lines: list[str]) -> None:
    for name in ("run.json", "metrics.jsonl", "metrics.json", "report/index.html", "finished.json"):
        assert (run / name).stat().st_size > 0, name
    for name in ("model/model.safetensors", "model/config.json", "model/README.md"):
        assert (run / name).stat().st_size > 0, name
    assert {path.name for path in (run / "predictions").iterdir()} == {"val.json", "test.json"}
    assert list((run / "checkpoint").iterdir())
    assert not (run / "outputs").exists()

    lineage = json.loads((run / "run.json").read_text())
    assert lineage["parameters"]["cvat-annotation-path"] == str(laptop.folder / "my export.zip")
    assert (laptop.store / "datasets" / lineage["prepared_set"] / "manifest.json").exists()

    metrics = json.loads((run / "metrics.json").read_text())
    results = results_of(run)
    assert set(results) == {"ap", "ap50", "prepared-set"}
    assert results["prepared-set"] == lineage["prepared_set"]
    assert float(results["ap50"]) == pytest.approx(metrics["splits"]["test"]["coco"]["ap50"], abs=1e-6)
    assert f"AP {float(results['ap']):.3f}" in lines
    assert f"AP50 {float(results['ap50']):.3f}" in lines
    assert f"report and pictures: {run}/report/index.html" in lines
    assert f"model: {run}/model" in lines
    assert "<html" in (run / "report" / "index.html").read_text()


def test_a_model_or_set_that_is_not_there_is_one_sentence(laptop: Laptop):
    given = {"trained-model": "runs/a/model", "prepared-set": "0" * 16, "device": "cpu"}
    done = laptop.run_of("detr-evaluate", given)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "trained-model: there is no model at file://" in line
    assert "prepared-set: there is no prepared set 0000000000000000 in " in line


def test_ctrl_c_in_the_middle_and_the_same_command_goes_on(laptop: Laptop):
    overrides = "schedule.steps=40 checkpoints.interval=4 evaluation.interval=40"
    process = laptop.start(overrides)
    until(lambda: any(laptop.store.glob("workflow-data/output/*/checkpoints/*/manifest.json")), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "error: interrupted; run the same command again to resume"
    (run,) = laptop.runs()
    assert not (run / "model").exists()
    before = steps_trained(run)
    assert before[-1] < 40

    again = laptop.run(overrides)
    assert again.returncode == 0, again.stderr
    assert "(was there already)" in again.stdout
    assert laptop.runs() == [run]
    assert steps_trained(run) == list(range(1, 41))
    assert json.loads((run / "run.json").read_text())["restarts"] == 1
    assert (run / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "many", "epochs must be a whole number from 1 to 10000, not 'many'."),
        ("cvat-test-path", "missing.zip", "cvat-test-path: there is no file or folder missing.zip, neither here nor"),
        ("cvat-finetune-checkpoint", "./model", "cvat-finetune-checkpoint: there is no checkpoint at file://"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_is_read(laptop: Laptop, name: str, value: str, said: str):
    done = laptop.run("schedule.steps=4", {name: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (laptop.store / "datasets").exists()
