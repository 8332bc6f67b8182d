"""The whole loop: a click in CVAT, a model, and its boxes in CVAT's next task; and who may not."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import browser
from tests.browser.dialog import open_page
from tests.cluster.cluster import DONE, Installation, Json, node, outputs, phase, summary, told
from tests.cluster.cvat import CvatLoop, cvat_loop

__all__ = ["browser"]

SHORT = {
    "model": "tiny",
    "minutes": "0.5",
    "overrides": "data.min_sizes=[96] data.max_size=160 data.eval_size=96 data.batch_size=4 training.log_interval=5",
}
LABELLED, EMPTY = 0, 1
"""Which of the double's tasks."""


@pytest.fixture(scope="module")
def loop(bare: Installation) -> Iterator[CvatLoop]:
    with cvat_loop(bare) as found:
        yield found


@pytest.fixture
def page(browser: Browser, loop: CvatLoop) -> Iterator[Page]:
    """The annotator's window."""
    with loop.site() as origin:
        context = browser.new_context(base_url=origin, locale="en-GB")
        context.add_cookies([{"name": name, "value": text, "url": origin} for name, text in loop.cookies().items()])
        context.set_default_timeout(30_000)
        yield context.new_page()
        context.close()


def number_of(loop: CvatLoop, which: int) -> int:
    return loop.state()["tasks"][which]["id"]


def the_run(loop: CvatLoop, task: int, *, template: str = "cvat-train") -> Json:
    """The newest run of a task, as its page shows it."""
    answer = loop.get(f"api/runs?task={task}")
    assert answer.status_code == 200, answer.text
    return next(run for run in answer.json()["runs"] if run["template"] == template)


@pytest.fixture(scope="module")
def trained(loop: CvatLoop, browser: Browser) -> Json:
    """A run that was clicked for, through a lost bridge and a CVAT that is away while it exports."""
    installation, task = loop.installation, number_of(loop, LABELLED)
    with loop.site() as origin:
        context = browser.new_context(base_url=origin, locale="en-GB")
        context.add_cookies([{"name": name, "value": text, "url": origin} for name, text in loop.cookies().items()])
        page = context.new_page()
        page.set_default_timeout(30_000)
        form = open_page(page, f"/training-bridge/?task={task}")
        form.get_by_label("Model", exact=True).select_option("tiny")
        form.get_by_label("Minutes").fill("0.5")
        form.get_by_text("Expert settings").first.click()
        form.get_by_label("Configuration overrides").fill(SHORT["overrides"])
        loop.tell("faults", export_takes_s=8)
        form.get_by_role("button", name="Start run").click()
        page.wait_for_url("**run=cvat-train-*")
        context.close()
    name = the_run(loop, task)["name"]
    installation.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=bridge", "--wait=false")
    installation.wait(
        name, lambda wf: (node(wf, "export(0)") or {}).get("phase") in ("Running", *DONE), 120, "exporting"
    )
    loop.tell("away", seconds=15)
    installation.succeeded(name, timeout_s=600)
    return the_run(loop, task)


def test_a_click_leaves_a_model_metrics_and_a_report(loop: CvatLoop, trained: Json):
    workflow = loop.installation.workflow(trained["name"])
    assert [node(workflow, f"{step}(0)")["phase"] for step in ("export", "prepare", "train", "report")] == [
        "Succeeded"
    ] * 4
    assert trained["state"] == "succeeded"
    assert trained["results"]["ap"] == outputs(workflow)["ap"]
    assert trained["user"] == "ann"
    report = loop.get(trained["links"]["report"].removeprefix("/training-bridge/"))
    assert report.status_code == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert "<html" in report.text
    exports = [key for key in loop.installation.keys("cvat-exports/") if key.endswith("dataset.zip")]
    assert exports == [f"cvat-exports/task-{number_of(loop, LABELLED)}/{trained['name']}/dataset.zip"]
    assert {"checkpoint", "model", "report", "run.json"} <= {
        key.split("/")[3] for key in loop.installation.keys(f"workflow-data/output/{trained['name']}/")
    }


def test_the_token_and_the_key_are_in_the_steps_that_need_them_alone(loop: CvatLoop, trained: Json):
    seen = set()
    for pod in loop.installation.pods(trained["name"]):
        main = next(one for one in pod["spec"]["containers"] if one["name"] == "main")
        role = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        if any(variable["name"] == "CVAT_ACCESS_TOKEN" for variable in main["env"]):
            seen.add(role)
        # The exit handler writes the reason of a failure into the workflow, with an account of its own.
        assert any("serviceaccount" in mount["mountPath"] for mount in main["volumeMounts"]) == (role == "tell")
    assert seen == {"export"}


def test_the_model_is_listed_and_its_boxes_come_into_the_next_task(loop: CvatLoop, trained: Json):
    task = number_of(loop, EMPTY)
    before = loop.shapes(task)
    function = listed_function(loop, trained["name"])
    asked = {"function": function["id"], "task": task, "threshold": 0.02}
    answer = loop.double.ask("POST", "/api/lambda/requests", json=asked, cookies=loop.cookies(), headers=csrf(loop))
    assert answer.status_code == 200, answer.text
    drawn = loop.shapes(task)[len(before) :]
    assert drawn
    assert {shape["source"] for shape in drawn} == {"auto"}


def listed_function(loop: CvatLoop, run: str) -> Json:
    """The run's model on CVAT's page of models; the server looks for new ones twice a minute."""
    end = time.monotonic() + 120
    while True:
        functions = loop.double.ask("GET", "/api/lambda/functions", cookies=loop.cookies()).json()
        mine = [one for one in functions if run in one["id"]]
        if mine:
            assert len(mine) == 1, functions
            return mine[0]
        assert time.monotonic() < end, functions
        time.sleep(2)


def test_detr_annotate_adds_to_what_a_person_drew_and_changes_nothing_of_it(loop: CvatLoop, trained: Json):
    task = number_of(loop, LABELLED)
    by_hand = [shape for shape in loop.shapes(task) if shape["source"] == "manual"]
    given = {"trained-model": trained["model"]["url"], "threshold": "0.02", "device": "cpu"}
    answer = loop.click(request=str(uuid.uuid4()), task=[task], template="detr-annotate", parameters=given)
    assert answer.status_code == 201, answer.text
    loop.installation.succeeded(answer.json()["name"])
    after = loop.shapes(task)
    assert [shape for shape in after if shape["source"] == "manual"] == by_hand
    assert {shape["source"] for shape in after if shape not in by_hand} == {"auto"}


def test_two_clicks_at_once_are_one_run_and_a_stranger_has_none(loop: CvatLoop):
    task = number_of(loop, LABELLED)
    body = {"request": str(uuid.uuid4()), "task": [task], "template": "cvat-train", "parameters": SHORT}
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: loop.click(**body), range(2)))
    assert sorted(one.status_code for one in both) == [200, 201], [one.text for one in both]
    assert len({one.json()["name"] for one in both}) == 1
    name = both[0].json()["name"]
    stranger = [
        loop.click("bob", **{**body, "request": str(uuid.uuid4())}),
        loop.get(f"api/form?task={task}", "bob"),
        loop.get(f"api/runs?task={task}", "bob"),
    ]
    assert [one.status_code for one in stranger] == [403, 403, 403]
    nobody = loop.get("api/form?task=999999", "bob")
    assert (nobody.status_code, nobody.json()) == (403, stranger[1].json())
    hidden = loop.get(f"api/runs/{name}", "bob")
    assert (hidden.status_code, hidden.json()) == same_as_no_run(loop)
    stopped = stop(loop, name)
    assert stopped.status_code == 200, stopped.text
    assert phase(loop.installation.finished(name)) == "Failed"


def same_as_no_run(loop: CvatLoop) -> tuple[int, Json]:
    """What is said of a run that is not there."""
    answer = loop.get("api/runs/cvat-train-zzzzz", "bob")
    return answer.status_code, answer.json()


def stop(loop: CvatLoop, name: str) -> httpx.Response:
    headers = {"Origin": loop.origin, "Sec-Fetch-Site": "same-origin", "X-Training-Bridge": "1"}
    path = f"/training-bridge/api/runs/{name}/stop"
    return loop.bridge.ask("POST", path, json={}, headers=headers, cookies=loop.cookies())


def csrf(loop: CvatLoop) -> dict[str, str]:
    return {"X-CSRFToken": loop.cookies()["csrftoken"]}


def test_whoever_submits_without_a_click_gets_no_export(loop: CvatLoop, trained: Json):
    genuine = {
        one["name"]: one["value"]
        for one in loop.installation.workflow(trained["name"])["spec"]["arguments"]["parameters"]
    }
    task = number_of(loop, EMPTY)
    runs = {
        "no grant": {"cvat-subject": f"task:{task}", "cvat-grant": "detr1.e30.AAAA"},
        "another's": {"cvat-subject": f"task:{task}", "cvat-grant": genuine["cvat-grant"]},
    }
    names = {
        title: loop.installation.submit("cvat-train", **{key.replace("-", "_"): text for key, text in given.items()})
        for title, given in runs.items()
    }
    for title, sentence in (("no grant", "was not signed by this installation"), ("another's", "is for task:")):
        workflow = loop.installation.finished(names[title], timeout_s=180)
        assert phase(workflow) == "Failed", summary(workflow)
        assert sentence in told(workflow)
        assert node(workflow, "export(1)") is None, "it was tried again"


HOSTILE = "{{=24682468+11111111}} {{workflow.parameters.cvat-grant}} {{{=24682468+11111111}}}"
EVALUATED = "35793579"


def test_no_name_in_cvat_is_evaluated(loop: CvatLoop):
    """Pictures that are none make `prepare` end with a sentence that quotes their names."""
    project = loop.tell("projects", name=HOSTILE, labels=[HOSTILE])["id"]
    names = [f"{HOSTILE}.jpg", f"{HOSTILE} 2.jpg"]
    pictures = {"images": 2, "names": names, "damaged": True, "subset": HOSTILE.partition(" ")[0]}
    task = loop.tell("tasks", name=HOSTILE, project=project, **pictures)
    answer = loop.click(request=str(uuid.uuid4()), task=[task["id"]], template="cvat-train", parameters=SHORT)
    assert answer.status_code == 201, answer.text
    workflow = loop.installation.finished(answer.json()["name"], timeout_s=300)
    assert phase(workflow) == "Failed", summary(workflow)
    said = told(workflow)
    assert HOSTILE in said.replace("{ ", "{"), said
    assert "{{" not in said
    assert EVALUATED not in json.dumps(workflow)
    grant = next(one["value"] for one in workflow["spec"]["arguments"]["parameters"] if one["name"] == "cvat-grant")
    assert grant not in said


@pytest.fixture
def template_of_others(loop: CvatLoop) -> str:
    """A template with Onepanel's names, which counts the pictures and the boxes that it finds in its artifact."""
    ours = loop.installation.get("workflowtemplate", "detr-prepare")["spec"]
    counting = (
        "import json, pathlib, sys; data = pathlib.Path('/tmp/data'); "
        "tree = json.loads((data / 'annotations/instances_default.json').read_text()); "
        "pictures = [one for one in (data / 'images').rglob('*') if one.is_file()]; "
        "print('found', len(pictures), len(tree['images']), len(tree['annotations']), 'classes', sys.argv[1])"
    )
    step = next(one for one in ours["templates"] if one["name"] == "check")["container"]
    container = {key: step[key] for key in ("image", "imagePullPolicy", "securityContext", "resources")}
    container |= {"command": ["python", "-c", counting], "args": ["{{workflow.parameters.cvat-num-classes}}"]}
    container["volumeMounts"] = [{"name": "scratch", "mountPath": "/tmp"}]
    data = {"name": "data", "path": "/tmp/data", "s3": {"key": "{{workflow.parameters.cvat-annotation-path}}"}}
    parameters = [
        {"name": "cvat-annotation-path", "value": "annotation-dump/sample"},
        {"name": "cvat-num-classes", "value": "0"},
        {"name": "dump-format", "value": "cvat_coco"},
    ]
    spec = {
        **{
            key: ours[key] for key in ("serviceAccountName", "securityContext", "podSpecPatch", "artifactRepositoryRef")
        },
        "entrypoint": "count",
        "arguments": {"parameters": parameters},
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "templates": [{"name": "count", "inputs": {"artifacts": [data]}, "container": container}],
    }
    tree = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "count-them", "labels": {"used-by": "cvat"}},
        "spec": spec,
    }
    loop.installation.kubectl("apply", "-f", "-", stdin=json.dumps(tree))
    return "count-them"


def test_a_template_of_somebody_else_finds_the_export_where_it_looks(loop: CvatLoop, template_of_others: str):
    task = number_of(loop, LABELLED)
    end = time.monotonic() + 60
    while template_of_others not in [one["name"] for one in loop.get(f"api/form?task={task}").json()["templates"]]:
        assert time.monotonic() < end, "it is not offered"
        time.sleep(2)
    answer = loop.click(request=str(uuid.uuid4()), task=[task], template=template_of_others, parameters={})
    assert answer.status_code == 201, answer.text
    workflow = loop.installation.succeeded(answer.json()["name"])
    (pod,) = [
        one
        for one in loop.installation.pods(answer.json()["name"])
        if one["metadata"]["annotations"]["workflows.argoproj.io/node-name"].endswith(".run")
    ]
    log = loop.installation.kubectl("logs", pod["metadata"]["name"], "-c", "main")
    boxes = sum(shape["source"] == "manual" for shape in loop.shapes(task))
    found = re.search(r"found (\d+) (\d+) (\d+) classes (\d+)", log)
    assert found, f"{log}\n{summary(workflow)}"
    pictures = loop.task(task)["images"]
    assert (int(found[1]), int(found[2])) == (pictures, pictures)
    assert int(found[3]) >= boxes
    assert int(found[4]) == 5
