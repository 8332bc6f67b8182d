"""`detr-workflows preflight`: each thing that keeps runs from working is found, with what mends it."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from object_store import ObjectStore, open_store
from run_config.parameters import BRIDGE_TEMPLATES
from tests.workflows.cluster_commands import Command, Ended, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from tests.workflows.test_pools import SETTINGS, node
from workflows.cli import RENDERED

__all__ = ["api", "command"]


KEYS = (
    "accessKeySecret: {name: detr-workflows-store, key: access-key-id}, "
    "secretKeySecret: {name: detr-workflows-store, key: secret-access-key}"
)


@pytest.fixture
def sound(api: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> FakeKubernetes:
    """An installation that could work."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    for path in RENDERED.glob("*.yaml"):
        if path.stem in BRIDGE_TEMPLATES:
            continue
        api.add("workflowtemplates", path.stem, yaml.safe_load(path.read_text()))
    artifacts = f"s3: {{bucket: lab, endpoint: s3.amazonaws.com, {KEYS}}}"
    settings = f"{SETTINGS}storeSecret: detr-workflows-store\n"
    api.add("configmaps", "detr-workflows", {"data": {"settings.yaml": settings, "artifacts": artifacts}})
    api.add("serviceaccounts", "detr-workflows")
    api.add("secrets", "detr-workflows-store", {"data": {"access-key-id": "YQ==", "secret-access-key": "Yg=="}})
    api.add("workflows", "old", {"status": {"phase": "Succeeded"}})
    api.add("nodes", "a", node("s", 4))
    api.add("nodes", "d", node("m", 7, resource="nvidia.com/mig-1g.10gb"))
    api.objects["namespaces"]["ml"]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.allowed = lambda question: question.get("resourceAttributes", {}).get("resource") != "secrets"
    return api


def found(ended: Ended) -> dict[str, Json]:
    return {finding["subject"]: finding for finding in json.loads(ended.out)["findings"]}


def marked(ended: Ended, mark: str) -> list[str]:
    return [subject for subject, finding in found(ended).items() if finding["mark"] == mark]


@pytest.mark.usefixtures("sound")
def test_a_sound_installation_has_no_complaint(command: Command):
    ended = command("preflight", "--json")
    assert (ended.code, json.loads(ended.out)["works"]) == (0, True)
    assert (marked(ended, "fail"), marked(ended, "warn")) == ([], [])
    # What cannot be seen from here.
    assert marked(ended, "unknown") == ["store s3://lab/team", "published weights"]


@pytest.mark.usefixtures("sound")
def test_people_get_a_line_each_and_the_verdict_at_the_end(command: Command):
    lines = command("preflight").out.splitlines()
    assert lines[0].startswith("ok      API: http://127.0.0.1")
    assert lines[-1].startswith("a run can work, as far as this can be checked from here (")


def test_every_complaint_has_an_action(api: FakeKubernetes, command: Command):
    api.objects["configmaps"].clear()
    ended = command("preflight", "--json")
    assert ended.code == 2
    complaints = [one for one in found(ended).values() if one["mark"] != "ok"]
    assert complaints
    assert all(one["action"] for one in complaints)


@pytest.mark.parametrize(
    ("account", "mark", "said"),
    [
        ("ok", "ok", "may export and annotate"),
        ("not known", "unknown", "could not be checked"),
        ("the access token of the service account is read-only", "fail", "read-only"),
    ],
)
def test_the_rights_of_cvats_service_account_are_asked_from_the_bridge(
    sound: FakeKubernetes, command: Command, account: str, mark: str, said: str
):
    with_bridge(sound)
    sound.objects["services"]["detr-workflows-bridge:8080"]["account"] = account
    finding = found(command("preflight", "--json"))["CVAT's service account"]
    assert finding["mark"] == mark
    assert said in finding["text"]


def test_a_bridge_that_is_not_ready_or_may_not_be_asked_is_said(sound: FakeKubernetes, command: Command):
    with_bridge(sound)
    sound.refused["get", "services"] = (503, "no endpoints available for service")
    finding = found(command("preflight", "--json"))["bridge to CVAT"]
    assert finding["mark"] == "fail"
    assert "no endpoints available" in finding["text"]
    sound.refused["get", "services"] = (403, "anna cannot get resource services/proxy")
    assert found(command("preflight", "--json"))["bridge to CVAT"]["mark"] == "unknown"


def without_template(api: FakeKubernetes) -> None:
    del api.objects["workflowtemplates"]["detr-prepare"]


def other_form(api: FakeKubernetes) -> None:
    metadata = api.objects["workflowtemplates"]["detr-train"]["metadata"]
    metadata["annotations"]["detr-workflows/parameters"] = '{"version": 99}'


def other_parameters(api: FakeKubernetes) -> None:
    api.objects["workflowtemplates"]["detr-train"]["spec"]["arguments"]["parameters"].append({"name": "newer"})


def nobody_takes_up(api: FakeKubernetes) -> None:
    api.add("workflows", "left")


def broken_settings(api: FakeKubernetes) -> None:
    api.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = "store: s3://lab\nstroe: x"


def no_settings(api: FakeKubernetes) -> None:
    del api.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"]


def no_artifacts(api: FakeKubernetes) -> None:
    del api.objects["configmaps"]["detr-workflows"]["data"]["artifacts"]


def other_bucket(api: FakeKubernetes) -> None:
    api.objects["configmaps"]["detr-workflows"]["data"]["artifacts"] = "s3: {bucket: elsewhere}"


def no_account(api: FakeKubernetes) -> None:
    api.objects["serviceaccounts"].clear()


def powerless_account(api: FakeKubernetes) -> None:
    api.allowed = lambda question: "user" not in question


def mighty_account(api: FakeKubernetes) -> None:
    api.allowed = lambda question: True  # noqa: ARG005 - whatever is asked


def powerless_caller(api: FakeKubernetes) -> None:
    api.allowed = lambda question: question["resourceAttributes"]["verb"] != "create" or "user" in question


def no_secret(api: FakeKubernetes) -> None:
    api.objects["secrets"].clear()


def empty_secret(api: FakeKubernetes) -> None:
    api.objects["secrets"]["detr-workflows-store"]["data"]["secret-access-key"] = ""


def no_pull_secret(api: FakeKubernetes) -> None:
    api.objects["serviceaccounts"]["detr-workflows"]["imagePullSecrets"] = [{"name": "registry"}]


def odd_image(api: FakeKubernetes) -> None:
    steps = api.objects["workflowtemplates"]["detr-prepare"]["spec"]["templates"]
    next(step for step in steps if "container" in step)["container"]["image"] = "Registry/UP:x"


def image_is_not_there(api: FakeKubernetes) -> None:
    state = {"waiting": {"reason": "ImagePullBackOff"}}
    status = {"name": "main", "image": "r/detr-job:9", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    pod = {"spec": {"containers": []}, "status": {"containerStatuses": [status]}}
    api.add("pods", "stuck", {"metadata": {"labels": {"app.kubernetes.io/part-of": "detr-workflows"}}, **pod})


def no_nodes(api: FakeKubernetes) -> None:
    del api.objects["nodes"]["d"]


def tainted(api: FakeKubernetes) -> None:
    api.add("nodes", "a", node("s", 4, taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}]))


def partly_tainted(api: FakeKubernetes) -> None:
    api.add("nodes", "b", node("s", 4, taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}]))


def step_of(api: FakeKubernetes, name: str, template: str = "detr-train") -> Json:
    steps = api.objects["workflowtemplates"][template]["spec"]["templates"]
    return next(step for step in steps if step["name"] == name)


def into_pools(api: FakeKubernetes) -> None:
    """As the chart writes it where there are pools."""
    choice = "{{=workflow.parameters['sys-node-pool'] == 'small' ? '%s' : '%s'}}"
    resource = choice % ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb")
    limits = {resource: "{{=asInt(workflow.parameters['gpu-count'])}}"}
    for step in (step_of(api, "train"), step_of(api, "evaluate", "detr-evaluate")):
        step["nodeSelector"] = {"pool": choice % ("s", "m")}
        step["podSpecPatch"] = json.dumps({"containers": [{"name": "main", "resources": {"limits": limits}}]})


def small_nodes_of_a_pool(api: FakeKubernetes) -> None:
    into_pools(api)
    api.objects["nodes"]["a"]["status"]["allocatable"]["memory"] = "8Gi"


def memory_and_gpus_on_different_nodes(api: FakeKubernetes) -> None:
    into_pools(api)
    api.objects["nodes"]["a"]["status"]["allocatable"]["ephemeral-storage"] = "30Gi"
    api.add("nodes", "b", node("s"))


def small_nodes(api: FakeKubernetes) -> None:
    step_of(api, "report")["container"]["resources"]["requests"]["cpu"] = "9"


def no_such_nodes(api: FakeKubernetes) -> None:
    step_of(api, "prepare")["nodeSelector"] = {"disk": "fast"}


def tainted_for_a_step(api: FakeKubernetes) -> None:
    step_of(api, "prepare")["nodeSelector"] = {"pool": "other"}
    api.add("nodes", "b", node("other", taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}]))


def artifacts(api: FakeKubernetes, s3: str, more: str = "") -> None:
    api.objects["configmaps"]["detr-workflows"]["data"]["artifacts"] = f"s3: {{bucket: lab, {s3}}}\n{more}"


def no_secret_of_the_repository(api: FakeKubernetes) -> None:
    artifacts(api, f"{KEYS}, caSecret: {{name: authority, key: ca.crt}}")


def no_session_token_for_argo(api: FakeKubernetes) -> None:
    artifacts(api, f"{KEYS}, sessionTokenSecret: {{name: detr-workflows-store, key: session-token}}")


def logs_of_everything(api: FakeKubernetes) -> None:
    artifacts(api, KEYS, "archiveLogs: true")


def logs_of_everything_without_a_secret(api: FakeKubernetes) -> None:
    logs_of_everything(api)
    no_secret(api)


def no_gpus(api: FakeKubernetes) -> None:
    api.add("nodes", "a", node("s"))


def unready(api: FakeKubernetes) -> None:
    api.add("nodes", "a", node("s", 4, ready="Unknown"))


def quota_without_gpus(api: FakeKubernetes) -> None:
    api.add("resourcequotas", "q", {"status": {"hard": {"requests.nvidia.com/gpu": "0"}}})


def quota_that_is_used_up(api: FakeKubernetes) -> None:
    api.add("resourcequotas", "q", {"status": {"hard": {"pods": "3"}, "used": {"pods": "3"}}})


def quota_that_counts_cpu_limits(api: FakeKubernetes) -> None:
    api.add("resourcequotas", "q", {"status": {"hard": {"limits.cpu": "1000"}}})


def another_name_for_the_session_token(api: FakeKubernetes) -> None:
    for template in api.objects["workflowtemplates"].values():
        renamed = json.dumps(template["spec"]).replace('"key": "session-token"', '"key": "sts"')
        template["spec"] = json.loads(renamed)


def small_range(api: FakeKubernetes) -> None:
    api.add("limitranges", "r", {"spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]}})


def unpatched(api: FakeKubernetes) -> None:
    api.objects["workflowtemplates"]["detr-train"]["spec"]["podSpecPatch"] = ""


@pytest.mark.parametrize(
    ("damage", "mark", "subject", "words"),
    [
        (without_template, "fail", "template detr-prepare", "is not in ml"),
        (other_form, "fail", "template detr-train", "form of version 99"),
        (other_parameters, "warn", "template detr-train", "only the template or only this command has newer"),
        (nobody_takes_up, "fail", "controller", "no Argo controller has started left"),
        (broken_settings, "fail", "ConfigMap detr-workflows", "stroe"),
        (no_settings, "fail", "ConfigMap detr-workflows", "has no key settings.yaml"),
        (no_artifacts, "fail", "artifact repository detr-workflows/artifacts", "has no key artifacts"),
        (other_bucket, "fail", "artifact repository detr-workflows/artifacts", "elsewhere"),
        (no_account, "fail", "service account detr-workflows", "is not in ml"),
        (powerless_account, "fail", "service account detr-workflows", "may not report"),
        (mighty_account, "warn", "service account detr-workflows", "may list secrets"),
        (powerless_caller, "fail", "your rights", "you may not create workflows"),
        (no_secret, "fail", "secret detr-workflows-store", "is not in ml"),
        (empty_secret, "fail", "secret detr-workflows-store", "has no value for secret-access-key"),
        (no_pull_secret, "fail", "pull secret registry", "is not in ml"),
        (odd_image, "fail", "image Registry/UP:x", "is not a valid image reference"),
        (image_is_not_there, "fail", "image pulls", "stuck cannot get r/detr-job:9: ImagePullBackOff"),
        (no_nodes, "warn", "pool mig", "no node has the label pool=m"),
        (tainted, "fail", "pool small", "do not tolerate team=x:NoSchedule"),
        (partly_tainted, "warn", "taints of pool small", "do not tolerate team=x:NoSchedule, so they do not run on b"),
        (partly_tainted, "ok", "pool small", "2 of 2 nodes ready, 1 of them behind a taint, 4 of 4 GPUs free"),
        (
            small_nodes_of_a_pool,
            "fail",
            "room for train in pool small",
            "memory 12.06Gi, nvidia.com/gpu 1; the largest node that it may run on, a, has cpu 8, ",
        ),
        (memory_and_gpus_on_different_nodes, "fail", "room for train in pool small", "ephemeral-storage 30Gi"),
        (small_nodes, "fail", "room for report", "asks for cpu 9"),
        (no_such_nodes, "warn", "room for prepare", "no node has the labels disk=fast"),
        (tainted_for_a_step, "warn", "room for prepare", "does not tolerate: team=x:NoSchedule"),
        (into_pools, "ok", "room", "every step fits"),
        (no_secret_of_the_repository, "fail", "secret authority", "stay in PodInitializing"),
        (no_session_token_for_argo, "fail", "secret detr-workflows-store", "no value for session-token; the artifact"),
        (another_name_for_the_session_token, "ok", "secret detr-workflows-store", "access-key-id"),
        (logs_of_everything, "warn", "artifact repository detr-workflows/artifacts", "even the step check"),
        (logs_of_everything_without_a_secret, "fail", "secret detr-workflows-store", "stay in PodInitializing"),
        (no_gpus, "fail", "pool small", "none has nvidia.com/gpu"),
        (unready, "fail", "pool small", "none of its 1 nodes is ready"),
        (quota_without_gpus, "fail", "quota q", "train needs requests.nvidia.com/gpu 1, but the quota is 0"),
        (quota_that_is_used_up, "warn", "quota q", "needs pods 1, 0 of 3 is left"),
        (quota_that_counts_cpu_limits, "warn", "quota q", "which"),
        (small_range, "fail", "limit range r", "the maximum is 100Mi"),
        (unpatched, "fail", "pod security", "enforces restricted"),
    ],
)
def test_what_is_wrong_is_found(
    sound: FakeKubernetes,
    command: Command,
    damage: Callable[[FakeKubernetes], None],
    mark: str,
    subject: str,
    words: str,
):
    damage(sound)
    ended = command("preflight", "--json")
    finding = found(ended)[subject]
    assert (finding["mark"], words in finding["text"]) == (mark, True), finding
    assert ended.code == (2 if mark == "fail" else 0)


@pytest.mark.parametrize(
    ("verb", "kind", "subject"),
    [
        ("get", "secrets", "secret detr-workflows-store"),
        ("list", "nodes", "pool small"),
        ("list", "nodes", "room"),
        ("list", "resourcequotas", "quota"),
        ("list", "limitranges", "limits"),
        ("list", "workflows", "controller"),
        ("get", "namespaces", "pod security"),
        ("list", "pods", "image pulls"),
    ],
)
def test_what_may_not_be_seen_is_unknown_and_no_failure(
    sound: FakeKubernetes, command: Command, verb: str, kind: str, subject: str
):
    sound.refused[verb, kind] = (403, f"{kind} is forbidden")
    ended = command("preflight", "--json")
    assert (ended.code, found(ended)[subject]["mark"]) == (0, "unknown")


def test_a_step_without_room_names_the_value_to_change(sound: FakeKubernetes, command: Command):
    small_nodes(sound)
    assert found(command("preflight", "--json"))["room for report"]["action"].startswith("lower roles.report.resources")
    # In a pool it is the role of the step, which evaluate shares with train.
    small_nodes_of_a_pool(sound)
    assert "roles.train.resources" in found(command("preflight", "--json"))["room for train in pool small"]["action"]


@pytest.mark.parametrize("damage", [no_nodes, tainted, no_gpus])
def test_the_room_in_a_pool_that_has_no_node_for_training_is_unknown(
    sound: FakeKubernetes, command: Command, damage: Callable[[FakeKubernetes], None]
):
    into_pools(sound)
    damage(sound)
    pool = "mig" if damage is no_nodes else "small"
    findings = found(command("preflight", "--json"))
    assert findings[f"pool {pool}"]["mark"] == ("warn" if damage is no_nodes else "fail")
    room = findings[f"room in pool {pool}"]
    assert (room["mark"], "no current node accepts evaluate or train," in room["text"]) == ("unknown", True), room
    assert findings["room"]["text"] == "every step with suitable nodes fits on one of them"
    assert [subject for subject in findings if subject.startswith("room")] == ["room", f"room in pool {pool}"]


def test_what_does_not_fit_is_said_beside_a_pool_without_nodes(sound: FakeKubernetes, command: Command):
    small_nodes_of_a_pool(sound)
    no_nodes(sound)
    findings = found(command("preflight", "--json"))
    assert findings["room for train in pool small"]["mark"] == "fail"
    assert findings["room in pool mig"]["mark"] == "unknown"
    assert "room" not in findings


def test_nobody_needs_a_gpu_where_runs_train_on_the_cpu(sound: FakeKubernetes, command: Command):
    no_gpus(sound)
    finding = found(command("preflight", "--json"))["room for train"]
    assert (finding["mark"], "has nvidia.com/gpu" in finding["text"]) == ("warn", True)
    assert "gpu-count" in finding["action"]
    for name in ("detr-train", "detr-evaluate"):
        for one in sound.objects["workflowtemplates"][name]["spec"]["arguments"]["parameters"]:
            if one["name"] == "gpu-count":
                one["value"] = "0"
    assert found(command("preflight", "--json"))["room"]["mark"] == "ok"


def test_taints_are_unknown_where_no_template_says_what_is_tolerated(sound: FakeKubernetes, command: Command):
    tainted(sound)
    sound.objects["workflowtemplates"].clear()
    finding = found(command("preflight", "--json"))["pool small"]
    assert (finding["mark"], "tolerations of training pods are unknown" in finding["text"]) == ("unknown", True)


def with_bridge(api: FakeKubernetes) -> None:
    for name in BRIDGE_TEMPLATES:
        api.add("workflowtemplates", name, yaml.safe_load((RENDERED / f"{name}.yaml").read_text()))
    keys = {"access-token": "YQ==", "signing-key": "Yg=="}
    api.add("secrets", "detr-workflows-cvat", {"data": keys})
    api.objects["services"]["detr-workflows-bridge:8080"] = {"cvat": "ok", "kubernetes": "ok", "account": "ok"}


def test_an_installation_with_the_bridge_is_looked_at_whole(sound: FakeKubernetes, command: Command):
    with_bridge(sound)
    ended = command("preflight", "--json")
    assert (marked(ended, "fail"), marked(ended, "warn")) == ([], [])
    assert found(ended)["secret detr-workflows-cvat"]["text"] == "has access-token, signing-key"
    del sound.objects["workflowtemplates"]["cvat-train"]
    assert marked(command("preflight", "--json"), "fail") == ["template cvat-train"]


@pytest.mark.parametrize("store_secret", [True, False])
def test_the_bridges_secret_is_missed_in_words_of_its_own(sound: FakeKubernetes, command: Command, store_secret: bool):
    with_bridge(sound)
    if not store_secret:
        sound.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = SETTINGS
    del sound.objects["secrets"]["detr-workflows-cvat"]["data"]["signing-key"]
    finding = found(command("preflight", "--json"))["secret detr-workflows-cvat"]
    assert (finding["mark"], finding["text"]) == ("fail", "has no value for signing-key")
    assert finding["action"] == "add CVAT's token and the signing key"
    del sound.objects["secrets"]["detr-workflows-cvat"]
    finding = found(command("preflight", "--json"))["secret detr-workflows-cvat"]
    assert (finding["mark"], finding["text"]) == ("fail", "is not in ml")
    assert "--from-file=access-token --from-file=signing-key" in finding["action"]


def test_a_secret_that_only_argo_mounts_is_looked_for_without_a_store_secret(sound: FakeKubernetes, command: Command):
    no_secret(sound)
    sound.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = SETTINGS
    assert found(command("preflight", "--json"))["secret detr-workflows-store"]["mark"] == "fail"


def test_rights_are_read_from_the_roles_where_the_api_may_not_be_asked(
    sound: FakeKubernetes, command: Command, monkeypatch: pytest.MonkeyPatch
):
    ask = sound.answer

    def refusing(method: str, path: str, body: Json | None) -> tuple[int, Json]:
        if "localsubjectaccessreviews" in path:
            return 403, {"kind": "Status", "code": 403, "message": "forbidden"}
        return ask(method, path, body)

    monkeypatch.setattr(sound, "answer", refusing)
    subject = "service account detr-workflows"
    assert found(command("preflight", "--json"))[subject]["mark"] == "fail"
    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    sound.add("roles", "r", {"rules": [rule]})
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "detr-workflows"}],
    }
    sound.add("rolebindings", "b", binding)
    assert found(command("preflight", "--json"))[subject]["mark"] == "ok"
    sound.refused["list", "roles"] = (403, "roles is forbidden")
    assert found(command("preflight", "--json"))[subject]["mark"] == "unknown"


@pytest.mark.parametrize(
    ("refusal", "subject"),
    [((401, "Unauthorized"), "API"), ((500, "etcd is away"), "API")],
)
def test_without_a_way_in_nothing_else_is_looked_at(
    sound: FakeKubernetes, command: Command, refusal: tuple[int, str], subject: str
):
    sound.refused["get", "namespaces"] = refusal
    ended = command("preflight", "--json")
    assert (ended.code, list(found(ended))) == (2, [subject])


def test_without_a_kubeconfig_that_is_the_finding(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    ended = command("preflight", "--json")
    assert (ended.code, found(ended)["API"]["mark"]) == (2, "fail")


def test_the_store_is_asked_with_the_callers_credentials(
    sound: FakeKubernetes, command: Command, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    settings = SETTINGS.replace("s3://lab/team", f"s3://{bucket}/team")
    sound.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = settings
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    assert found(command("preflight", "--json"))[f"store s3://{bucket}/team"]["mark"] == "ok"
    settings = SETTINGS.replace("s3://lab/team", "s3://no-such-bucket-here/team")
    sound.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = settings
    finding = found(command("preflight", "--json"))["store s3://no-such-bucket-here/team"]
    assert (finding["mark"], "no-such-bucket-here" in finding["text"]) == ("warn", True)


def test_no_secret_is_looked_for_where_credentials_come_from_elsewhere(sound: FakeKubernetes, command: Command):
    no_secret(sound)
    sound.objects["configmaps"]["detr-workflows"]["data"]["settings.yaml"] = SETTINGS
    artifacts(sound, "useSDKCreds: true")
    assert found(command("preflight", "--json"))["secret detr-workflows-store"]["mark"] == "ok"


@pytest.fixture
def weights_store(sound: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:  # noqa: ARG001
    """The store, as the caller's own keys open it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    store = open_store(tmp_path / "store")
    monkeypatch.setattr("workflows.cluster.preflight.weights.open_store", lambda *_, **__: store)
    monkeypatch.setattr("workflows.cluster.preflight.store.open_store", lambda *_, **__: store)
    return store


def test_missing_weights_of_the_default_models_are_said_with_the_one_command(
    sound: FakeKubernetes, command: Command, weights_store: ObjectStore
):
    weights_store.put_bytes("weights/rf-detr-small/card.json", b"{}")
    weights_store.put_bytes("weights/d-fine-nano/model.safetensors", b"incomplete: it has no card")
    finding = found(command("preflight", "--json"))["published weights"]
    assert (finding["mark"], finding["text"]) == ("warn", "the store has no d-fine-nano: runs cannot start from them")
    bring = "detr-workflows submit detr-weights --namespace ml -p weights=d-fine-nano"
    assert finding["action"] == f"`{bring}` brings them"
    ended = command(*shlex.split(bring)[1:])
    assert ended.code == 0
    (created,) = sound.created
    assert created["spec"]["workflowTemplateRef"] == {"name": "detr-weights"}
    given = {one["name"]: one["value"] for one in created["spec"]["arguments"]["parameters"]}
    assert given == {"weights": "d-fine-nano", "store": "s3://lab/team"}
    weights_store.put_bytes("weights/d-fine-nano/card.json", b"{}")
    finding = found(command("preflight", "--json"))["published weights"]
    assert (finding["mark"], finding["text"]) == ("ok", "the store has rf-detr-small, d-fine-nano")


@pytest.mark.usefixtures("weights_store")
def test_the_weights_of_the_installations_default_model_are_wanted_too(sound: FakeKubernetes, command: Command):
    arguments = sound.objects["workflowtemplates"]["detr-train"]["spec"]["arguments"]["parameters"]
    next(one for one in arguments if one["name"] == "model")["value"] = "d-fine-medium"
    assert "d-fine-nano, d-fine-medium:" in found(command("preflight", "--json"))["published weights"]["text"]


def test_without_keys_the_command_is_given_all_the_same(sound: FakeKubernetes, command: Command):
    finding = found(command("preflight", "--json"))["published weights"]
    assert finding["mark"] == "unknown"
    assert "-p 'weights=rf-detr-small d-fine-nano'` brings those that are missing" in finding["action"]
    del sound.objects["workflowtemplates"]["detr-weights"]
    ended = command("preflight", "--json")
    assert marked(ended, "fail") == ["template detr-weights"]
    assert "published weights" not in found(ended)


def test_a_failed_download_is_said_until_a_later_one_succeeds(sound: FakeKubernetes, command: Command):
    message = "Error (exit code 75): d-fine-nano: no answer in time"
    node = {
        "id": "a",
        "type": "Pod",
        "displayName": "pull",
        "phase": "Failed",
        "message": message,
        "templateName": "pull",
    }
    spec = {"workflowTemplateRef": {"name": "detr-weights"}}
    status = {"phase": "Failed", "nodes": {"a": node}}
    sound.add("workflows", "detr-workflows-weights", {"spec": spec, "status": status})
    finding = found(command("preflight", "--json"))["download detr-workflows-weights"]
    assert finding["mark"] == "warn"
    assert "d-fine-nano: no answer in time" in finding["text"]
    assert "weights.mirror" in finding["action"]
    later = {"metadata": {"creationTimestamp": "2026-02-01T00:00:00Z"}, "spec": spec, "status": {"phase": "Succeeded"}}
    sound.add("workflows", "again", later)
    assert "download detr-workflows-weights" not in found(command("preflight", "--json"))
