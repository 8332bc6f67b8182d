"""The model server as CVAT meets it: lists, calls, hostile images, bad models, and a store that goes away."""

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image

from detr_job.prediction.predictor import Predictor, upright_rgb
from detr_job.prediction.repeated import without_repeated
from model_server import app as app_module
from model_server import engine as engine_module
from model_server.engine import Engine
from object_store import open_store
from tests.model_server.model_stores import (
    CLASSES,
    CPU,
    Running,
    call_body,
    model_server,
    picture,
    pin,
    write_run,
    write_trained_model,
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def served(store: Path) -> Iterator[Running]:
    """One run of project 3."""
    write_run(store, "run-a", subject="project:3")
    with model_server(str(store)) as running:
        yield running


def test_a_trained_model_is_listed_in_the_form_of_a_nuclio_dashboard(served: Running):
    listed = served.functions()
    assert set(listed) == {"run-a", "project-3-newest"}
    function = listed["run-a"]
    assert function == served.client.get("/api/functions/run-a").json()
    assert function["metadata"]["name"] == "run-a"
    assert function["metadata"]["annotations"]["type"] == "detector"
    assert function["spec"]["description"] == (
        "Trained by run run-a, tiny; boxes with a score of at least 0.5 (the model has no threshold of its own)"
    )
    assert isinstance(function["status"]["httpPort"], int)
    labels = json.loads(function["metadata"]["annotations"]["spec"])
    assert [(each["name"], each["type"], each["attributes"]) for each in labels] == [
        ("disc", "rectangle", []),
        ("square", "rectangle", []),
    ]


def test_a_call_answers_what_the_model_sees(served: Running, store: Path):
    image = picture()
    answer = served.invoke("run-a", call_body(image, 0.01))
    assert answer.status_code == 200
    predictor = Predictor(str(store / "workflow-data/output/run-a/model"), CPU)
    expected = predictor(upright_rgb(image), 0.01)
    assert len(answer.json()) == len(expected) > 0
    for got, found in zip(answer.json(), expected, strict=True):
        left, top, width, height = found.bbox
        assert got["type"] == "rectangle"
        assert got["label"] == found.label in CLASSES
        assert float(got["confidence"]) == pytest.approx(found.score, abs=1e-4)
        assert got["points"] == pytest.approx([left, top, left + width, top + height], abs=0.01)


def test_the_threshold_is_the_call_s_or_else_the_installation_s(store: Path):
    write_run(store, "run-a")
    with model_server(str(store), threshold=0.0) as all_of_it:
        many = all_of_it.invoke("run-a", call_body(picture(), None)).json()
        none = all_of_it.invoke("run-a", call_body(picture(), 1.0)).json()
    assert len(many) > 10
    assert none == []


def test_without_a_threshold_in_call_and_settings_each_model_has_its_own(store: Path):
    """The order: the call, the installation, the model's operating point, 0.5 for models of older releases."""
    run = write_run(store, "run-a")
    write_run(store, "older")
    everything = Predictor(str(run / "model"), CPU)(upright_rgb(picture()), 0.0)
    disc = sorted((found.score for found in everything if found.label == "disc"), reverse=True)[2]
    config = json.loads((run / "model" / "config.json").read_text())
    point = {"threshold": 1.0, "classes": {"disc": disc}, "split": "val", "iou": 0.5, "boxes": {}}
    (run / "model" / "config.json").write_text(json.dumps(config | {"operating_point": point}))
    call = call_body(picture(), None)
    with model_server(str(store), threshold=None, engine=Engine(CPU, 3, keep_repeated=True)) as running:
        own = running.invoke("run-a", call).json()
        assert [each["label"] for each in own] == ["disc"] * 3
        assert len(running.invoke("run-a", call_body(picture(), 0.0)).json()) == len(everything)
        assert running.invoke("older", call).json() == [], "all scores of this one are below 0.5"
        described = running.functions()["run-a"]["spec"]["description"]
        assert described == f"Trained by run run-a, tiny; boxes with a score of at least 1 (disc {disc:.3g})"
        assert "a score of at least 0.5 (" in running.functions()["older"]["spec"]["description"]
    with model_server(str(store), threshold=0.0, engine=Engine(CPU, 3, keep_repeated=True)) as running:
        assert len(running.invoke("run-a", call).json()) == len(everything)
        described = running.functions()["run-a"]["spec"]["description"]
        assert described == "Trained by run run-a, tiny; boxes with a score of at least 0 (set by the installation)"


def test_a_second_class_on_the_same_box_is_left_out_unless_the_installation_keeps_it(store: Path):
    run = write_run(store, "run-a")
    call = call_body(picture(), 0.0)
    everything = Predictor(str(run / "model"), CPU)(upright_rgb(picture()), 0.0)
    expected = without_repeated(everything)
    assert len(expected) < len(everything)
    with model_server(str(store)) as running:
        found = running.invoke("run-a", call).json()
    assert [(each["label"], each["points"]) for each in found] == [(each.label, each.corners) for each in expected]
    with model_server(str(store), engine=Engine(CPU, 3, keep_repeated=True)) as running:
        assert len(running.invoke("run-a", call).json()) == len(everything)


def test_the_number_of_boxes_follows_the_queries_and_a_cut_is_logged(store: Path, caplog: pytest.LogCaptureFixture):
    sizes = {"data.min_sizes": "[240]", "data.eval_size": 240, "data.max_size": 320}
    run = write_run(store, "run-a")
    write_trained_model(run / "model", ("square",), **sizes, **{"model.queries": 450})
    with model_server(str(store)) as running:
        answer = running.invoke("run-a", call_body(picture(320, 240), 0.0)).json()
        assert len(answer) == 450
        assert "boxes cut" not in caplog.messages
        running.invoke("run-a", call_body(picture(320, 240), 1e-6))
    record = next(each for each in caplog.records if each.message == "boxes cut")
    assert record.reason.startswith("this model finds at most 450 boxes in an image (model.queries=450)")


def test_an_image_is_turned_as_in_training(served: Running):
    """A file whose EXIF says that it lies on its side gives the boxes of the upright picture."""
    upright = Image.open(io.BytesIO(picture(120, 60)))
    lying, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(lying, "PNG", exif=exif)
    expected = served.invoke("run-a", call_body(picture(120, 60))).json()
    assert served.invoke("run-a", call_body(lying.getvalue())).json() == expected


def bomb() -> bytes:
    """Few bytes that say they are more pixels than anybody should unpack."""
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"no image at all", "not an image"),
        (picture()[:300], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (bomb(), "pixels"),
        (b"", "no image"),
    ],
    ids=["text", "cut", "postscript", "bomb", "empty"],
)
def test_a_hostile_image_is_a_sentence(served: Running, image: bytes, said: str):
    answer = served.invoke("run-a", call_body(image))
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert served.invoke("run-a", call_body(picture())).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"image": 3}',
        b'{"image": "not base64!"}',
        b'{"image": "aGk=", "threshold": "high"}',
        b'{"image": "aGk=", "threshold": 7}',
        b"\xff\xfe",
    ],
)
def test_a_call_of_another_form_is_a_sentence(served: Running, body: bytes):
    answer = served.invoke("run-a", body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_what_newer_versions_of_cvat_send_beside_the_image_does_not_matter(served: Running):
    call = {"image": base64.b64encode(picture()).decode(), "threshold": 0.01, "roi": None, "conv_mask_to_poly": True}
    assert served.invoke("run-a", json.dumps(call).encode()).status_code == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_a_strange_size_is_annotated_all_the_same(served: Running, size: tuple[int, int]):
    assert served.invoke("run-a", call_body(picture(*size))).status_code == 200


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_images_of_every_kind_are_annotated(served: Running, mode: str):
    file = io.BytesIO()
    Image.new(mode, (50, 40)).save(file, "TIFF")
    assert served.invoke("run-a", call_body(file.getvalue())).status_code == 200


def test_an_image_that_is_too_large_is_refused_before_it_is_read(served: Running, monkeypatch):
    monkeypatch.setattr(app_module, "MOST_BODY_BYTES", 100_000)
    answer = served.invoke("run-a", b"x" * 100_001)
    assert answer.status_code == 413
    assert "at most" in answer.json()["error"]


def test_a_call_that_does_not_say_how_long_it_is_is_refused(served: Running):
    headers = {"x-nuclio-function-name": "run-a"}
    answer = served.client.post("/api/function_invocations", content=iter([call_body(picture())]), headers=headers)
    assert answer.status_code == 411


@pytest.mark.parametrize("name", ["", "nobody", "../../etc/passwd", "x" * 2000])
def test_a_function_that_is_not_there_is_a_sentence(served: Running, name: str):
    answer = served.invoke(name, call_body(picture()))
    assert answer.status_code == 404
    assert "there is no" in answer.json()["error"]
    assert len(answer.content) < 300


def test_a_model_that_appears_between_two_looks_can_be_called(served: Running, store: Path, monkeypatch):
    monkeypatch.setattr("model_server.listing.LOOK_AGAIN_S", 0.0)
    write_run(store, "run-b")
    assert served.invoke("run-b", call_body(picture())).status_code == 200
    assert "run-b" in served.functions()


def test_one_bad_model_does_not_take_the_others_down(store: Path):
    write_run(store, "good")
    for name in ("half", "future", "torn", "unfinished"):
        write_run(store, name, age_s=100)
    folder = store / "workflow-data/output"
    weights = folder / "half/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "future/model/config.json").write_text('{"format": 99}')
    (folder / "torn/model/config.json").write_text('{"format": 1, "classes"')
    (folder / "unfinished/model/model.safetensors").unlink()
    with model_server(str(store)) as running:
        # Only the weights' content is not looked at before somebody asks for them.
        assert set(running.functions()) == {"good", "half"}
        answer = running.invoke("half", call_body(picture()))
        assert answer.status_code == 500
        assert "damaged" in answer.json()["error"]
        assert set(running.functions()) == {"good"}
        running.look_again()
        assert set(running.functions()) == {"good"}
        assert running.invoke("good", call_body(picture())).status_code == 200
        state = running.client.get("/readyz")
        assert state.status_code == 200
        reasons = {one["model"].split("/")[-2]: one["reason"] for one in state.json()["left_out"]}
        assert set(reasons) == {"half", "future", "torn", "unfinished"}
        assert "format 99" in reasons["future"]
        text = running.client.get("/metrics").text
        assert 'output/future/model",reason="config"} 1.0' in text
        assert 'output/half/model",reason="load"} 1.0' in text
        assert 'detr_models_calls_total{function="good",outcome="answered"} 1.0' in text
        # Its files are replaced: it is another model now.
        write_run(store, "half", seed=2)
        running.look_again()
        assert running.invoke("half", call_body(picture())).status_code == 200


def test_the_last_list_stays_when_the_store_goes_away(served: Running, store: Path):
    assert served.invoke("run-a", call_body(picture())).status_code == 200
    away = store.with_name("away")
    store.rename(away)
    store.write_text("not a folder")
    served.look_again()
    assert "run-a" in served.functions()
    state = served.client.get("/readyz")
    assert state.status_code == 200
    assert state.json()["store"] != "ok"
    # What is in memory goes on working.
    assert served.invoke("run-a", call_body(picture())).status_code == 200
    store.unlink()
    away.rename(store)
    served.look_again()
    assert served.client.get("/readyz").json()["store"] == "ok"


def test_the_server_is_not_ready_before_its_first_list(tmp_path: Path):
    (tmp_path / "store").write_text("not a folder")
    with model_server(str(tmp_path / "store")) as running:
        assert running.client.get("/readyz").status_code == 503
        assert running.client.get("/healthz").status_code == 200
        assert running.functions() == {}


def test_a_store_without_runs_is_an_empty_list(tmp_path: Path):
    with model_server(str(tmp_path / "store")) as running:
        assert running.functions() == {}
        assert running.client.get("/readyz").status_code == 200


def test_models_are_found_and_read_in_a_bucket(store: Path, bucket: str):
    run = write_run(store, "run-a", subject="task:8")
    s3 = open_store(f"s3://{bucket}/some/place", retry_for_s=0)
    s3.put_folder(run, "workflow-data/output/run-a")
    # What others leave in a bucket and no folder could hold.
    s3.put_bytes("workflow-data/output/half/model/config.json", b"{}")
    s3.put_bytes(
        "cvat-models/task-8.json", json.dumps({"model": f"{s3.url}/workflow-data/output/run-a/model"}).encode()
    )
    with model_server(s3.url) as running:
        assert set(running.functions()) == {"run-a", "task-8-newest"}
        assert "chosen by hand" in running.functions()["task-8-newest"]["metadata"]["annotations"]["name"]
        assert running.invoke("task-8-newest", call_body(picture())).status_code == 200


def test_only_a_few_models_stay_in_memory(store: Path):
    for name in ("a", "b", "c"):
        write_run(store, name)
    loads: list[str] = []

    def load(url: str, device: torch.device) -> Predictor:
        loads.append(url.split("/")[-2])
        return Predictor(url, device)

    with model_server(str(store), engine=Engine(CPU, 2, load=load)) as running:
        for name in ("a", "b", "a", "c", "a", "b"):
            assert running.invoke(name, call_body(picture())).status_code == 200
        # c pushed b out, which was used before a; b pushed out c.
        assert loads == ["a", "b", "c", "b"]
        assert "detr_models_loaded 2.0" in running.client.get("/metrics").text


def test_many_calls_at_once_load_a_model_once_and_are_all_answered(store: Path):
    write_run(store, "a")
    loads: list[str] = []

    def load(url: str, device: torch.device) -> Predictor:
        loads.append(url)
        return Predictor(url, device)

    images = [picture(seed=seed) for seed in range(8)]
    with model_server(str(store), engine=Engine(CPU, 2, load=load)) as running, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: running.invoke("a", call_body(image)).json(), images))
        alone = [running.invoke("a", call_body(image)).json() for image in images]
    assert len(loads) == 1
    assert answers == alone


def test_calls_beyond_the_queue_are_sent_away_with_a_sentence(store: Path, monkeypatch):
    write_run(store, "a")
    monkeypatch.setattr(app_module, "MOST_CALLS", 2)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def load(url: str, device: torch.device) -> Predictor:
        begun.release()
        assert go_on.wait(30)
        return Predictor(url, device)

    with model_server(str(store), engine=Engine(CPU, 2, load=load)) as running, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(running.invoke, "a", call_body(picture())) for _ in range(2)]
        assert begun.acquire(timeout=30)
        while running.server.calls < 2:
            pass
        beyond = running.invoke("a", call_body(picture()))
        assert beyond.status_code == 503
        assert beyond.headers["retry-after"] == "5"
        assert "try again" in beyond.json()["error"]
        # The list and the probes do not wait for the device.
        assert "a" in running.functions()
        go_on.set()
        assert [each.result(60).status_code for each in waiting] == [200, 200]
        assert running.server.calls == 0
        assert running.server.bytes_held == 0


def test_the_newest_model_of_a_project_is_always_under_the_same_name(store: Path):
    write_run(store, "older", subject="project:3", classes=("disc",), age_s=50)
    with model_server(str(store)) as running:
        before = running.functions()["project-3-newest"]
        newer = write_run(store, "newer", subject="project:3", classes=("square",))
        running.look_again()
        after = running.functions()["project-3-newest"]
        assert "disc" in before["metadata"]["annotations"]["name"]
        assert "square" in after["metadata"]["annotations"]["name"]
        # The newest turns out to be broken: the one before it takes its place.
        (newer / "model/config.json").write_text("{")
        running.look_again()
        assert running.functions()["project-3-newest"] == before


def test_a_person_s_choice_comes_before_the_newest_and_is_never_too_old(store: Path):
    old = write_run(store, "old", subject="project:3", classes=("disc",), age_s=500)
    for number in range(4):
        write_run(store, f"new-{number}", subject="project:3", classes=("square",), age_s=number)
    pin(store, "project-3", old)
    with model_server(str(store), most=2) as running:
        listed = running.functions()
        assert set(listed) == {"project-3-newest", "new-0", "new-1", "old"}
        title = listed["project-3-newest"]["metadata"]["annotations"]["name"]
        assert title.startswith("Project 3, chosen by hand: disc · AP 0.51 · ")
        answer = running.invoke("project-3-newest", call_body(picture())).json()
        assert {each["label"] for each in answer} == {"disc"}


def test_the_model_server_writes_nothing_into_the_store(store: Path):
    run = write_run(store, "run-a", subject="project:3")
    broken = write_run(store, "broken", subject="project:3", age_s=500)
    (broken / "model/config.json").write_text("{")
    pin(store, "project-3", run)

    def state() -> dict[Path, tuple[int, int]]:
        # A file that was written and removed again leaves its folder's time.
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (store, *store.rglob("*"))}

    before = state()
    with model_server(str(store)) as running:
        assert running.invoke("project-3-newest", call_body(picture())).status_code == 200
        running.look_again()
        assert running.client.get("/readyz").json()["left_out"]
    assert state() == before


def test_a_choice_that_cannot_be_read_leaves_the_newest(store: Path, caplog: pytest.LogCaptureFixture):
    run = write_run(store, "run-a", subject="project:3")
    gone = write_run(store, "gone", subject="project:3")
    pin(store, "project-3", gone)
    shutil.rmtree(gone)
    (store / "cvat-models" / "task-8.json").write_text("{")
    (store / "cvat-models" / "task-9.json").write_text('{"model": "file:///etc"}')
    (store / "cvat-models" / "task-10.json").write_text(json.dumps({"model": f"{store.as_uri()}/../../etc"}))
    (store / "cvat-models" / "task-11.json").write_text("[]")
    (store / "cvat-models" / "task-12.json").write_text("[" * 100_000)
    twice = f'{{"model": "{(run / "model").as_uri()}", "model": "{(gone / "model").as_uri()}"}}'
    (store / "cvat-models" / "task-13.json").write_text(twice)
    with model_server(str(store)) as running:
        listed = running.functions()
        assert set(listed) == {"run-a", "project-3-newest"}
        assert run.name in listed["project-3-newest"]["spec"]["description"]
        left_out = running.client.get("/readyz").json()["left_out"]
        assert [one["model"] for one in left_out] == [(gone / "model").as_uri()]
    assert 'cvat-models/task-13.json: the key "model" is given twice' in caplog.text


def test_tasks_that_models_were_trained_on_do_not_lengthen_the_list(store: Path):
    for number in range(5):
        write_run(store, f"run-{number}", subject=f"task:{number + 1}", age_s=number)
    write_run(store, "long-ago", subject="project:3", age_s=100)
    with model_server(str(store), most=2) as running:
        assert set(running.functions()) == {"run-0", "run-1", "task-1-newest", "task-2-newest", "project-3-newest"}


def test_files_that_are_nested_too_deep_are_no_ones(store: Path):
    write_run(store, "run-a")
    (write_run(store, "run-b") / "run.json").write_text("[" * 100_000)
    (write_run(store, "run-c") / "model" / "config.json").write_text("[" * 100_000)
    (store / "cvat-models").mkdir()
    (store / "cvat-models" / "project-3.json").write_text("[" * 100_000)
    with model_server(str(store)) as running:
        assert set(running.functions()) == {"run-a", "run-b"}


def test_weights_that_fill_the_memory_are_left_out(store: Path):
    write_run(store, "run-a")
    with (write_run(store, "run-b") / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(3 << 30)
    with model_server(str(store)) as running:
        assert set(running.functions()) == {"run-a"}
        (left_out,) = running.client.get("/readyz").json()["left_out"]
        assert "larger than 2 GiB" in left_out["reason"]


def test_a_device_that_answers_no_more_ends_the_process_s_health(store: Path, monkeypatch):
    write_run(store, "run-a")

    def struck(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with model_server(str(store)) as running:
        monkeypatch.setattr(Predictor, "detect", struck)
        assert running.invoke("run-a", call_body(picture())).status_code == 500
        assert httpx.get(f"{running.url}/healthz").status_code == 200
        monkeypatch.setattr(engine_module, "still_answers", lambda _: False)
        answer = running.invoke("run-a", call_body(picture()))
        assert (answer.status_code, "no longer responds" in answer.text) == (503, True)
        assert running.client.get("/healthz").status_code == 503
