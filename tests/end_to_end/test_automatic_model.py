"""On a laptop, from no weights at all to published weights: what `auto` trains, and what a person is told."""

import json
import os
import subprocess

import pytest

from tests.end_to_end.test_run_local import COMMAND, Laptop, laptop
from tests.published_weights.publisher import publishing
from tests.published_weights.test_weights_command import d_fine_nano, pth

__all__ = ["laptop"]

GIVEN = {
    "cvat-annotation-path": "my export.zip",
    "device": "cpu",
    "overrides": "data.min_sizes=[128] data.max_size=128 data.eval_size=128 data.batch_size=2 data.workers=0 "
    "schedule.steps=2 training.log_interval=1",
}


def trained(laptop: Laptop) -> tuple[str, dict[str, str]]:
    """What the run with `model=auto` printed, and run.json of the newest run."""
    done = laptop.run_of("detr-train", GIVEN)
    assert done.returncode == 0, done.stderr
    newest = max(laptop.runs(), key=lambda run: (run / "run.json").stat().st_mtime_ns)
    return done.stdout + done.stderr, json.loads((newest / "run.json").read_text())


def test_weights_that_are_brought_are_used_by_the_next_run_and_not_by_one_that_began(laptop: Laptop):
    said, run = trained(laptop)
    assert f"model: tiny (auto: no GPU, and the store has no weights of d-fine-nano; `{COMMAND} weights pull" in said
    assert (run["model"], run["finetune"]) == ("tiny", "")

    done = laptop.run_of("detr-train", GIVEN | {"model": "rf-detr-small"})
    assert done.returncode == 2
    store = laptop.store.as_uri()
    brings = f"{COMMAND} weights pull rf-detr-small --store {store}"
    assert f"run `{brings}`, or choose none to start from random weights, which need more than" in done.stderr

    with publishing() as publisher:
        publisher.files["dfine_n_coco.pth"] = pth({"model": d_fine_nano(80)})
        subprocess.run(
            [COMMAND, "weights", "pull", "d-fine-nano", "--store", store, "--from", publisher.url],
            check=True, env=os.environ | {"NO_PROXY": "127.0.0.1", "XDG_CACHE_HOME": str(laptop.folder / "cache")},
        )  # fmt: skip

    # The same command resumes an unfinished run, with the model that it began with.
    (first,) = laptop.runs()
    (first / "finished.json").unlink()
    said, run = trained(laptop)
    assert "model: tiny (auto: this run began with it)" in said
    assert (run["model"], run["restarts"]) == ("tiny", 1)

    said, run = trained(laptop)
    assert "model: d-fine-nano (auto: no GPU, and the store has the weights of d-fine-nano)" in said
    assert f"starting from {store}/weights/d-fine-nano: " in said
    assert (run["model"], run["finetune"]) == ("d-fine-nano", "weights/d-fine-nano")


@pytest.mark.parametrize("word", ["auto", "none"])
def test_the_words_of_a_start_are_not_files_of_the_same_name(laptop: Laptop, word: str):
    (laptop.folder / word).write_text("")
    done = laptop.run_of("detr-train", {"cvat-annotation-path": "no.zip", "cvat-finetune-checkpoint": word})
    assert "there is no file or folder no.zip" in done.stderr
    assert str(laptop.folder / word) not in done.stdout + done.stderr
