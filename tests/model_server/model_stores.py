"""Small trained models in a store, and the model server over them on a real socket."""

import asyncio
import base64
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from PIL import Image

from detr_job.family import build_family
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from model_server.app import ModelServer, make_app
from model_server.engine import Engine
from model_server.listing import FunctionList
from model_server.nuclio import Nuclio
from model_server.trained_models import TrainedModels
from object_store import open_store
from tests.detr_job.pictures import small_config

CPU = torch.device("cpu")
OUTPUT = "workflow-data/output"
CLASSES = ("disc", "square")


def write_trained_model(
    folder: Path, classes: tuple[str, ...] = CLASSES, *, ap: float = 0.512, seed: int = 1, **config_of_job: object
) -> Path:
    """A model with random weights; with a low threshold it sees things everywhere."""
    torch.manual_seed(seed)
    config = small_config("tiny", **config_of_job)
    network = build_family(config, len(classes)).network
    info = ModelFolderConfig(
        classes=classes,
        preset="tiny",
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size),
        prepared_set="0123abcd",
        metrics={"val_ap": ap, "val_ap50": 0.9},
    )
    write_model(folder, network.state_dict(), info)
    return folder


def write_run(
    store: Path,
    run: str,
    *,
    subject: str = "",
    classes: tuple[str, ...] = CLASSES,
    age_s: float = 0,
    output: str = OUTPUT,
    seed: int = 1,
) -> Path:
    """A finished run in a store that is a folder; `age_s`: how long ago. Its folder."""
    folder = store / output / run
    write_trained_model(folder / "model", classes, seed=seed)
    parameters = {"epochs": "50", **({"cvat-subject": subject} if subject else {})}
    (folder / "run.json").write_text(json.dumps({"format": 1, "run": run, "parameters": parameters}))
    made = time.time() - age_s
    os.utime(folder / "model" / "config.json", (made, made))
    return folder


def pin(store: Path, subject: str, run: Path) -> None:
    """What the service writes when a person chooses a run's model."""
    (store / "cvat-models").mkdir(parents=True, exist_ok=True)
    content = {"model": (run / "model").as_uri(), "run": run.name}
    (store / "cvat-models" / f"{subject}.json").write_text(json.dumps(content))


def picture(width: int = 120, height: int = 90, *, seed: int = 0) -> bytes:
    """A PNG of noise with a bright square."""
    pixels = np.random.default_rng(seed).integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : height // 2, width // 3 : width // 2] = 230
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def call_body(image: bytes, threshold: float | None = 0.001) -> bytes:
    """What CVAT sends to a function."""
    call: dict[str, Any] = {"image": base64.b64encode(image).decode()}
    return json.dumps(call if threshold is None else {**call, "threshold": threshold}).encode()


@dataclass
class Running:
    """A model server that answers."""

    url: str
    server: ModelServer
    client: httpx.Client
    loop: asyncio.AbstractEventLoop

    def functions(self) -> dict[str, Any]:
        return self.client.get("/api/functions").json()

    def invoke(self, name: str, body: bytes) -> httpx.Response:
        return self.client.post("/api/function_invocations", content=body, headers={"x-nuclio-function-name": name})

    def look_again(self) -> None:
        """As the background does now and then."""
        asyncio.run_coroutine_threadsafe(self.server.listing.refresh(), self.loop).result(30)


@contextmanager
def model_server(
    store: str,
    *,
    most: int = 20,
    loaded: int = 3,
    nuclio: str = "",
    threshold: float | None = None,
    engine: Engine | None = None,
    prefixes: tuple[str, ...] = (OUTPUT,),
) -> Iterator[Running]:
    """Serve a store's models on a free port, in a thread; its first list has been read."""
    models = TrainedModels(open_store(store, retry_for_s=0), prefixes, most)
    listing = FunctionList(models, threshold=threshold)
    parts = ModelServer(listing, engine or Engine(CPU, loaded), Nuclio(nuclio), threshold, 8070)
    with serving(make_app(parts)) as (url, loop), httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        until = time.monotonic() + 30
        while parts.listing.read_at is None and not parts.listing.trouble and time.monotonic() < until:
            time.sleep(0.005)
        yield Running(url, parts, client, loop)


@contextmanager
def serving(app: Any) -> Iterator[tuple[str, asyncio.AbstractEventLoop]]:
    """Any application on a free port, in a thread: its address and event loop."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", loop
    finally:
        server.should_exit = True
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
