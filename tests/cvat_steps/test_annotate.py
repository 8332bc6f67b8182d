"""The step `annotate` against the double: what it adds, what it leaves, and what it does when CVAT is not well."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cvat_client.errors import (
    BridgeError,
    CvatAddressError,
    CvatRefusedError,
    CvatTokenError,
    CvatUnavailableError,
    GrantError,
)
from cvat_client.grants import Grant, Purpose, sign
from cvat_client.patience import Pace
from cvat_client.subject import Subject
from cvat_steps import annotated_tasks
from cvat_steps.annotate import AnnotateRequest, annotate
from detr_job.errors import JobError
from tests.cvat_double import CvatDouble
from tests.cvat_double.server import running
from tests.cvat_double.world import Frame, Task
from tests.data_prep.export_builder import png_claiming
from tests.model_server.model_stores import OUTPUT, write_run

KEY = "0123456789abcdef0123456789abcdef"
BOX = [10.0, 10.0, 40.0, 40.0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated_tasks, "PACE", Pace(0.05, 0.1))
    monkeypatch.setattr(annotated_tasks, "AFTER_WRITING", Pace(0.05, 0.1))
    monkeypatch.delenv("DETR_WORKFLOWS_SETTINGS", raising=False)


@dataclass
class Step:
    """A step's command and environment."""

    cvat: CvatDouble
    folder: Path
    subject: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def request(self) -> AnnotateRequest:
        grant = Grant(Subject.parse(self.subject), "ann", int(time.time()) + 60, Purpose.ANNOTATE)
        values = {
            "store": str(self.folder / "store"),
            "subject": self.subject,
            "grant": sign(grant, KEY.encode()),
            "model": f"{OUTPUT}/run-a/model",
            "threshold": 0.008,
            "device": "cpu",
            "out": self.folder / "out",
        }
        return AnnotateRequest(**{**values, **self.options})

    def surroundings(self) -> dict[str, str]:
        settings = {
            "version": 1,
            "cvat": {"url": self.cvat.url, "publicOrigin": "https://cvat.example.org"},
            **self.settings,
        }
        path = self.folder / "bridge.yaml"
        path.write_text(yaml.safe_dump(settings))
        return {
            "CVAT_BRIDGE_SETTINGS": str(path),
            "CVAT_BRIDGE_SIGNING_KEY": KEY,
            "CVAT_ACCESS_TOKEN": self.cvat.service.token,
            **self.environment,
        }

    def runs(self, patience_s: float = 20, **options: Any) -> str:
        self.options.update(options)
        said = annotate(self.request(), self.surroundings(), patience_s=patience_s)
        assert (self.folder / "out/outputs/message").read_text() == said
        return said


@pytest.fixture
def step(cvat: CvatDouble, tmp_path: Path) -> Callable[..., Step]:
    write_run(tmp_path / "store", "run-a")

    def made(*tasks: Task, **more: Any) -> Step:
        return Step(cvat, tmp_path, ",".join(f"task:{task.id}" for task in tasks), **more)

    return made


@pytest.fixture
def task(cvat: CvatDouble) -> Task:
    """Drawn pictures in two chunks; the model knows `disc` and `square`, this task also others."""
    return cvat.add_drawn_task("Parts", images=4, project=cvat.add_project("All", labels=LABELS), with_boxes=False)


LABELS = ("disc", "square", "bolt", "nut", "washer")


def sources(task: Task) -> dict[str, int]:
    return {source: sum(each["source"] == source for each in task.shapes) for source in ("manual", "auto", "semi-auto")}


def places(task: Task) -> list[tuple[int, int, tuple[float, ...]]]:
    return sorted((each["frame"], each["label_id"], tuple(each["points"])) for each in task.shapes)


def test_boxes_appear_in_the_task_as_automatic_shapes(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    said = step(task).runs()
    assert task.shapes
    assert said == f"{len(task.shapes)} boxes added on 4 images of 1 task."
    assert sources(task) == {"manual": 0, "auto": len(task.shapes), "semi-auto": 0}
    assert {each["frame"] for each in task.shapes} <= {0, 1, 2, 3}
    assert {cvat.label_names(task)[each["label_id"]] for each in task.shapes} <= {"disc", "square"}
    for each in task.shapes:
        x1, y1, x2, y2 = each["points"]
        frame = task.frames[each["frame"]]
        assert 0 <= x1 <= x2 <= frame.width
        assert 0 <= y1 <= y2 <= frame.height
        assert 0.008 <= each["score"] <= 1


def test_a_second_class_on_the_same_box_is_left_out_unless_it_is_wanted(task: Task, step: Callable[..., Step]):
    def twice() -> int:
        seen = [(each["frame"], tuple(each["points"])) for each in task.shapes]
        return len(seen) - len(set(seen))

    one = step(task)
    one.runs(threshold=0.0)
    assert task.shapes
    assert twice() == 0
    one.runs(threshold=0.0, existing="replace-all", repeated="keep")
    everything = len(task.shapes)
    assert twice() == everything // 2, "each query gives both classes one box"
    one.settings["models"] = {"keepRepeated": True}
    one.runs(threshold=0.0, existing="replace-all", repeated="remove")
    assert len(task.shapes) == everything, "the installation keeps them"
    with pytest.raises(BridgeError, match=r"--repeated must be one of remove, keep, not 'both'"):
        one.runs(repeated="both")


def test_an_empty_threshold_is_the_installation_s_or_the_model_s_own(
    task: Task, step: Callable[..., Step], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / "store" / OUTPUT / "run-a" / "model" / "config.json"
    point = {"threshold": 1.0, "classes": {"disc": 0.0}, "split": "val"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"operating_point": point}))
    one = step(task, options={"repeated": "keep"})
    one.runs(threshold=None)
    own = len(task.shapes)
    assert {one.cvat.label_names(task)[each["label_id"]] for each in task.shapes} == {"disc"}
    assert "boxes with a score below 1 (disc 0) are left out: the model's own threshold" in capfd.readouterr().err
    one.settings["models"] = {"threshold": 1.0}
    assert one.runs(threshold=None, existing="replace-automatic") == (
        f"0 boxes added on 4 images of 1 task; {own} shapes removed."
    )
    one.runs(threshold=0.0)
    assert len(task.shapes) > own, "a number wins over both"
    process = start(one, "--threshold=high")
    assert process.communicate(timeout=120)[1].endswith(
        "error: --threshold: 'high' is not allowed; use a number from 0 to 1, or leave it empty\n"
    )


def test_a_second_run_adds_nothing(task: Task, step: Callable[..., Step]):
    one = step(task)
    one.runs()
    before = places(task)
    assert f"{len(before)} were there already" in one.runs()
    assert places(task) == before


def test_what_a_person_drew_is_kept(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    person = cvat.add_box(task, 0, "bolt", BOX)
    step(task).runs()
    assert person in task.shapes
    assert sources(task)["auto"] > 0


@pytest.mark.parametrize("source", ["manual", "semi-auto", "auto", "file"])
def test_nothing_is_added_where_a_box_of_the_label_is_whoever_drew_it(
    task: Task, step: Callable[..., Step], source: str
):
    one = step(task)
    one.runs()
    before = places(task)
    for each in task.shapes:
        each["source"] = source
    assert f"0 boxes added on 4 images of 1 task; {len(before)} were there already" in one.runs()
    assert places(task) == before


def test_a_step_lost_while_it_replaces_loses_no_shape_and_the_next_one_repairs_it(
    cvat: CvatDouble, task: Task, step: Callable[..., Step], monkeypatch
):
    person = cvat.add_box(task, 0, "bolt", BOX)
    one = step(task)
    one.runs()
    # In the places of the new ones: these must not keep the new ones from being added.
    before = list(task.shapes)

    def lost(_: annotated_tasks.CvatTask, __: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(annotated_tasks.CvatTask, "remove", lost)
        with pytest.raises(KeyboardInterrupt):
            one.runs(existing="replace-automatic")
    new = len(before) - 1
    assert all(each in task.shapes for each in before)
    assert len(task.shapes) == len(before) + new
    assert f"{2 * new} shapes removed" in one.runs()
    assert person in task.shapes
    assert places(task) == sorted((each["frame"], each["label_id"], tuple(each["points"])) for each in before)
    assert not any(each in task.shapes for each in before if each is not person)


def test_an_upload_that_never_arrived_is_sent_again_before_the_old_ones_go(
    task: Task, step: Callable[..., Step], monkeypatch
):
    """What is there already and will be removed says nothing about what has arrived."""
    one = step(task)
    one.runs()
    before, plain, fails = places(task), annotated_tasks.CvatTask.add, [1]

    def add(self: annotated_tasks.CvatTask, shapes: Any) -> None:
        if fails:
            fails.pop()
            raise CvatUnavailableError("status 503")
        plain(self, shapes)

    monkeypatch.setattr(annotated_tasks.CvatTask, "add", add)
    assert f"{len(before)} shapes removed" in one.runs(existing="replace-automatic")
    assert places(task) == before


def test_automatic_shapes_are_replaced_and_no_others(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    person = cvat.add_box(task, 0, "bolt", BOX)
    corrected = cvat.add_box(task, 0, "nut", BOX, source="semi-auto")
    old = [cvat.add_box(task, 1, "disc", BOX, source="auto") for _ in range(3)]
    tag = {"id": 900, "frame": 0, "label_id": task.labels[0].id, "source": "auto", "group": 0, "attributes": []}
    task.tags.append(tag)
    said = step(task).runs(existing="replace-automatic")
    assert "3 shapes removed" in said
    assert person in task.shapes
    assert corrected in task.shapes
    assert not any(each in task.shapes for each in old)
    assert task.tags == [tag]
    assert sources(task)["auto"] > 0


@pytest.mark.parametrize("file", [b"this is no image", png_claiming(1, 178_956_970)])
def test_automatic_shapes_stay_on_an_image_that_cannot_be_read(
    cvat: CvatDouble, task: Task, step: Callable[..., Step], file: bytes
):
    task.frames[1] = Frame(task.frames[1].name, 64, 64, file)
    there = cvat.add_box(task, 1, "disc", BOX, source="auto")
    going = cvat.add_box(task, 2, "disc", BOX, source="auto")
    said = step(task).runs(existing="replace-automatic")
    assert "1 shape removed; 1 image could not be read" in said
    assert there in task.shapes
    assert going not in task.shapes


def test_nothing_is_replaced_by_nothing_where_images_cannot_be_read(
    cvat: CvatDouble, task: Task, step: Callable[..., Step]
):
    person = cvat.add_box(task, 1, "bolt", BOX)
    task.frames[1] = Frame(task.frames[1].name, 64, 64, b"this is no image")
    with pytest.raises(BridgeError, match=rf"task {task.id} is left as it was: 1 image could not be read") as caught:
        step(task).runs(existing="replace-all")
    assert caught.value.exit_code == 2
    assert task.shapes == [person]
    other = cvat.add_drawn_task("Other", images=2, project=task.project, with_boxes=False)
    old = cvat.add_box(other, 0, "disc", BOX)
    said = step(task, other).runs(existing="replace-all")
    assert f"task {task.id} is left as it was" in said
    assert "on 2 images of 1 task" in said
    assert task.shapes == [person]
    assert old not in other.shapes


def test_tracks_are_said_not_to_be_compared(task: Task, step: Callable[..., Step]):
    label = task.labels[0].id
    task.tracks.append(
        {"id": 900, "frame": 0, "label_id": label, "group": 0, "source": "manual", "shapes": [], "attributes": []}
    )
    assert "has tracks, which stay" in step(task).runs()
    assert task.tracks


def test_everything_is_replaced_only_when_asked_for(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    cvat.add_box(task, 0, "bolt", BOX)
    step(task).runs(existing="replace-all")
    assert sources(task)["manual"] == 0
    assert sources(task)["auto"] == len(task.shapes) > 0


def test_a_project_is_all_of_its_tasks(cvat: CvatDouble, step: Callable[..., Step]):
    project = cvat.add_project("All", labels=LABELS)
    tasks = [cvat.add_drawn_task(f"T{n}", images=1, project=project, with_boxes=False) for n in range(12)]
    stranger = cvat.add_drawn_task("else", images=1, project=cvat.add_project("B", labels=LABELS), with_boxes=False)
    one = step()
    one.subject = f"project:{project.id}"
    assert "on 12 images of 12 tasks" in one.runs()
    assert all(task.shapes for task in tasks)
    assert not stranger.shapes


def test_classes_without_a_label_are_left_out_and_named(cvat: CvatDouble, step: Callable[..., Step]):
    task = cvat.add_drawn_task("P", images=2, project=cvat.add_project("B", labels=["square"]), with_boxes=False)
    said = step(task).runs()
    assert f"task {task.id} has no label for disc" in said
    assert {each["label_id"] for each in task.shapes} == {task.labels[0].id}


def test_a_label_that_takes_no_rectangles_is_none(task: Task, step: Callable[..., Step]):
    task.labels[0].type, task.labels[1].type = "polygon", "rectangle"
    assert "has no label for disc" in step(task).runs()


def test_a_task_with_other_labels_alone_is_a_mistake(cvat: CvatDouble, step: Callable[..., Step]):
    task = cvat.add_drawn_task(
        "P", images=1, project=cvat.add_project("B", labels=["<b>bolt</b>", "nut"]), with_boxes=False
    )
    cvat.add_box(task, 0, "nut", BOX, source="auto")
    before = places(task)
    with pytest.raises(BridgeError, match=r"none of the model's classes \(disc, square\) is a label of it") as caught:
        step(task).runs()
    assert caught.value.exit_code == 2
    assert "<b>bolt</b>, nut" in str(caught.value)
    assert places(task) == before


def test_deleted_frames_are_left_out(task: Task, step: Callable[..., Step]):
    task.deleted_frames.append(1)
    assert "on 3 images" in step(task).runs()
    assert 1 not in {each["frame"] for each in task.shapes}


def test_the_frames_of_a_video_are_annotated_too(task: Task, step: Callable[..., Step]):
    """CVAT has no chunks of images for them: each frame is asked for."""
    task.mode = "interpolation"
    assert "on 4 images of 1 task" in step(task).runs()
    assert task.shapes


def test_an_image_that_cannot_be_read_does_not_end_the_others(task: Task, step: Callable[..., Step]):
    task.frames[2] = Frame(task.frames[2].name, 10, 10, b"this is no image")
    said = step(task).runs()
    assert "on 3 images of 1 task" in said
    assert "1 image could not be read" in said


def test_a_task_of_which_nothing_can_be_read_is_a_mistake(cvat: CvatDouble, step: Callable[..., Step]):
    frames = [Frame("a.png", 10, 10, b"none")]
    task = cvat.add_task("P", frames, project=cvat.add_project("B", labels=LABELS))
    with pytest.raises(BridgeError, match="no image could be read"):
        step(task).runs()


def test_cvat_may_be_away_for_a_while(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    cvat.away_for(0.5)
    assert "4 images of 1 task" in step(task).runs()
    cvat.away_for(0.5, how="502")
    cvat.faults.cut_downloads = 1
    before = places(task)
    step(task).runs()
    assert places(task) == before


def test_errors_in_the_middle_are_asked_again_and_double_nothing(
    cvat: CvatDouble, task: Task, step: Callable[..., Step], monkeypatch
):
    """CVAT takes the shapes, and the answer is lost: what arrived is not sent again."""
    plain = annotated_tasks.CvatTask.add
    lost = [1]

    def add(self: annotated_tasks.CvatTask, shapes: Any) -> None:
        plain(self, shapes)
        if lost.pop() if lost else 0:
            cvat.faults.errors = 1
            self.add_nothing()

    def add_nothing(self: annotated_tasks.CvatTask) -> None:
        plain(self, [])

    monkeypatch.setattr(annotated_tasks.CvatTask, "add_nothing", add_nothing, raising=False)
    monkeypatch.setattr(annotated_tasks.CvatTask, "add", add)
    one = step(task)
    one.runs()
    monkeypatch.undo()
    before = places(task)
    assert before
    assert len(set(before)) == len(before)
    reference = cvat.add_drawn_task("Again", images=4, project=task.project, with_boxes=False)
    one.subject = f"task:{reference.id}"
    one.runs()
    assert places(reference) == before


def test_shapes_that_arrive_after_another_try_are_not_there_twice(task: Task, step: Callable[..., Step], monkeypatch):
    """A gateway gives up, CVAT behind it does not: the first request is done after the second."""
    plain, late = annotated_tasks.CvatTask.add, list[Any]()

    def add(self: annotated_tasks.CvatTask, shapes: Any) -> None:
        shapes = list(shapes)
        if not late:
            late.extend(shapes)
            raise CvatUnavailableError("status 504")
        plain(self, shapes)
        plain(self, late)

    monkeypatch.setattr(annotated_tasks.CvatTask, "add", add)
    said = step(task).runs()
    assert len(set(places(task))) == len(places(task)) > 0
    assert f"{len(task.shapes)} boxes added" in said


def test_a_page_instead_of_any_answer_is_waited_for(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    one, before = step(task), len(cvat.seen)
    one.runs()
    expected, asked = places(task), len(cvat.seen) - before
    for number in range(1, asked + 1):
        task.shapes.clear()
        cvat.faults.page_at = number
        one.runs()
        assert cvat.faults.page_at == 0
        assert places(task) == expected


def test_a_full_disk_is_a_sentence(task: Task, step: Callable[..., Step], monkeypatch):
    def read_file(_: Any, __: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(annotated_tasks.CvatTask, "read_file", read_file)
    with pytest.raises(BridgeError, match="give the step more ephemeral storage"):
        step(task).runs()


def test_cvat_away_for_too_long_passes(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    cvat.faults.bad_gateway = True
    with pytest.raises(
        CvatUnavailableError, match=r"with the status 502, for 0 s now: the step ends and is retried"
    ) as caught:
        step(task).runs(patience_s=0.2)
    assert caught.value.exit_code == 75


def test_a_token_that_cvat_does_not_accept_is_a_sentence(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    cvat.revoke(cvat.service)
    with pytest.raises(CvatTokenError, match="CVAT does not accept the service account's access token") as caught:
        step(task).runs()
    assert caught.value.exit_code == 2
    assert cvat.service.token not in str(caught.value)
    with pytest.raises(CvatTokenError, match="CVAT_ACCESS_TOKEN is not set"):
        step(task, environment={"CVAT_ACCESS_TOKEN": ""}).runs()


def test_a_redirect_is_not_followed(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    with running() as elsewhere:
        cvat.faults.redirect_to = elsewhere.url
        with pytest.raises(CvatAddressError, match=r"redirects to .* set cvat\.url") as caught:
            step(task).runs()
        assert caught.value.exit_code == 2
        assert elsewhere.seen == []


def test_a_task_that_the_account_may_not_see_is_a_sentence(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    with pytest.raises(CvatRefusedError, match=rf"CVAT does not let the service account do this.*\(tasks/{task.id}: "):
        step(task, environment={"CVAT_ACCESS_TOKEN": cvat.bob.token}).runs()
    one = step(task)
    one.subject = "task:999999"
    with pytest.raises(CvatRefusedError, match="CVAT has no tasks/999999: Not found"):
        one.runs()


def test_without_a_signature_nothing_is_asked(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    for grant in ("", "detr1.e30.AAAA", sign(Grant(Subject.tasks([4]), "ann", 2**40, Purpose.ANNOTATE), KEY.encode())):
        with pytest.raises(GrantError):
            step(task).runs(grant=grant)
    assert cvat.seen == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"existing": "drop"}, "--existing must be one of keep, replace-automatic, replace-all, not 'drop'"),
        ({"threshold": 1.5}, "--threshold must be from 0 to 1"),
    ],
)
def test_a_wrong_option_is_a_sentence(task: Task, step: Callable[..., Step], options: dict[str, Any], said: str):
    with pytest.raises(BridgeError, match=said):
        step(task).runs(**options)


def test_a_model_that_is_not_there_is_a_sentence(task: Task, step: Callable[..., Step]):
    with pytest.raises(JobError, match="there is no model at"):
        step(task).runs(model="workflow-data/output/nobody")


def test_argo_sees_how_far_it_is(task: Task, step: Callable[..., Step], tmp_path: Path):
    step(task, environment={"ARGO_PROGRESS_FILE": str(tmp_path / "progress")}).runs()
    assert (tmp_path / "progress").read_text() == "99/100\n"


def start(step: Step, *more: str) -> subprocess.Popen[str]:
    """The command itself, as the step runs it."""
    request = step.request()
    options = {"store": request.store, "subject": request.subject, "grant": request.grant, "model": request.model}
    options |= {"threshold": "0.008", "device": "cpu", "out": str(request.out)}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    environment = {**os.environ, **step.surroundings()}
    command = [sys.executable, "-c", "from cvat_bridge.cli import main; main()", "annotate", *arguments, *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_is_killed_and_tried_again(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    one = step(task)
    cvat.faults.slow_s = 0.05
    process = start(one)
    while not task.shapes and process.poll() is None:
        # As soon as the upload has arrived, while its answer is on its way.
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = places(task)
    assert before
    cvat.faults.slow_s = 0.0
    again = start(one)
    said, log = again.communicate(timeout=120)
    assert again.returncode == 0, log
    assert "were there already" in said
    assert places(task) == before


def test_the_command_says_what_is_wrong_in_one_line(cvat: CvatDouble, task: Task, step: Callable[..., Step]):
    cvat.revoke(cvat.service)
    process = start(step(task))
    _, log = process.communicate(timeout=120)
    assert process.returncode == 2
    assert log.strip().splitlines()[-1].startswith("error: CVAT does not accept the service account's access token")
    assert "Traceback" not in log
    assert cvat.service.token not in log
    assert json.dumps(KEY) not in log
