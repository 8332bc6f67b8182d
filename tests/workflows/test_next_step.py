"""What `make run` says at its end: the result in words, and commands that may improve it."""

import pytest

from workflows.local.next_step import next_step

TINY = {"model": "tiny", "store": "file:///runs/store"}


@pytest.mark.parametrize(
    ("ap50", "words"),
    [("0.93", "nearly every object"), ("0.71", "most objects"), ("0.5", "about half"), ("0.1", "few objects yet")],
)
def test_the_result_is_said_in_words(ap50: str, words: str):
    assert words in next_step(TINY, {"ap50": ap50}).splitlines()[0]


def test_the_small_model_is_offered_more_time_a_published_model_and_larger_images():
    lines = next_step(TINY, {"ap50": "0.5"}).splitlines()
    assert "MINUTES=15" in lines[1]
    assert "detr-workflows weights pull d-fine-nano --store file:///runs/store" in lines[2]
    assert lines[2].endswith("make run … CONFIG=d-fine-nano")
    assert "data.min_sizes=[320]" in lines[3]
    assert "MINUTES=30" in next_step(TINY | {"minutes": "10"}, {"ap50": "0.5"})
    assert "MINUTES=5" in next_step(TINY | {"minutes": "0.5"}, {"ap50": "0.0"})
    assert "[640]" in next_step(TINY | {"overrides": "data.min_sizes=[480]"}, {"ap50": "0.5"})


@pytest.mark.parametrize("length", ["steps", "epochs"])
def test_a_length_in_steps_or_epochs_is_offered_three_times(length: str):
    text = next_step(TINY | {"overrides": f"schedule.{length}=40"}, {"ap50": "0.5"})
    assert f'ARGS="schedule.{length}=120"' in text
    assert "more time" not in next_step({"model": "rf-detr-small"}, {"ap50": "0.5"})


def test_a_model_that_started_from_weights_is_not_offered_them_again():
    text = next_step({"model": "rf-detr-small", "cvat-finetune-checkpoint": "weights:x"}, {"ap50": "0.5"})
    assert "published" not in text
    assert "MINUTES" not in text
    assert "published" not in next_step({"model": "rf-detr-small"}, {"ap50": "0.5"})  # auto found its weights
    unstarted = {"model": "rf-detr-small", "cvat-finetune-checkpoint": "none"}
    assert "CONFIG=rf-detr-small" in next_step(unstarted, {"ap50": "0.5"})
    assert "CONFIG=d-fine-nano" in next_step({"model": "detr-r18"}, {"ap50": "0.5"})  # not in the catalogue
    assert "more labelled images" in text


def test_a_file_of_ones_own_and_runs_without_an_ap_are_no_error():
    assert "more labelled images" in next_step({"model": "mine.yaml"}, {"ap50": "0.5"})
    assert next_step(TINY, {"ap50": "-1.0"}) == next_step(TINY, {}) == next_step({}, {"ap50": "0.5"}) == ""
