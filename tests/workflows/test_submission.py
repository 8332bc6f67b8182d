"""`detr-workflows submit`: what is refused before anything is created, and what is created."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cli import RENDERED
from workflows.cluster.errors import ClusterError
from workflows.cluster.kubeconfig import find_access
from workflows.cluster.kubernetes import explained

__all__ = ["api", "command"]

SETTINGS = """
version: 1
store: s3://lab/team
readable: [s3://exports]
writable: [workflow-data]
nodePools:
- {name: small, labelValue: g4, gpuCount: 1}
- {name: large, labelValue: p5, gpuCount: 8}
"""


def spec(**parameters: Json) -> Json:
    return {"spec": {"arguments": {"parameters": [{"name": name, **rest} for name, rest in parameters.items()]}}}


@pytest.fixture
def foreign(api: FakeKubernetes) -> FakeKubernetes:
    """A template that somebody else made."""
    api.add(
        "workflowtemplates",
        "sums",
        spec(answer={"value": "42"}, fate={"enum": ["good", "bad"], "value": "good"}, must={}, none={"value": ""}),
    )
    return api


@pytest.fixture
def ours(api: FakeKubernetes) -> FakeKubernetes:
    """`detr-train` as the chart installs it."""
    tree = yaml.safe_load((RENDERED / "detr-train.yaml").read_text())
    for parameter in tree["spec"]["arguments"]["parameters"]:
        if parameter["name"] == "sys-node-pool":
            parameter |= {"value": "small", "enum": ["small", "large"]}
    api.add("workflowtemplates", "detr-train", tree)
    api.add("configmaps", "detr-workflows", {"data": {"settings.yaml": SETTINGS}})
    return api


def submitted(api: FakeKubernetes) -> dict[str, str]:
    (workflow,) = api.created
    return {one["name"]: one["value"] for one in workflow["spec"]["arguments"]["parameters"]}


def test_every_parameter_is_submitted_defaults_too(foreign: FakeKubernetes, command: Command):
    assert command("submit", "sums", "-p", "must=it = this, or that").code == 0
    assert submitted(foreign) == {"answer": "42", "fate": "good", "must": "it = this, or that", "none": ""}


def test_defaults_that_are_no_strings_are_submitted_as_argo_reads_them(api: FakeKubernetes, command: Command):
    api.add("workflowtemplates", "typed", spec(count={"value": 3, "enum": [3, 4]}, fast={"value": True}))
    assert command("submit", "typed").code == 0
    assert submitted(api) == {"count": "3", "fast": "true"}


def test_the_workflow_refers_to_the_template_and_changes_nothing_of_it(foreign: FakeKubernetes, command: Command):
    assert command("submit", "sums", "-p", "must=x").code == 0
    (workflow,) = foreign.created
    assert set(workflow["spec"]) == {"workflowTemplateRef", "arguments"}
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "sums"}
    assert re.fullmatch(r"sums-[a-z0-9]{5}", workflow["metadata"]["name"])


def test_name_labels_and_annotations_are_taken_over(foreign: FakeKubernetes, command: Command):
    ended = command(
        "submit", "sums", "-p", "must=x", "--name", "first", "--label", "team=a.b", "--annotation", "why=a, b = c"
    )
    assert ended.code == 0
    metadata = foreign.created[0]["metadata"]
    assert metadata["name"] == "first"
    assert metadata["labels"]["team"] == "a.b"
    assert metadata["annotations"]["why"] == "a, b = c"


def test_a_run_goes_to_the_controller_that_the_installation_belongs_to(api: FakeKubernetes, command: Command):
    label = "workflows.argoproj.io/controller-instanceid"
    api.add("workflowtemplates", "addressed", {**spec(), "metadata": {"labels": {label: "second"}}})
    assert command("submit", "addressed").code == 0
    assert api.created[0]["metadata"]["labels"][label] == "second"


@pytest.mark.usefixtures("ours")
def test_a_program_reads_where_the_run_is(command: Command):
    ended = command("submit", "detr-train", "-p", "cvat-annotation-path=in/task.zip", "--name", "a", "--json")
    assert json.loads(ended.out) == {
        "name": "a",
        "namespace": "ml",
        "uid": "uid-workflows-a",
        "folder": "s3://lab/team/workflow-data/output/a",
    }


def test_the_store_comes_from_the_installation(ours: FakeKubernetes, command: Command):
    assert command("submit", "detr-train", "-p", "cvat-annotation-path=in/task.zip").code == 0
    assert submitted(ours)["store"] == "s3://lab/team"
    assert submitted(ours)["sys-node-pool"] == "small"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["epochs=many"], "epochs must be a whole number from 1 to 10000, not 'many'."),
        (["epcohs=3"], "'epcohs' is not a parameter; did you mean epochs?"),
        (["epochs=3", "minutes=2"], "epochs and minutes: set one of them and leave"),
        (["sys-node-pool=lagre"], "sys-node-pool must be one of small, large, not 'lagre'. Did you mean large?"),
        (["gpu-count=2"], "gpu-count must be at most 1 in the pool small, not 2."),
        (["store=s3://other"], "store must be s3://lab/team here, not 's3://other'"),
        (["cvat-test-path=s3://private/a.zip"], "cvat-test-path: s3://private/a.zip may not be read here"),
        (["cvat-output-path=elsewhere"], "cvat-output-path: 'elsewhere' may not be written here"),
        (["cvat-test-path=/data/a.zip"], "aws s3 cp /data/a.zip s3://lab/team/uploads/a.zip"),
        (["cvat-test-path=file:///data/a.zip"], "is a path on this machine, which a cluster cannot read"),
        (["cvat-test-path=/data/my set.zip"], "aws s3 cp '/data/my set.zip' 's3://lab/team/uploads/my set.zip'"),
        (["store=file:///data"], "store: 'file:///data' is a folder on this machine"),
        (["model=mine.yaml"], "model: 'mine.yaml' is a file on this machine"),
    ],
)
def test_what_a_run_would_be_refused_for_is_said_before_it_starts(
    ours: FakeKubernetes, command: Command, given: list[str], sentence: str
):
    options = [word for text in given for word in ("-p", text)]
    ended = command("submit", "detr-train", "-p", "cvat-annotation-path=s3://exports/task.zip", *options)
    assert ended.code == 2
    assert sentence in ended.last
    assert not ours.created


@pytest.mark.usefixtures("ours")
def test_all_mistakes_are_said_at_once(command: Command):
    ended = command("submit", "detr-train", "-p", "epochs=x", "-p", "seed=y", "-p", "cvat-annotation-path=/a.zip")
    assert all(word in ended.last for word in ("epochs must", "seed must", "/a.zip"))


@pytest.mark.usefixtures("ours")
def test_all_that_the_installation_does_not_allow_is_said_at_once(command: Command):
    given = ("cvat-annotation-path=s3://a/b\ns3://exports/c\ns3://d/e", "cvat-output-path=elsewhere", "gpu-count=2")
    ended = command("submit", "detr-train", *(word for text in given for word in ("-p", text)))
    for words in ("s3://a/b may not", "s3://d/e may not", "'elsewhere' may not", "gpu-count must be at most 1"):
        assert words in ended.last


@pytest.mark.usefixtures("ours")
def test_a_folder_that_lies_here_is_to_be_uploaded(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "export").mkdir()
    monkeypatch.chdir(tmp_path)
    ended = command("submit", "detr-train", "-p", "cvat-annotation-path=export")
    assert ended.code == 2
    assert "python -m object_store put-folder export s3://lab/team/uploads/export" in ended.last
    assert "If you mean the key below the store: s3://lab/team/export." in ended.last


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "must is missing: give it with -p must=…"),
        (["must=x", "fate=bda"], "fate must be one of good, bad, not 'bda'. Did you mean bad?"),
        (["must=x", "fate="], "fate must be one of good, bad, not ''."),
        (["must=x", "anwser=1"], "'anwser' is not a parameter; did you mean answer?"),
        (["must=a\x07"], "must: 'a\\x07' has a control character"),
    ],
)
def test_a_foreign_template_is_checked_by_what_it_says(
    foreign: FakeKubernetes, command: Command, given: list[str], sentence: str
):
    ended = command("submit", "sums", *[word for text in given for word in ("-p", text)])
    assert (ended.code, foreign.created) == (2, [])
    assert sentence in ended.last


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--name", "My Run"], "--name 'My Run': a name has up to 63 lower-case letters"),
        (["--label", "team=a b"], "for other text take --annotation"),
        (["--label", "team"], "--label 'team' is not of the form key=value"),
        (["--timeout-s", "5"], "--timeout-s needs --watch"),
        (["--token-file", "x"], "--token-file needs --server"),
        (["--insecure-skip-verify"], "--insecure-skip-verify needs --server"),
        (["--server", "https://argo", "--context", "lab"], "--context and --server cannot be combined"),
        (["--server", "https://argo"], "--server needs --namespace"),
        (["--server", "argo", "-n", "ml"], "--server 'argo' must be a URL"),
        (["--context", "home"], "has no context home; there are lab"),
    ],
)
def test_options_that_cannot_work_are_refused(
    foreign: FakeKubernetes, command: Command, options: list[str], sentence: str
):
    ended = command("submit", "sums", "-p", "must=x", *options)
    assert (ended.code, foreign.created) == (2, [])
    assert sentence in ended.last


@pytest.mark.usefixtures("foreign")
def test_an_unknown_template_brings_the_nearest(command: Command):
    assert "no workflow template sum in ml; did you mean sums?" in command("submit", "sum").last


@pytest.mark.usefixtures("foreign")
def test_an_unknown_namespace_is_named(command: Command):
    assert "there is no namespace lm" in command("submit", "sums", "-n", "lm").last


def test_a_cluster_without_argo_says_so(api: FakeKubernetes, command: Command):
    api.refused["get", "workflowtemplates"] = (404, "the server could not find the requested resource")
    assert "has no Argo Workflows" in command("submit", "sums").last


@pytest.mark.parametrize(
    ("refusal", "code", "sentence"),
    [
        ((401, "Unauthorized"), 2, "does not accept the credentials; they are wrong or expired: log in again"),
        ((403, 'User "anna" cannot create resource "workflows"'), 2, 'User "anna" cannot create resource "workflows"'),
        ((400, "strict decoding error"), 2, "strict decoding error"),
    ],
)
def test_a_refusal_is_one_sentence(
    foreign: FakeKubernetes, command: Command, refusal: tuple[int, str], code: int, sentence: str
):
    foreign.refused["create", "workflows"] = refusal
    ended = command("submit", "sums", "-p", "must=x")
    assert ended.code == code
    assert sentence in ended.last
    assert len(ended.err.strip().splitlines()) == 1


def test_nobody_answering_is_a_fault_that_passes(
    api: FakeKubernetes, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    api.url = "http://127.0.0.1:9"
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "nobody")))
    ended = command("submit", "sums")
    assert ended.code == 75
    assert "http://127.0.0.1:9 cannot be reached" in ended.last


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"token": "two\nlines"}, "the credentials for {url} cannot be used"),
        ({"tokenFile": "nowhere"}, "cannot be used"),
    ],
)
def test_credentials_that_cannot_be_used_are_one_sentence(
    api: FakeKubernetes,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, str],
    sentence: str,
):
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config", **user)))
    ended = command("submit", "sums")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert sentence.format(url=api.url) in ended.last


@pytest.mark.parametrize("content", [b"<html>login</html>", b'{"metadata": {"name": "\xff"}}', b"[" * 100_000, b"[]"])
def test_an_answer_that_is_not_kubernetes_is_one_sentence(content: bytes):
    sentence = r"^reading it: http://there answered with something that is not"
    with pytest.raises(ClusterError, match=sentence), explained("reading it", "http://there"):
        msgspec.json.decode(content, type=dict[str, Any])


def test_without_a_kubeconfig_it_says_what_to_do(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = command("submit", "sums")
    assert ended.code == 2
    assert "there is no kubeconfig" in ended.last


@pytest.mark.parametrize("text", ["[]", "{", "clusters: {a: 1}", "current-context: gone"])
def test_a_broken_kubeconfig_is_one_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    ended = command("submit", "sums")
    assert ended.code == 2
    assert str(tmp_path / "config") in ended.last


def test_of_several_kubeconfigs_the_first_that_names_a_thing_decides(
    foreign: FakeKubernetes, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = tmp_path / "first"
    first.write_text("current-context: lab\nclusters: []\nusers: []\ncontexts: []\n")
    second = foreign.kubeconfig(tmp_path / "second")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'absent'}:{second}")
    assert command("submit", "sums", "-p", "must=x").code == 0


def test_a_login_program_of_the_newer_kind_is_called(
    foreign: FakeKubernetes, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "login"
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": "fresh"}})
    program.write_text(f'#!/bin/sh\ncase "$KUBERNETES_EXEC_INFO" in *auth*/v1\\"*) echo \'{answer}\';; esac\n')
    program.chmod(0o755)
    login = {"apiVersion": version, "command": str(program), "interactiveMode": "Never"}
    monkeypatch.setenv("KUBECONFIG", str(foreign.kubeconfig(tmp_path / "exec", exec=login)))
    assert command("submit", "sums", "-p", "must=x").code == 0
    assert set(foreign.tokens) == {"Bearer fresh"}


@pytest.mark.parametrize(
    ("script", "reason"), [("echo no account >&2; exit 3", "no account"), ("echo nonsense", "decode"), (None, "login")]
)
def test_a_login_program_that_fails_is_one_sentence(
    foreign: FakeKubernetes,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    reason: str,
):
    program = tmp_path / "login"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    monkeypatch.setenv("KUBECONFIG", str(foreign.kubeconfig(tmp_path / "exec", exec=login)))
    ended = command("submit", "sums", "-p", "must=x")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "login program failed" in ended.last
    assert reason in ended.last
    assert not foreign.tokens


def test_the_pods_service_account_and_the_proxy_of_a_cluster(api: FakeKubernetes, tmp_path: Path):
    """Read without a network: the API of a pod has a certificate of its own."""
    for name, text in (("token", "abc"), ("ca.crt", "certificate"), ("namespace", "ml\n")):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    access = find_access(None, environment, service_account=str(tmp_path), default=str(tmp_path / "none"))
    assert (access.server, access.namespace) == ("https://10.0.0.1:443", "ml")
    path = api.kubeconfig(tmp_path / "config")
    tree = json.loads(path.read_text())
    tree["clusters"][0]["cluster"]["proxy-url"] = "http://proxy.example:3128"
    path.write_text(json.dumps(tree))
    assert find_access(None, {"KUBECONFIG": str(path)}).configuration.proxy == "http://proxy.example:3128"


def test_a_lost_answer_makes_no_second_run(foreign: FakeKubernetes, command: Command):
    foreign.lost = ["POST"]
    assert command("submit", "sums", "-p", "must=x").code == 0
    assert len(foreign.created) == 1


def test_a_name_that_is_taken_is_not_taken_again(foreign: FakeKubernetes, command: Command):
    foreign.add("workflows", "first")
    ended = command("submit", "sums", "-p", "must=x", "--name", "first")
    assert ended.code == 2
    assert "argo retry first -n ml" in ended.last


def test_settings_that_may_not_be_read_are_left_to_the_run(ours: FakeKubernetes, command: Command):
    ours.refused["get", "configmaps"] = (403, "configmaps is forbidden")
    options = ("-p", "cvat-annotation-path=in.zip", "-p", "store=s3://lab/team")
    ended = command("submit", "detr-train", *options)
    assert ended.code == 0
    assert "only checked by the step check" in ended.err


def test_help_loads_nothing_of_the_cluster():
    code = (
        "import sys; from workflows import cli; sys.argv = ['detr-workflows', 'submit', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('kubernetes', 'httpx', 'hera', 'yaml', 'rich') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--watch" in said
    assert said.splitlines()[-1] == "[]"


# -- Argo's server


def test_argos_server_takes_the_same_workflow(foreign: FakeKubernetes, command: Command, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("Bearer abc\n")
    options = ("--server", foreign.url, "-n", "ml", "--token-file", token)
    ended = command("submit", "sums", "-p", "must=x", "--annotation", "why=a,b", *options)
    assert ended.code == 0
    assert "token is sent unencrypted" in ended.err
    assert foreign.created[0]["metadata"]["annotations"]["why"] == "a,b"
    assert submitted(foreign)["answer"] == "42"
    assert set(foreign.tokens) == {"Bearer abc"}


def test_argos_server_has_its_refusals_in_a_sentence_too(
    foreign: FakeKubernetes, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ARGO_TOKEN", "abc")
    options = ("-p", "must=x", "--server", foreign.url, "-n", "ml")
    assert "did you mean sums?" in command("submit", "sum", *options).last
    foreign.refused["create", "workflows"] = (401, "token not valid")
    assert "wrong or expired" in command("submit", "sums", *options).last


def test_a_token_file_that_is_not_there_is_named(foreign: FakeKubernetes, command: Command):
    ended = command("submit", "sums", "--server", foreign.url, "-n", "ml", "--token-file", "/nowhere")
    assert (ended.code, "--token-file /nowhere cannot be read" in ended.last) == (2, True)
