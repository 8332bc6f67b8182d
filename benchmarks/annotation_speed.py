"""Automatic annotation over HTTP, one image after the other as in CVAT, against the model alone.

    .venv/bin/python -m benchmarks.annotation_speed [--images 100] [--threads 1] [--model tiny]

Both run in separate processes with the same number of threads, the same random weights and the same generated JPEG
files. The baseline decodes each file and runs the model without a server. The server adds HTTP, base64, JSON and
passing the work between threads. Both sides alternate every few images, and the best of several rounds counts. The CPU
time is also shown, because other load on the machine does not change it (Linux). Prints one line.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw

from benchmarks.processes import processor_s, wait_for

OUTPUT = "workflow-data/output"
TURN = 5
"""Number of images after which the sides alternate, so that other load on the machine affects both."""
MODEL_ALONE = """
import sys, time
from pathlib import Path
from detr_job import hardware
from detr_job.prediction.predictor import Predictor
device = hardware.choose_device("cpu")
hardware.prepare(device)
predictor = Predictor(sys.argv[1], device)
files = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
for file in files[:3]:
    predictor.detect(predictor.read(file), 0.5)
for line in sys.stdin:
    first, end = map(int, line.split())
    start = time.perf_counter()
    for file in files[first:end]:
        predictor.detect(predictor.read(file), 0.5)
    print(time.perf_counter() - start, flush=True)
"""
WRITE_MODEL = """
import sys
from pathlib import Path
from detr_job.family import build_family
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from run_config.job.presets import load_job_config
config = load_job_config(sys.argv[1], [])
classes = ("disc", "square", "star")
size = Preprocessing(config.data.eval_size, config.data.max_size, square=config.data.square)
info = ModelFolderConfig(classes=classes, preset=sys.argv[1], job=config.model_dump(mode="json"), preprocessing=size,
                   prepared_set="none", metrics={})
write_model(Path(sys.argv[2]), build_family(config, len(classes)).network.state_dict(), info)
"""


def draw_images(folder: Path, count: int) -> list[bytes]:
    """Write JPEG files of 640 x 480 pixels with a few shapes, and return their contents."""
    folder.mkdir()
    files = []
    for number in range(count):
        image = Image.effect_noise((640, 480), 40).convert("RGB")
        canvas = ImageDraw.Draw(image)
        for part in range(4):
            x, y = (number * 37 + part * 151) % 540, (number * 53 + part * 97) % 380
            canvas.ellipse((x, y, x + 90, y + 90), fill=(200, 40 * part, 60))
        path = folder / f"{number:04}.jpg"
        image.save(path, "JPEG", quality=90)
        files.append(path.read_bytes())
    return files


def over_http(port: int, files: list[bytes]) -> float:
    """Seconds for all files. Each file is sent in its own connection, as CVAT does."""
    start = time.perf_counter()
    for file in files:
        body = json.dumps({"image": base64.b64encode(file).decode(), "threshold": 0.5})
        headers = {"x-nuclio-function-name": "bench", "content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/api/function_invocations", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"the model server answered {answer.status}: {content[:200]!r}")
    return time.perf_counter() - start


def main(
    images: Annotated[int, typer.Option(help="number of images")] = 100,
    threads: Annotated[int, typer.Option(help="of the model on either side")] = 1,
    model: Annotated[str, typer.Option(help="preset, with random weights")] = "tiny",
    port: Annotated[int, typer.Option(help="of the model server")] = 18071,
    rounds: Annotated[int, typer.Option(help="the best of so many counts")] = 3,
) -> None:
    """Measure both sides."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = folder / "store" / OUTPUT / "bench" / "model"
        subprocess.run([sys.executable, "-c", WRITE_MODEL, model, str(weights)], check=True)
        files = draw_images(folder / "images", images)
        serve = "from cvat_bridge.cli import main; main()"
        arguments = ["serve-models", "--host=127.0.0.1", f"--port={port}", "--device=cpu"]
        command = [sys.executable, "-c", serve, *arguments, f"--store={folder / 'store'}"]
        alone = [sys.executable, "-c", MODEL_ALONE, str(weights), str(folder / "images")]
        with (
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, text=True) as server,
            subprocess.Popen(
                alone, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as baseline,
        ):
            assert baseline.stdin is not None
            assert baseline.stdout is not None
            wait_for(f"{url}/readyz", server)
            print(0, 3, file=baseline.stdin, flush=True)  # both have their model in memory
            baseline.stdout.readline()
            over_http(port, files[:3])
            before = processor_s(baseline.pid), processor_s(server.pid)
            model_s = http_s = 0.0
            for first in range(0, len(files), TURN):
                part = files[first : first + TURN]
                times = []
                for _ in range(rounds):
                    print(first, first + len(part), file=baseline.stdin, flush=True)
                    times.append((float(baseline.stdout.readline()), over_http(port, part)))
                model_s += min(each for each, _ in times)
                http_s += min(each for _, each in times)
            model_cpu_s, server_cpu_s = processor_s(baseline.pid) - before[0], processor_s(server.pid) - before[1]
            baseline.stdin.close()
            server.terminate()
    print(
        f"automatic annotation of {images} images ({model}, OMP_NUM_THREADS={threads}): "
        f"{images / http_s:.1f} images/s over HTTP, the model alone {images / model_s:.1f}: "
        f"{model_s / http_s:.2f} x; processor time of the server {server_cpu_s / model_cpu_s:.2f} x the model's"
    )


if __name__ == "__main__":
    typer.run(main)
