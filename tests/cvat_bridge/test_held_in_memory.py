"""What the service keeps for seconds does not stay longer, and is no larger than what pages show."""

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvat_bridge.cluster import Cluster
from cvat_bridge.runs.run_labels import USER_LABEL
from cvat_bridge.runs.run_state import Run
from cvat_bridge.short_cache import ShortCache
from cvat_client.settings import BridgeSettings, Controls
from cvat_client.subject import Subject
from run_config.installation import parse_installation
from tests.cvat_bridge.running_bridge import ORIGIN, SETTINGS, install, kubernetes
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cluster.kubeconfig import find_access
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.run_metadata import USED_BY

__all__ = ["kubernetes"]

STORE = "file:///nowhere"
STEPS = ["check", "export", "prepare", "train", "report"]


class Answer:
    """Something large."""


def test_an_old_answer_is_let_go_though_nobody_asks_for_it_again() -> None:
    time = [0.0]
    cache: ShortCache[Answer] = ShortCache(10, clock=lambda: time[0])
    held: list[weakref.ref[Answer]] = []

    async def ask() -> Answer:
        answer = Answer()
        held.append(weakref.ref(answer))
        return answer

    async def look() -> None:
        for at, page in ((0.0, "first"), (8.0, "second"), (12.0, "third")):
            time[0] = at
            await cache.get(page, ask)

    asyncio.run(look())
    gc.collect()
    assert [one() is None for one in held] == [True, False, False]


def a_run(fake: FakeKubernetes, name: str) -> Json:
    """As Argo has it: with the whole template once more."""
    spec = fake.objects["workflowtemplates"]["cvat-train"]["spec"]
    labels = {**USED_BY, USER_LABEL: "1"}
    metadata = {"labels": labels, "resourceVersion": "1", "managedFields": [{"manager": "argo", "fieldsV1": {}}]}
    status = {"phase": "Running", "storedWorkflowTemplateSpec": spec, "storedTemplates": {"a": {}}, "nodes": {}}
    return fake.add("workflows", name, {"metadata": metadata, "spec": {}, "status": status})


def shown(workflow: Json) -> Json:
    settings = BridgeSettings.model_validate({"cvat": {"url": ORIGIN, "publicOrigin": ORIGIN}})
    return Run(workflow, Subject.tasks([1])).shown(settings, "ml", STORE, None, "task 1", used=False)


@contextmanager
def a_cluster(fake: FakeKubernetes, tmp_path: Path) -> Iterator[Cluster]:
    install(fake, STORE)
    access = find_access(environment={"KUBECONFIG": str(fake.kubeconfig(tmp_path / "kubeconfig"))})
    installation = parse_installation(SETTINGS.format(store=STORE), "the test's settings")
    with Kubernetes(access, None) as client:
        yield Cluster(client, installation, Controls())


def names(found: list[Json]) -> list[str]:
    return [one["metadata"]["name"] for one in found]


def test_of_a_run_only_what_is_shown_is_held(kubernetes: FakeKubernetes, tmp_path: Path) -> None:
    with a_cluster(kubernetes, tmp_path) as cluster:
        whole = a_run(kubernetes, "cvat-train-a")

        async def both() -> list[Json | None]:
            return [await cluster.run("cvat-train-a"), *await cluster.runs({USER_LABEL: "1"})]

        for found in asyncio.run(both()):
            assert found is not None
            assert len(json.dumps(found)) < len(json.dumps(whole)) / 4
            assert shown(found) == shown(whole)
            assert [step["name"] for step in shown(found)["steps"]] == STEPS


def test_runs_are_read_in_pages_and_the_newest_are_held(
    kubernetes: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvat_bridge.cluster.MOST_LISTED", 30)
    with a_cluster(kubernetes, tmp_path) as cluster:
        for number in range(120):
            created = f"2026-01-{1 + number % 28:02d}T00:{number // 28:02d}:00Z"
            a_run(kubernetes, f"run-{number}")["metadata"]["creationTimestamp"] = created
        found = asyncio.run(cluster.runs({USER_LABEL: "1"}))
        assert kubernetes.asked["list", "workflows"] == 3
        every = sorted(kubernetes.objects["workflows"].values(), key=lambda one: one["metadata"]["creationTimestamp"])
        assert names(found) == names(every)[::-1][:30]


def test_runs_that_argo_calls_completed_are_not_read_to_count_a_users(
    kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    with a_cluster(kubernetes, tmp_path) as cluster:
        for name in ("going-on", "ended", "just-ended"):
            a_run(kubernetes, name)
        kubernetes.objects["workflows"]["ended"]["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"
        # The label comes a moment after the phase.
        kubernetes.objects["workflows"]["just-ended"]["status"]["phase"] = "Succeeded"
        assert names(asyncio.run(cluster.running_of(1))) == ["going-on"]
        assert asyncio.run(cluster.running_of(2)) == []
