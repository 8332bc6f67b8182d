"""`cvat-bridge export`: check the options and run the step. Every failure is an error with one sentence."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cvat_client.api import CvatApi
from cvat_client.errors import BridgeError
from cvat_client.grants import signing_key, verify
from cvat_client.patience import Pace
from cvat_client.settings import BridgeSettings, load_settings
from cvat_client.subject import Subject
from cvat_steps.export import ExportStep, planned, url_of
from cvat_steps.export_progress import ExportProgress
from cvat_steps.export_unpack import unpack
from object_store import open_store
from run_config import prepare_pods
from run_config.argo_text import leave_value
from run_config.exit_codes import TERMINATED
from run_config.installation import permitted
from run_config.locations import key_below_store
from run_config.parameters import Type

PACE = Pace()


class StoppedError(BridgeError):
    """The step was stopped by SIGTERM."""

    exit_code = TERMINATED


class _StopNow(BaseException):
    """A BaseException, so that no `except Exception` handles it."""


@dataclass(frozen=True, slots=True)
class Order:
    """Options of `cvat-bridge export`. `into`: the key to unpack the export to. Empty: it stays a zip.

    parameters: the workflow's parameters, name → text.
    """

    store: str
    subject: str
    grant: str
    run: str
    format: str
    into: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def export(order: Order, environment: Mapping[str, str] = os.environ, pace: Pace = PACE) -> list[str]:
    """Export the subject to the store. Returns the URLs for the next step, and writes them to $OUT/outputs/dataset.

    The number of pods that prepare an export of this size is written to $OUT/outputs/pods.
    """
    settings = load_settings(environment)
    subject = Subject.parse(order.subject)
    key = signing_key(environment.get("CVAT_BRIDGE_SIGNING_KEY"))
    grant = verify(order.grant, subject, key, accept_expired=settings.grants.accept_expired)
    into = _permitted_place(order, subject, settings)
    store = open_store(order.store)
    exports = planned(subject, order.run, order.format, settings.exports.prefix)
    progress = ExportProgress(len(exports))
    with _broken_off_by_sigterm(), CvatApi(settings.cvat, environment.get("CVAT_ACCESS_TOKEN")) as api:
        # Third-party templates get files in their own format only.
        ExportStep(settings, api, store, progress, pace).bring(exports, grant.user, seconds=not into)
        if into:
            unpack(store, exports[0], into, progress)
    urls = [url_of(store, into)] if into else [url_of(store, one.key) for one in exports]
    if out := environment.get("OUT"):
        leave_value(Path(out), "dataset", "\n".join(urls))
        size_bytes = sum(store.head(one.key).size_bytes for one in exports) if not into else 0
        choice = order.parameters.get(prepare_pods.PARAMETER) or prepare_pods.AUTO
        leave_value(Path(out), "pods", str(prepare_pods.pods_for(choice, size_bytes)))
    return urls


def _permitted_place(order: Order, subject: Subject, settings: BridgeSettings) -> str:
    """The key to unpack to. It must be below the exports prefix, or where the installation permits writing."""
    into = key_below_store(order.into) if order.into else ""
    own = settings.exports.prefix.strip("/")
    written = {"--into": into} if into and not into.startswith(f"{own}/") else {}
    permitted({**order.parameters, "store": order.store, **written}, {"--into": Type.KEY})
    if into and len(subject.ids) > 1:
        raise BridgeError(f"--unpack takes one task or one project, not {subject}: start a run for each")
    return into


@contextmanager
def _broken_off_by_sigterm() -> Iterator[None]:
    """On SIGTERM, delete temporary files and raise StoppedError. Objects in the store stay for the next attempt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _StopNow

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _StopNow:
        raise StoppedError("stopped by SIGTERM; run the same command again to resume") from None
    finally:
        signal.signal(signal.SIGTERM, before)
