"""How the end of a workflow is told: the step's own sentence, without the words that Argo puts around it."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from workflows import outcome
from workflows.outcome import failed_nodes, post, report_json, sentence

COMMAND = Path(sys.executable).parent / "detr-workflows"
RETRY_SAYS = "retryStrategy.expression evaluated to false"


def node(name: str, message: str = "", finished: str = "2026-11-21T11:28:33Z") -> dict[str, str]:
    return {"displayName": name, "message": message, "phase": "Failed", "finishedAt": finished}


def failures(*nodes: dict[str, str]) -> str:
    """As Argo 3.7 fills the tag: the JSON, quoted once more."""
    return json.dumps(json.dumps([node("run-1"), *nodes]))


def said(*nodes: dict[str, str]) -> str:
    return sentence("run-1", "Failed", failures(*nodes))


# Seen on Argo 3.7.4 as {{workflow.failures}} in an argument.
SEEN = (
    r'"[{\"displayName\":\"oom\",\"message\":\"\",\"templateName\":\"main\",\"phase\":\"Failed\",\"podName\":\"oom\",'
    r"\"finishedAt\":\"2026-11-21T11:28:33Z\"},{\"displayName\":\"train(0)\",\"message\":\"main: OOMKilled (exit code "
    r"137)\",\"templateName\":\"train\",\"phase\":\"Failed\",\"podName\":\"oom-train-3682050965\",\"finishedAt\":\""
    r"2026-11-21T11:28:31Z\"},{\"displayName\":\"train\",\"message\":\"retryStrategy.expression evaluated to false\",\""
    r"templateName\":\"train\",\"phase\":\"Failed\",\"podName\":\"oom-train-4215655574\",\"finishedAt\":\""
    r'2026-11-21T11:28:33Z\"}]"'
)


def test_what_argo_hands_over_is_read():
    text = sentence("oom", "Failed", SEEN)
    assert text.startswith("train: out of memory: give the role train more memory")
    assert "smaller batch-size" in text


def test_a_steps_sentence_comes_without_argos_wrapping():
    assert said(node("check", "main: Error (exit code 2): epochs must be a number")) == (
        "check: epochs must be a number"
    )
    assert said(node("check", "Error (exit code 2): a: b (exit code 3): c")) == "check: a: b (exit code 3): c"


@pytest.mark.parametrize("of_retry", [RETRY_SAYS, "No more retries left", ""])
def test_a_retry_gives_way_to_its_last_attempt(of_retry: str):
    attempts = [node(f"train({number})", f"main: Error (exit code 75): store away {number}") for number in (10, 9, 0)]
    assert said(node("train", of_retry), *attempts) == "train: store away 10 (after 3 attempts)"


def test_an_attempt_that_a_later_one_made_good_is_not_what_failed():
    text = said(
        node("train(0)", "main: Error (exit code 143)", "2026-11-21T10:00:00Z"),
        node("report", RETRY_SAYS, "2026-11-21T12:00:00Z"),
        node("report(0)", "main: Error (exit code 2): no predictions", "2026-11-21T11:59:00Z"),
    )
    assert text == "report: no predictions"


def test_of_several_steps_the_first_to_fail_is_told():
    late, early = node("b", "pod deleted", "2026-11-21T12:00:00Z"), node("a", "odd words", "2026-11-21T11:00:00Z")
    assert said(late, early) == "a: odd words"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("main: OOMKilled (exit code 137)", "train: out of memory: give the role train more memory"),
        ("init: OOMKilled (exit code 137)", "train: out of memory in Argo's own container init: raise argo.executor"),
        ("wait: OOMKilled (exit code 137)", "train: out of memory in Argo's own container wait: raise argo.executor"),
        ("supervisor: OOMKilled (exit code 137): killed", "train: out of memory in Argo's own container supervisor"),
        ("wait: Error (exit code 64): failed to put file", "train: Argo's container wait failed: failed to put file"),
        ("main: Error (exit code 1)", "train: it failed with exit code 1; see its log"),
        ("main: Error (exit code 137)", "train: it was killed from outside (exit code 137): run it again"),
        ("Pod was active on the node longer than the specified deadline", "train: it exceeded its deadline (Pod was"),
        ("Unschedulable: 0/2 nodes are available", "train: its pod could not start: Unschedulable: 0/2 nodes"),
        ('ImagePullBackOff: Back-off pulling image "x"', "train: its pod could not start: ImagePullBackOff"),
        ("workflow shutdown with strategy:  Stop", "train: the workflow was stopped by a person"),
        ("pod deleted", "train: its pod is gone, and Argo does not say why. If it was deleted from outside, run it"),
        ("", "train: it failed, and Argo gives no reason"),
    ],
)  # fmt: skip
def test_what_the_cluster_says_is_put_in_words(message: str, words: str):
    assert said(node("train", message)).startswith(words)


def test_a_lost_pod_may_also_have_been_out_of_argos_memory():
    """Argo 4.1 puts `pod deleted` in the place of `wait: OOMKilled`."""
    assert "it may be out of memory in Argo's own container: raise argo.executor" in said(node("train", "pod deleted"))


HOSTILE = "{{=4241+1}} {{workflow.parameters.store}} {{{=len(sprig.until(900000000))}}}.jpg"


def test_failures_in_base64_are_read():
    text = failures(node("check", 'main: Error (exit code 2): "größer" 🦀 \\ {x}'))
    assert sentence("run-1", "Failed", base64.b64encode(text.encode()).decode()) == 'check: "größer" 🦀 \\ {x}'
    assert sentence("oom", "Failed", base64.b64encode(SEEN.encode()).decode()) == sentence("oom", "Failed", SEEN)


def test_a_name_from_the_data_stays_readable_and_is_no_tag_any_more():
    text = said(node("prepare", f"main: Error (exit code 2): image '{HOSTILE}' is there twice"))
    assert "{{" not in text
    assert text.replace("{ ", "{") == f"prepare: image '{HOSTILE}' is there twice"
    assert "{{" not in said(node("{{=1}}", "{{=1}}"))


def test_memory_of_a_step_without_batches_is_the_roles():
    assert said(node("report", "main: OOMKilled (exit code 137)")) == (
        "report: out of memory: give the role report more memory (resources in the chart's values)"
    )


def test_the_pod_that_failed_is_named_and_not_all_pods_of_its_step():
    text = failures(
        node("prepare-images", "child 'run-1-7' failed"),
        node("prepare-images(2:2)", "No more retries left"),
        node("prepare-images(2:2)(0)", "main: OOMKilled (exit code 137)"),
    )
    assert sentence("run-1", "Failed", text) == (
        "prepare-images(2:2): out of memory: give the role prepare more memory (resources in the chart's values)"
    )


NONE = ['"null"', "null", "[]", '"[]"', "", "{{workflow.failures}}", "{", '"{', "3", "bnVsbA=="]


@pytest.mark.parametrize("text", NONE)
def test_without_failures_there_is_nothing_to_read(text: str):
    assert failed_nodes(text, "run") == []
    assert sentence("run-1", "Succeeded", text) == ""
    assert "no step reported a reason" in sentence("run-1", "Failed", text)


# Seen likewise: Go escapes in its own way what it does not print.
SEEN_ODD = (
    r'"[{\"displayName\":\"odd\",\"message\":\"\",\"finishedAt\":\"2026-11-21T11:30:24Z\"},{\"displayName\":\"check\",'
    r"\"message\":\"main: Error (exit code 2): epochs: \\\"ten\\\" → \\\\back \u200b \x7f \U000e0001 \\n two\","
    r'\"finishedAt\":\"2026-11-21T11:30:21Z\"}]"'
)


def test_escapes_that_only_go_knows_are_read():
    text = sentence("odd", "Failed", SEEN_ODD)
    assert text == 'check: epochs: "ten" → \\back \u200b \x7f \U000e0001 \n two'


def test_a_step_that_was_started_without_the_graph_is_told_too():
    tree = [node("run-1", RETRY_SAYS), node("run-1(0)", "main: Error (exit code 2): no set")]
    assert sentence("run-1", "Failed", json.dumps(tree)) == "run-1: no set"


class Webhook:
    """A server that answers with the given codes in turn and keeps what it got."""

    def __init__(self) -> None:
        self.answers = [200]
        self.got: list[dict[str, Any]] = []
        self.path = "/hooks/T0SECRET"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(json.loads(body) | {"path": self.path, "type": self.headers["Content-Type"]})
                self.send_response(outer.answers.pop(0))
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.path}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.close()


REPORT = report_json("run-1", "detr-train", "Failed", "check: größer", "s3://bucket/out/run-1")


def test_the_webhook_gets_generic_json(webhook: Webhook):
    assert post(webhook.url + "\n", REPORT) == "the report was sent to the webhook"
    (got,) = webhook.got
    assert got.pop("finished").endswith("Z")
    assert got == {
        "version": 1,
        "run": "run-1",
        "template": "detr-train",
        "status": "Failed",
        "message": "check: größer",
        "output": "s3://bucket/out/run-1",
        "path": webhook.path,
        "type": "application/json; charset=utf-8",
    }


def test_a_template_that_is_not_known_is_left_out():
    assert "template" not in report_json("run-1", "", "Succeeded", "", "s3://bucket/out/run-1")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([503, 429, 204], "the report was sent to the webhook"),
        ([500, 500, 500], "the report was not sent to the webhook: it answered 500"),
        ([404], "the report was not sent to the webhook: it answered 404"),
        ([302], "the report was not sent to the webhook: it answered 302"),
        ([307], "the report was not sent to the webhook: it answered 307"),
    ],
)
def test_only_passing_faults_are_tried_again_and_no_redirect_is_followed(
    webhook: Webhook, answers: list[int], words: str
):
    webhook.answers = list(answers)
    assert post(webhook.url, REPORT, pause_s=0) == words
    assert len(webhook.got) == len(answers)
    assert {got["path"] for got in webhook.got} == {webhook.path}


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://host/T0SECRET", "T0SECRET", "", "http://", "http://[T0SECRET", "http://127.0.0.1:1/T0SECRET",
        "http://127.0.0.1:T0SECRET/", "http://a b/T0SECRET", "http://127.0.0.1:1/T0 SECRET", "http://host\x00T0SECRET/",
        f"http://{'T0SECRET' * 40}/",
    ],
)  # fmt: skip
def test_a_webhook_that_fails_is_one_line_without_its_url(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "TRIES", 1)
    words = post(url, REPORT)
    assert words.startswith("the report was not sent to the webhook: ")
    assert "SECRET" not in words
    assert "\n" not in words


def run_command(tmp_path: Path, status: str, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    options = {"run": "run-1", "status": status, "failures": text, "output-prefix": "out", "store": "s3://bucket"}
    return subprocess.run(
        [COMMAND, "outcome", *(f"--{name}={value}" for name, value in options.items())],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OUT": str(tmp_path)} | environment,
    )


def test_the_command_leaves_the_sentence_and_tells_the_webhook(tmp_path: Path, webhook: Webhook):
    text = failures(node("check", "main: Error (exit code 2): epochs must be a number"))
    done = run_command(tmp_path, "Failed", text, WEBHOOK_URL=webhook.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "run-1: Failed: check: epochs must be a number",
        "the report was sent to the webhook",
    ]
    assert (tmp_path / "outputs" / "message").read_text() == "check: epochs must be a number"
    assert webhook.got[0]["output"] == "s3://bucket/out/run-1"


def test_what_has_no_folder_is_told_with_the_store(tmp_path: Path, webhook: Webhook):
    options = ["--run=weights-1", "--status=Succeeded", "--store=s3://bucket/team"]
    environment = os.environ | {"OUT": str(tmp_path), "WEBHOOK_URL": webhook.url}
    subprocess.run([COMMAND, "outcome", *options], check=True, capture_output=True, env=environment)
    assert webhook.got[0]["output"] == "s3://bucket/team"


def test_a_good_run_has_no_message(tmp_path: Path):
    done = run_command(tmp_path, "Succeeded", '"null"')
    assert (done.returncode, done.stdout) == (0, "run-1: Succeeded\n")
    assert (tmp_path / "outputs" / "message").read_text() == ""


def test_the_command_takes_base64_and_leaves_no_tag(tmp_path: Path, webhook: Webhook):
    text = failures(node("prepare", f"main: Error (exit code 2): image '{HOSTILE}' is there twice"))
    done = run_command(tmp_path, "Failed", base64.b64encode(text.encode()).decode(), WEBHOOK_URL=webhook.url)
    left = (tmp_path / "outputs" / "message").read_text()
    assert (done.returncode, left.replace("{ ", "{")) == (0, f"prepare: image '{HOSTILE}' is there twice")
    assert "{{" not in left + done.stdout + webhook.got[0]["message"]


UNREADABLE = ["", "-- rubbish", "{{=sprig.b64enc(workflow.failures)}}", "AAAA", "/w==", "bnVsbA==", "[" * 50_000]


@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_nothing_makes_the_command_fail(tmp_path: Path, text: str):
    done = run_command(tmp_path, "Error", text, WEBHOOK_URL="gopher://T0SECRET")
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_the_command_needs_no_hera():
    code = "import sys, workflows.outcome, workflows.cli\nprint([m for m in sys.modules if m.startswith('hera')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
