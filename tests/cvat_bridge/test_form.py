"""The form: what would be trained on, and what may be chosen, drawn from the templates themselves."""

import json
import time
from pathlib import Path

import pytest

from cvat_bridge.access import User, VisibleSubject
from cvat_bridge.data_preview import Counted, count_boxes
from cvat_bridge.templates.help_text import safe_html
from cvat_client.connection import Session
from cvat_client.subject import Subject
from tests.cvat_bridge.running_bridge import Bridge, bridge, install, kubernetes, our_template, serving, store
from tests.cvat_double.server import CvatDouble
from tests.workflows.fake_kubernetes import FakeKubernetes, Json

__all__ = ["bridge", "kubernetes", "store"]

HOSTILE = "<img src=x onerror=alert(1)> {{workflow.name}} \u202e"


def form(bridge: Bridge, query: str) -> Json:
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?{query}")
    assert answer.status_code == 200, answer.text
    tree: Json = answer.json()
    return tree


def template(tree: Json, name: str = "cvat-train") -> Json:
    (found,) = [one for one in tree["templates"] if one["name"] == name]
    return found


def fields(tree: Json, name: str = "cvat-train") -> dict[str, Json]:
    return {one["name"]: one for group in template(tree, name)["groups"] for one in group["parameters"]}


def texts(tree: Json) -> str:
    return " ".join(note["text"] for note in tree["subject"]["notes"])


# What would be trained on


def test_the_form_tells_images_boxes_and_classes(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells", images=3, labels=("RBC", "WBC"))
    for frame in (0, 0, 1):
        bridge.cvat.add_box(task, frame, "RBC", (1, 1, 5, 5))
    subject = form(bridge, f"task={task.id}")["subject"]
    assert (subject["kind"], subject["ids"], subject["title"]) == ("task", [task.id], "Cells")
    assert subject["url"] == f"https://cvat.example.org/tasks/{task.id}"
    assert (subject["images"], subject["boxes"]) == (3, 3)
    assert {one["name"]: one["boxes"] for one in subject["classes"]} == {"RBC": 3, "WBC": 0}
    warnings = {one["name"]: one["warning"] for one in subject["classes"]}
    assert warnings["RBC"].startswith("Fewer than 20 boxes")
    assert warnings["WBC"].startswith("No boxes")


def test_under_a_hundred_boxes_is_warned_with_what_helps(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells", images=1, labels=("RBC",))
    for number in range(99):
        bridge.cvat.add_box(task, 0, "RBC", (number, 1, number + 2, 5))
    few = form(bridge, f"task={task.id}")
    assert "only 99 boxes" in texts(few)
    assert all(note["advice"] for note in few["subject"]["notes"])
    bridge.cvat.add_box(task, 0, "RBC", (0, 0, 9, 9))
    assert "only" not in texts(form(bridge, f"task={task.id}"))


def test_boxes_that_only_a_model_has_drawn_are_counted_and_warned_of_above_a_tenth(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells", images=1, labels=("RBC",))
    for number in range(9):
        bridge.cvat.add_box(
            task, 0, "RBC", (number, 1, number + 2, 5), source=("manual", "semi-auto", "file")[number % 3]
        )
    bridge.cvat.add_box(task, 0, "RBC", (20, 1, 22, 5), source="auto")
    tree = form(bridge, f"task={task.id}")
    assert (tree["subject"]["boxes"], tree["subject"]["untouched"]) == (10, 1)
    assert "drawn by a model" not in texts(tree), "a tenth is not above a tenth"
    bridge.cvat.add_box(task, 0, "RBC", (30, 1, 32, 5), source="auto")
    tree = form(bridge, f"task={task.id}")
    assert tree["subject"]["untouched"] == 2
    assert "2 of 11 boxes were drawn by a model, and nobody has changed them." in texts(tree)


def test_every_frame_of_a_track_of_a_model_is_an_untouched_box() -> None:
    counted = Counted()
    shapes = [{"type": "rectangle", "frame": 0}, {"type": "rectangle", "frame": 4, "outside": True}]
    tracks = [
        {"label_id": 1, "source": "auto", "shapes": shapes},
        {"label_id": 1, "source": "manual", "shapes": shapes},
    ]
    count_boxes({"size": 10, "segment_size": 10}, {"tracks": tracks}, counted)
    assert (counted.boxes[1], counted.untouched) == (8, 4)


def test_unfinished_jobs_are_said(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells", images=4, images_per_job=1)
    bridge.cvat.complete(task, jobs=3)
    tree = form(bridge, f"task={task.id}")
    assert tree["subject"]["unfinished"] == [{"id": task.id, "name": "Cells", "jobs": 4, "completed": 3}]
    bridge.cvat.complete(task)


def test_a_finished_job_is_done_before_anybody_has_accepted_it(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Blood", labels=("RBC",))
    tasks = [bridge.cvat.add_blank_task(name, images=2, images_per_job=1, project=project) for name in ("One", "Two")]
    bridge.cvat.finish(tasks[0])
    bridge.cvat.finish(tasks[1], jobs=1)
    left = [{"id": tasks[1].id, "name": "Two", "jobs": 2, "completed": 1}]
    assert form(bridge, f"project={project.id}")["subject"]["unfinished"] == left
    assert form(bridge, f"task={tasks[0].id}&task={tasks[1].id}")["subject"]["unfinished"] == left
    assert form(bridge, f"task={tasks[0].id}")["subject"]["unfinished"] == []


def test_an_installation_may_ask_for_acceptance(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path
) -> None:
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", done_jobs="accepted") as bridge:
        task = cvat.add_blank_task("Cells", images=2, images_per_job=1)
        cvat.finish(task)
        assert form(bridge, f"task={task.id}")["subject"]["unfinished"][0]["completed"] == 0
        cvat.complete(task)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", done_jobs="accepted") as bridge:
        assert form(bridge, f"task={task.id}")["subject"]["unfinished"] == []


def test_several_tasks_are_one_subject(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Blood", labels=("RBC",))
    one = bridge.cvat.add_blank_task("One", images=2, project=project)
    two = bridge.cvat.add_blank_task("Two", images=3, labels=("RBC", "extra"))
    bridge.cvat.add_box(one, 0, "RBC", (1, 1, 5, 5))
    bridge.cvat.add_box(two, 0, "RBC", (1, 1, 5, 5))
    subject = form(bridge, f"task={two.id}&task={one.id}")["subject"]
    assert subject["ids"] == sorted([one.id, two.id])
    assert (subject["images"], subject["boxes"], subject["title"]) == (5, 2, "One and 1 more")
    assert [(entry["name"], entry["boxes"]) for entry in subject["classes"]] == [("RBC", 2), ("extra", 0)]


def test_a_project_counts_its_tasks(bridge: Bridge) -> None:
    bridge.cvat.faults.page_size = 1
    project = bridge.cvat.add_project("Blood", labels=("RBC",))
    for name in ("One", "Two", "Three"):
        task = bridge.cvat.add_blank_task(name, images=2, project=project)
        bridge.cvat.add_box(task, 0, "RBC", (1, 1, 5, 5))
    subject = form(bridge, f"project={project.id}")["subject"]
    assert (subject["images"], subject["boxes"], subject["title"]) == (6, 3, "Blood")
    assert subject["url"] == f"https://cvat.example.org/projects/{project.id}"
    assert len(subject["unfinished"]) == 3


def test_too_much_to_read_is_not_counted(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvat_bridge.data_preview.MOST_ANNOTATION_BYTES", 100)
    task = bridge.cvat.add_drawn_task("Cells", images=2)
    tree = form(bridge, f"task={task.id}")
    assert tree["subject"]["boxes"] is None
    assert all(one["boxes"] is None for one in tree["subject"]["classes"])
    assert "were not counted" in texts(tree)


def test_annotations_that_cvat_takes_long_for_hold_up_neither_this_form_nor_the_next(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvat_bridge.data_preview.COUNTING_S", 0.4)
    bridge.cvat.faults.slow_annotations_s = 5.0
    tasks = [bridge.cvat.add_drawn_task("Cells", images=1) for _ in range(4)]
    began = time.monotonic()
    tree = form(bridge, "&".join(f"task={task.id}" for task in tasks))
    assert time.monotonic() - began < 4.9
    assert tree["subject"]["boxes"] is None
    assert "were not counted" in texts(tree)
    bridge.cvat.faults.slow_annotations_s = 0
    assert form(bridge, f"task={tasks[0].id}")["subject"]["boxes"] > 0


def test_annotations_that_cvat_fails_to_give_are_not_counted(bridge: Bridge) -> None:
    tasks = [bridge.cvat.add_drawn_task("Cells", images=1) for _ in range(3)]
    bridge.cvat.faults.annotation_errors = 1
    tree = form(bridge, "&".join(f"task={task.id}" for task in tasks))
    assert tree["subject"]["boxes"] is None
    assert "were not counted" in texts(tree)


def test_a_cvat_that_is_away_is_said_and_is_no_form(bridge: Bridge) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    bridge.cvat.faults.bad_gateway = True
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}")
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["text"].startswith("CVAT does not answer")


def key(frame: int, *, outside: bool = False, kind: str = "rectangle") -> Json:
    return {"frame": frame, "outside": outside, "type": kind}


@pytest.mark.parametrize(
    ("keys", "boxes"),
    [
        ([key(2), key(5, outside=True)], 3),
        ([key(0)], 10),
        ([key(12)], 8),
        ([key(0), key(3, outside=True), key(7), key(9, outside=True)], 5),
        ([key(5, outside=True)], 0),
        ([key(3), key(3)], 7),
    ],
)
def test_a_track_is_a_box_on_every_frame_that_it_is_on(keys: list[Json], boxes: int) -> None:
    counted = Counted()
    count_boxes({"size": 20, "segment_size": 10}, {"tracks": [{"label_id": 1, "shapes": keys}]}, counted)
    assert counted.images_with_boxes == counted.boxes[1] == boxes


def test_what_no_detector_learns_is_said_and_not_counted() -> None:
    counted = Counted()
    shapes = [{"type": kind, "label_id": 1, "frame": 0} for kind in ("rectangle", "mask", "points", "polyline")]
    count_boxes({"size": 1}, {"shapes": [*shapes, "nonsense"], "tags": [{}], "tracks": None}, counted)
    assert counted.boxes[1] == 2
    assert (counted.dropped["points"], counted.dropped["lines"], counted.dropped["tags"]) == (1, 1, 1)


def test_hostile_frames_are_no_long_loop() -> None:
    counted = Counted()
    track = {"label_id": 1, "shapes": [key(-5), key(10**12)]}
    count_boxes({"size": 3, "segment_size": 0}, {"tracks": [track]}, counted)
    assert counted.boxes[1] < 20


def test_hostile_names_travel_as_text(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task(HOSTILE, labels=(HOSTILE, "</script>"))
    task.own_labels[1].color = "red;background:url(//evil)"
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    subject = answer.json()["subject"]
    assert subject["title"] == HOSTILE
    assert [one["name"] for one in subject["classes"]] == [HOSTILE, "</script>"]
    assert subject["classes"][1]["color"] == "#808080"


# What may be chosen


def test_our_templates_are_offered_with_groups_help_and_bounds(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    tree = form(bridge, f"task={task.id}")
    assert [one["name"] for one in tree["templates"]] == ["cvat-train", "detr-annotate"]
    assert [one["trains"] for one in tree["templates"]] == [True, False]
    assert (tree["user"], tree["running"], tree["limit"]) == ({"name": "ann"}, 0, 2)
    assert [group["title"] for group in template(tree)["groups"]][:2] == ["Data", "Model"]
    epochs = fields(tree)["epochs"]
    assert (epochs["type"], epochs["minimum"], epochs["maximum"], epochs["required"]) == ("integer", 1, 10_000, False)
    assert fields(tree)["minutes"]["exclusiveMinimum"] == 0
    assert "<code>detr-r50</code>" in fields(tree)["model"]["help_html"]
    assert fields(tree)["seed"]["visibility"] == "expert"


def test_nobody_is_asked_for_what_the_bridge_fills(bridge: Bridge) -> None:
    tree = form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}")
    for name in ("cvat-subject", "cvat-grant", "store", "cvat-output-path", "cvat-annotation-path"):
        assert name not in fields(tree)
        assert name not in fields(tree, "detr-annotate")


def test_the_chart_may_narrow_a_choice_and_its_default(bridge: Bridge) -> None:
    tree = our_template("cvat-train")
    for parameter in tree["spec"]["arguments"]["parameters"]:
        if parameter["name"] == "model":
            parameter |= {"value": "tiny", "enum": ["tiny", "detr-r18"]}
        if parameter["name"] == "epochs":
            parameter |= {"value": "7"}
    bridge.kubernetes.add("workflowtemplates", "cvat-train", tree)
    found = fields(form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}"))
    assert found["model"]["default"] == "tiny"
    assert [one["value"] for one in found["model"]["choices"]] == ["tiny", "detr-r18"]
    assert found["epochs"]["default"] == "7"


def test_pools_have_titles_and_no_room_where_nodes_are_not_seen(bridge: Bridge) -> None:
    pool = fields(form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}"))["sys-node-pool"]
    assert (pool["type"], pool["default"], pool["required"]) == ("node-pool", "small", True)
    assert pool["choices"] == [
        {"value": "small", "title": "One T4", "detail": "g4dn, 1 GPU", "group": "", "available": None},
        {"value": "large", "title": "Eight A100", "detail": "p4d, 8 GPUs", "group": "", "available": None},
    ]
    assert not bridge.kubernetes.asked["list", "nodes"]


def node(name: str, pool: str, gpus: int) -> Json:
    return {
        "metadata": {"name": name, "labels": {"pool": pool}},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_pools_tell_their_room_where_nodes_are_seen(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path
) -> None:
    install(kubernetes, store)
    kubernetes.add("nodes", "a", node("a", "g4dn", 4))
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", controls={"nodes": True}) as bridge:
        found = fields(form(bridge, f"task={cvat.add_blank_task('Cells').id}"))["sys-node-pool"]["choices"]
    assert [(one["detail"], one["available"]) for one in found] == [
        ("g4dn, 1 GPU; 4 of 4 GPUs free", True),
        ("p4d, 8 GPUs; no machine is ready now", False),
    ]


@pytest.mark.parametrize(
    ("verb", "kind", "code"),
    [
        ("list", "nodes", 403),
        ("list", "nodes", 500),
        ("list", "pods", 403),
        ("list", "pods", 500),
        ("get", "configmaps", 403),
        ("get", "configmaps", 404),
        # They are listed for the form, and read one by one for the room.
        ("get", "workflowtemplates", 500),
    ],
)
def test_room_that_cannot_be_read_takes_neither_the_form_nor_a_run(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, verb: str, kind: str, code: int
) -> None:
    install(kubernetes, store)
    kubernetes.add("nodes", "a", node("a", "g4dn", 4))
    kubernetes.refused[verb, kind] = (code, "no")
    task = cvat.add_blank_task("Cells")
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", controls={"nodes": True}) as bridge:
        found = fields(form(bridge, f"task={task.id}"))["sys-node-pool"]["choices"]
        assert bridge.browser(cvat.ann).start(task=[task.id]).status_code == 201
    assert [(one["detail"], one["available"]) for one in found] == [("g4dn, 1 GPU", None), ("p4d, 8 GPUs", None)]


def test_a_template_of_somebody_else_is_offered_by_its_names(bridge: Bridge) -> None:
    bridge.kubernetes.add(
        "workflowtemplates",
        "yolo",
        {
            "metadata": {"labels": {"used-by": "cvat"}},
            "spec": {
                "arguments": {
                    "parameters": [
                        {"name": "cvat-annotation-path"},
                        {"name": "cvat-output-path", "value": ""},
                        {"name": "cvat-num-classes", "value": "1"},
                        {"name": "dump-format", "value": "cvat_yolo"},
                        {"name": "sys-node-pool", "value": "g4dn"},
                        {"name": "rate", "value": "0.1", "description": "See <b>this</b> [page](https://x.org/a)"},
                        {"name": "size", "enum": ["s", "m"], "value": "s", "displayName": "How large"},
                        {"name": "secret", "value": "1", "visibility": "private"},
                        {"name": "kind", "type": "hidden", "value": "1"},
                        {"name": "part", "type": "select.select", "options": [{"name": "a", "value": "A"}]},
                    ]
                }
            },
        },
    )
    bridge.kubernetes.add("workflowtemplates", "unlabelled", {"spec": {}})
    tree = form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}")
    assert {one["name"] for one in tree["templates"]} == {"cvat-train", "detr-annotate", "yolo"}
    found = fields(tree, "yolo")
    assert list(found) == ["sys-node-pool", "rate", "size", "part"]
    assert found["sys-node-pool"]["default"] == "small"
    assert found["size"]["title"] == "How large"
    assert found["size"]["type"] == found["part"]["type"] == "choice"
    assert "<b>" not in found["rate"]["help_html"]
    assert 'rel="noopener noreferrer"' in found["rate"]["help_html"]


def test_a_template_that_wants_tfrecord_says_that_it_cannot(bridge: Bridge) -> None:
    parameters = [{"name": "cvat-annotation-path"}, {"name": "dump-format", "value": "cvat_tfrecord"}]
    tree = {"metadata": {"labels": {"used-by": "cvat"}}, "spec": {"arguments": {"parameters": parameters}}}
    bridge.kubernetes.add("workflowtemplates", "old", tree)
    task = bridge.cvat.add_blank_task("Cells")
    found = template(form(bridge, f"task={task.id}"), "old")
    assert "CVAT cannot export" in found["help_html"]
    answer = bridge.browser(bridge.cvat.ann).start("old", task=[task.id])
    assert answer.status_code == 422
    assert "cvat_tfrecord" in answer.json()["errors"][0]["text"]


def test_a_broken_template_takes_no_other_from_the_form(bridge: Bridge) -> None:
    broken = {"metadata": {"labels": {"used-by": "cvat"}}, "spec": {"arguments": {"parameters": [{"value": 1}]}}}
    bridge.kubernetes.add("workflowtemplates", "broken", broken)
    tree = form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}")
    assert "cvat-train" in {one["name"] for one in tree["templates"]}


def test_an_annotation_that_is_nonsense_leaves_names_and_values(bridge: Bridge) -> None:
    tree = our_template("cvat-train")
    tree["metadata"]["annotations"]["detr-workflows/parameters"] = json.dumps({"version": 99, "parameters": "x"})
    bridge.kubernetes.add("workflowtemplates", "cvat-train", tree)
    found = fields(form(bridge, f"task={bridge.cvat.add_blank_task('Cells').id}"))
    assert "epochs" in found
    assert "cvat-grant" not in found


def test_kubernetes_away_is_a_sentence(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    bridge.kubernetes.refused["list", "workflowtemplates"] = (503, "etcd is away")
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}")
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["text"].startswith("The cluster does not answer")
    assert "etcd" not in answer.text


def test_a_missing_right_in_the_cluster_is_no_traceback(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    bridge.kubernetes.refused["list", "workflowtemplates"] = (403, "system:serviceaccount:ml:bridge cannot list")
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}")
    assert answer.status_code == 503
    assert "whoever runs this installation" in answer.json()["errors"][0]["text"]
    assert "serviceaccount" not in answer.text


@pytest.mark.parametrize(
    "markdown",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,xx)",
        "[x](vbscript:x)",
        "![x](https://tracker.example.org/p.png)",
        '[x](https://a.b/"onmouseover=alert(1))',
        "<https://a.b/><b onclick=x>",
        "```<script>\n</script>```",
        "[x]: javascript:alert(1)\n\n[x]",
    ],
)
def test_help_is_safe_html(markdown: str) -> None:
    html = safe_html(markdown)
    for bad in ("<script", "<img", "<b ", 'href="javascript', 'href="JaVa', 'href="data', 'href="vb', '"onmouse'):
        assert bad not in html


def test_a_seen_subject_does_not_show_its_session() -> None:
    seen = VisibleSubject(User(1, "ann"), Session("private"), Subject.tasks([8]), ())
    assert "private" not in repr(seen)


def test_long_videos_with_many_tracks_are_counted_by_their_ends() -> None:
    """Frame by frame this would be 10^10 of them."""
    keys = [{"type": "rectangle", "frame": 0}, {"type": "rectangle", "frame": 10, "outside": True}]
    tracks = [{"label_id": 1, "shapes": [{"type": "rectangle", "frame": 5}]} for _ in range(10_000)]
    counted = Counted()
    count_boxes({"size": 10**6}, {"tracks": [{"label_id": 2, "shapes": keys}, *tracks]}, counted)
    assert counted.boxes == {1: 10_000 * (10**6 - 5), 2: 10}
    assert counted.images_with_boxes == 10**6
