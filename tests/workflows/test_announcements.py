"""What the local runner says."""

import pytest

from workflows.announcements import duration, summary


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.4, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_times_are_said_in_words(seconds: float, words: str):
    assert duration(seconds) == words


def test_the_numbers_come_first_and_then_where_to_look():
    files = ["model/config.json", "model/model.safetensors", "report/index.html"]
    results = {"ap": "0.58349", "ap50": "-1.000000", "note": "fine"}
    assert summary("file:///my%20runs/a", 65, results, files).splitlines() == [
        "AP 0.583",
        "AP50 not measured",
        "NOTE fine",
        "time: 1 min 05 s",
        "report and pictures: /my runs/a/report/index.html",
        "model: /my runs/a/model",
    ]
