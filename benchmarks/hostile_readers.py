"""The readers of each kind of hostile input. Each calls the code that handles such input first, in this process.

A reader opens what it needs once, and yields a function. The function generates the input of a seed in a folder, reads
it, and returns whether it was accepted. Any exception from the function is a bug.
"""

import contextlib
import hashlib
import hmac
import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from run_config.command_line import WRONG_INPUT

Read = Callable[[int, Path], bool]

QUEUE_FULL = 429
PATIENCE_S = 20


@contextlib.contextmanager
def exports() -> Iterator[Read]:
    """`data-prep inspect`: the archive, its annotations and every image in it."""
    from data_prep.prepare import PrepareRequest, inspect
    from data_prep.report.page import draw_report
    from tests.hostile.exports import mutated_export

    def read(seed: int, folder: Path) -> bool:
        return accepted(inspect, PrepareRequest((str(mutated_export(seed, folder)),)), draw_report)

    yield read


@contextlib.contextmanager
def formats() -> Iterator[Read]:
    """Exports in every format, compared with what their report says was changed. Each eighth set is stored too."""
    from tests.hostile.fuzz import mutated_case

    def read(seed: int, folder: Path) -> bool:
        rng = random.Random(seed)  # noqa: S311 - it makes test cases
        return mutated_case(rng).check(folder.resolve() / "case", is_stored=seed % 8 == 0)

    yield read


@contextlib.contextmanager
def weights() -> Iterator[Read]:
    """A checkpoint that a run starts from, as a `.pth` or a `.safetensors` file."""
    from detr_job.weights.tensor_files import read_tensors
    from tests.hostile.weights import mutated_weights

    def read(seed: int, folder: Path) -> bool:
        return accepted(read_tensors, mutated_weights(seed, folder))

    yield read


@contextlib.contextmanager
def webhooks() -> Iterator[Read]:
    """Signed requests to the bridge's webhook, with triggers configured, until all work that they start is done."""
    from fastapi.testclient import TestClient

    from cvat_bridge.http.app import make_app
    from cvat_bridge.service import Secrets, Service
    from cvat_client.settings import BridgeSettings
    from run_config.installation import parse_installation
    from tests.cvat_bridge import running_bridge as bridge
    from tests.cvat_double.server import running
    from tests.hostile.http_bodies import mutated_webhook
    from tests.workflows.fake_kubernetes import FakeKubernetes
    from workflows.cluster.kubeconfig import find_access
    from workflows.cluster.kubernetes import Kubernetes

    triggers = [{"event": name, "parameters": {"model": "tiny"}} for name in ("task-completed", "export-finished")]
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        cvat = opened.enter_context(running())
        kubernetes = opened.enter_context(FakeKubernetes().serving())
        store = (folder / "store").as_uri()
        bridge.install(kubernetes, store)
        access = find_access(environment={"KUBECONFIG": str(kubernetes.kubeconfig(folder / "kubeconfig"))})
        client = opened.enter_context(Kubernetes(access, None))
        settings = BridgeSettings.model_validate(
            {"cvat": {"url": cvat.url, "publicOrigin": bridge.ORIGIN}, "triggers": triggers}
        )
        installation = parse_installation(bridge.SETTINGS.format(store=store), "settings")
        secrets = Secrets(bridge.KEY, cvat.service.token, bridge.SECRET)
        app = make_app(Service(settings, installation, client, secrets))
        logged = LoggedFaults()
        logging.getLogger().addHandler(logged)
        # Raises an exception where a real server would respond with 500.
        browser = opened.enter_context(TestClient(app, base_url=bridge.ORIGIN))

        def read(seed: int, _folder: Path) -> bool:
            body = mutated_webhook(seed)
            signature = "sha256=" + hmac.new(bridge.SECRET, body, hashlib.sha256).hexdigest()
            headers = {"X-Signature-256": signature, "Content-Type": "application/json"}
            end = time.monotonic() + PATIENCE_S
            while True:
                answer = browser.post("/training-bridge/webhooks/cvat", content=body, headers=headers)
                if answer.status_code != QUEUE_FULL or time.monotonic() > end:
                    break
                time.sleep(0.1)
            logged.raise_first()
            if answer.status_code == QUEUE_FULL or answer.status_code >= 500:
                raise AssertionError(f"answered {answer.status_code}: {answer.text[:300]}")
            return answer.is_success

        yield read


class LoggedFaults(logging.Handler):
    """Collects exceptions that the service logged: a traceback in a log is a bug as well."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the exception of a record, if it has one."""
        if record.exc_info and record.exc_info[1]:
            self._errors.append(record.exc_info[1])

    def raise_first(self) -> None:
        """Raise the first logged exception."""
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def parameters() -> Iterator[Read]:
    """Five readers of parameters from forms, command lines and files. One that accepts the input is enough."""
    from data_prep.sources.names import source_places
    from run_config.job.presets import load_job_config
    from run_config.parameters import TEMPLATES, pairs, parse
    from run_config.step_parameters import texts_from_json
    from tests.hostile.parameters import hostile_parameters

    def read(seed: int, folder: Path) -> bool:
        case = hostile_parameters(seed, folder)
        taken = TEMPLATES.get(case.template, TEMPLATES["detr-train"])
        return any(
            [
                accepted(texts_from_json, case.parameters_json),
                accepted(parse, case.texts, taken),
                accepted(pairs, case.overrides),
                accepted(load_job_config, case.model, case.overrides),
                accepted(source_places, case.texts.values()),
            ]
        )

    yield read


def accepted(read: Callable[..., object], *arguments: object) -> bool:
    """Whether a reader accepts its arguments. Exceptions other than refusals are raised."""
    try:
        read(*arguments)
    except Exception as error:
        # Our errors that tell a person which input is wrong.
        if getattr(error, "exit_code", None) != WRONG_INPUT:
            raise
        return False
    return True


READERS: Mapping[str, Callable[[], AbstractContextManager[Read]]] = {
    "formats": formats,
    "exports": exports,
    "weights": weights,
    "webhooks": webhooks,
    "parameters": parameters,
}
"""Kind of input → its reader."""
