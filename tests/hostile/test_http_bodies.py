"""300 mutated requests to the service and the model server: each is answered, and never as our own fault."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from cvat_client.errors import BridgeError
from cvat_client.settings import parse_settings
from model_server.app import CallRefusal, read_call
from tests.cvat_bridge.running_bridge import OURS, SECRET, Bridge, install, kubernetes, serving, store
from tests.cvat_double.fixtures import cvat
from tests.cvat_double.server import CvatDouble
from tests.hostile.http_bodies import mutated_call, mutated_query, mutated_submission, mutated_webhook
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["cvat", "kubernetes", "store"]

EACH = 75
TRIGGERS = [{"event": "task-completed"}, {"event": "export-finished"}]


@pytest.fixture
def bridge(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> Iterator[Bridge]:
    """The service with triggers for both events."""
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=TRIGGERS) as running:
        yield running


@pytest.fixture
def client(bridge: Bridge) -> Iterator[httpx.Client]:
    """Ann's browser, on one connection."""
    cookies = {"sessionid": bridge.cvat.ann.session}
    base = f"{bridge.url}/training-bridge/"
    with httpx.Client(base_url=base, cookies=cookies, headers=OURS, timeout=60, trust_env=False) as browser:
        yield browser


def sign(body: bytes) -> dict[str, str]:
    return {"X-Signature-256": "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()}


def tell(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("webhooks/cvat", content=body, headers=sign(body))


def test_mutated_webhooks(client: httpx.Client) -> None:
    for seed in range(EACH):
        answer = tell(client, mutated_webhook(seed))
        assert answer.status_code in (202, 400, 413), f"mutated_webhook({seed}): {answer.status_code} {answer.text}"


def test_mutated_submissions(bridge: Bridge, client: httpx.Client) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    headers = {"Content-Type": "application/json"}
    for seed in range(EACH):
        body = mutated_submission(seed).replace(b'"task": [8]', f'"task": [{task.id}]'.encode())
        answer = client.post("api/runs", content=body, headers=headers)
        said = f"mutated_submission({seed}): {answer.status_code} {answer.text}"
        assert answer.status_code in (201, 403, 409, 413, 422, 429), said


def test_mutated_queries(client: httpx.Client) -> None:
    for seed in range(EACH):
        answer = client.get(mutated_query(seed))
        assert answer.status_code < 500, f"mutated_query({seed}): {answer.status_code} {answer.text}"


def test_mutated_calls_of_the_model_server() -> None:
    for seed in range(EACH):
        status = 200
        try:
            _, threshold = read_call(mutated_call(seed), 0.5)
            assert 0 <= threshold <= 1
        except CallRefusal as refusal:
            status = refusal.status
        assert status in (200, 400), f"mutated_call({seed})"


@pytest.mark.parametrize("depth", [102, 1_000, 100_000])
def test_an_event_that_is_nested_deeply_is_refused(client: httpx.Client, depth: int) -> None:
    answer = tell(client, b'{"event": "update:job", "job": ' + b"[" * depth + b"]" * depth + b"}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["text"] == "The event: it is nested too deeply (more than 100 levels)."


def test_a_key_that_is_given_twice_is_refused_by_name(client: httpx.Client) -> None:
    event = tell(client, b'{"event": "update:job", "job": {"state": "completed", "task_id": 8, "state": "new"}}')
    assert (event.status_code, event.json()["errors"][0]["text"]) == (
        400,
        'The event: the key "state" is given twice.',
    )
    body = b'{"template": "cvat-train", "parameters": {"epochs": "1", "epochs": "900"}}'
    form = client.post("api/runs", content=body, headers={"Content-Type": "application/json"})
    assert (form.status_code, form.json()["errors"][0]["text"]) == (
        422,
        'The request: the key "epochs" is given twice.',
    )


@pytest.mark.parametrize("changes", [[{"field": ["x"]}], [{"name": {}}], [[]], [1], {"state": []}, "state", None])
def test_an_event_with_odd_changes_is_taken(client: httpx.Client, changes: object) -> None:
    event = {"event": "update:job", "job": {"task_id": 8, "state": "completed"}, "changes": changes}
    assert tell(client, json.dumps(event).encode()).status_code == 202


def test_a_call_that_is_nested_deeply_is_refused() -> None:
    with pytest.raises(CallRefusal, match="not of the form"):
        read_call(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "image": ""}', 0.5)


def test_the_same_seed_makes_the_same_input() -> None:
    for make in (mutated_webhook, mutated_submission, mutated_call, mutated_query):
        assert [make(seed) for seed in range(20)] == [make(seed) for seed in range(20)]
        assert len({make(seed) for seed in range(300)}) > 150
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(mutated_webhook(4))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cvat: {url: a}\ncvat: {url: b}\n", "bridge.yaml is not valid YAML: cvat is given twice in line 2"),
        ("[" * 5_000, "bridge.yaml is not valid YAML: it is nested too deeply"),
    ],
)
def test_settings_that_say_two_things_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(BridgeError, match=f"^{sentence}"):
        parse_settings(text, "bridge.yaml")
