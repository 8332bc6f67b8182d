"""What the local runner says."""

from workflows.local.announcements import summary


def test_the_numbers_come_first_and_then_where_to_look():
    files = ["model/config.json", "model/model.safetensors", "report/index.html"]
    results = {"ap": "0.58349", "ap50": "-1.000000", "note": "fine"}
    assert summary("file:///my%20runs/a", 65, results, files).splitlines() == [
        "AP 0.583",
        "AP50 not measured",
        "note fine",
        "time: 1 min 05 s",
        "report and pictures: /my runs/a/report/index.html",
        "model: /my runs/a/model",
    ]
