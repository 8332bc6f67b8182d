"""`cvat-bridge serve-models`: start the model server from options and the installation's settings."""

import os
import socket

import uvicorn

from cvat_bridge.http.connections import BoundedConnection
from cvat_bridge.logs import begin_logs
from cvat_client import settings as bridge_settings
from cvat_client.errors import BridgeError
from cvat_client.settings import Models, load_settings
from detr_job import hardware
from model_server.app import ModelServer, make_app
from model_server.engine import Engine
from model_server.listing import FunctionList
from model_server.nuclio import Nuclio
from model_server.trained_models import RETRY_FOR_S, TrainedModels
from object_store import open_store
from run_config.errors import ConfigError
from run_config.installation import load_installation
from run_config.locations import key_below_store, store_url
from run_config.parameters import PARAMETERS, Role

GRACE_S = 30


def serve_models(host: str, port: int, device_name: str, store: str, prefixes: list[str]) -> None:
    """Serve until SIGTERM. BridgeError, JobError: an option or a setting is invalid."""
    device = hardware.choose_device(device_name)
    hardware.prepare(device)
    settings = _settings()
    url, places, readable = _places(store, prefixes)
    models = TrainedModels(open_store(url, retry_for_s=RETRY_FOR_S), places, settings.most, readable)
    listener = _listener(host, port)
    server = ModelServer(
        FunctionList(models, threshold=settings.threshold),
        Engine(device, settings.loaded, keep_repeated=settings.keep_repeated),
        Nuclio(settings.nuclio),
        settings.threshold,
        listener.getsockname()[1],
    )
    begin_logs()
    config = uvicorn.Config(
        make_app(server),
        http=BoundedConnection,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run([listener])


def _settings() -> Models:
    """The installation's settings. The defaults without an installation, as on a laptop."""
    return load_settings().models if os.environ.get(bridge_settings.VARIABLE) else Models()


def _places(store: str, prefixes: list[str]) -> tuple[str, list[str], tuple[str, ...]]:
    """The store's URL, the prefixes of the run folders, and other places that pinned models may be in."""
    installation = load_installation()
    if installation is None and not store:
        raise BridgeError("--store is missing: there are no settings of an installation here that name the store")
    if installation is not None:
        if store:
            installation.allowed({"store": store})
        store = installation.store
    if not prefixes:
        prefixes = list(installation.writable) if installation is not None else []
    usual = next(each.default or "" for each in PARAMETERS if each.role is Role.OUTPUT)
    try:
        places = [key_below_store(prefix) for prefix in prefixes or [usual]]
    except ConfigError as error:
        raise BridgeError(f"--prefix: {error}") from error
    return store_url(store), places, installation.readable if installation is not None else ()


def _listener(host: str, port: int) -> socket.socket:
    """Open the port. BridgeError: it cannot be opened."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise BridgeError(f"port {port} of {host} cannot be opened: {error.strerror or error}") from error
