"""The time from submitting detr-train to its first training step, with an existing prepared set, split into parts.

    python -m benchmarks.cluster_latency [--rounds 5] [--against TAG]

Prints two tables. The first splits the time of whole runs into five parts: Argo's controller (from the end of a step to
the next pod, including the step's last container), the scheduler, the start of the pod (sandbox and volumes; the images
are already on the nodes), Argo's init container, and our container. It covers check, prepare, and train up to its first
step. It uses the times that the API states, which are whole seconds, so the mean over the rounds counts. The second
table shows the inside of our containers. Each command runs once more in its own pod, with time marks counted from the
start of its process, and with a count of its requests to the store. With `--against`, it alternates with the same
command of images with another tag. Needs the variables of tests/cluster/README.md, and the images.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cluster_space import (
    Json,
    container_times,
    image,
    printed,
    run_pod,
    seconds,
    single_pod,
    space,
    stamped_log,
)
from benchmarks.local_run import machine
from data_prep.sample.make import make_sample
from tests.cluster.cluster import Installation, node
from workflows.templates import pods

STEPS = ("check", "prepare", "train")
PARTS = ("Argo", "scheduler", "pod start", "init", "ours")
OVERRIDES = "training.log_interval=1"

# Runs one of our commands: argv[1] is its module, the rest its arguments. Ends at the first training step.
MARKED = """
import importlib, json, os, sys, threading, time
from pathlib import Path
born = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
age = lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - born
marks, requests = {"interpreter": age()}, []
def wrap(owner, name, before):
    plain = getattr(owner, name)
    def marked(*arguments, **options):
        before()
        return plain(*arguments, **options)
    setattr(owner, name, marked)
def end(status):
    marks["end"] = age()
    print(json.dumps({"marks": marks, "requests": len(requests), "status": status}), flush=True)
    os._exit(0)
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "botocore.httpsession":
            sys.meta_path.remove(self)
            wrap(importlib.import_module(name).URLLib3Session, "send", lambda: requests.append(age()))
sys.meta_path.insert(0, Watch())
import obstore
for name in ("get", "head", "put", "delete"):
    wrap(obstore, name, lambda: requests.append(age()))
module = importlib.import_module(sys.argv[1] + ".cli")
marks["command line"] = age()
if sys.argv[2] == "train":
    import detr_job.training.training_job as job
    marks["imports"] = age()
    def mark(owner, name, title):
        wrap(owner, name, lambda: marks.setdefault(title, age()))
    mark(job.PreparedSet, "pull", "set found")
    mark(job, "build_family", "set pulled")
    mark(job, "_open_run", "model built")
    mark(job, "Trainer", "run opened")
    from detr_job.training.trainer import Trainer
    mark(Trainer, "resume", "trainer ready")
    mark(Trainer, "train", "looked for checkpoints")
    wrap(Trainer, "_log", lambda: end(0))
sys.argv = sys.argv[1:]
try:
    module.main()
except SystemExit as done:
    end(done.code)
"""


def timeline(installation: Installation, name: str, submitted_s: float, first_step_s: float) -> dict[str, list[float]]:
    """The seconds of each of `PARTS` for each step. Together they are the whole time."""
    found: dict[str, list[float]] = {}
    before = submitted_s
    for step in STEPS:
        (pod,) = installation.pods(name, step)
        created = seconds(pod["metadata"]["creationTimestamp"])
        conditions = {one["type"]: one for one in pod["status"]["conditions"]}
        scheduled = seconds(conditions["PodScheduled"]["lastTransitionTime"])
        init_began, _ = container_times(pod, "init")
        main = next(one for one in pod["status"]["containerStatuses"] if one["name"] == "main")
        state = main["state"].get("terminated") or main["state"]["running"]
        began = seconds(state["startedAt"])
        ended = first_step_s if step == "train" else seconds(state["finishedAt"])
        points = [before, created, scheduled, init_began, began, ended]
        found[step] = [later - earlier for earlier, later in itertools.pairwise(points)]
        before = ended
    return found


def whole_run(installation: Installation) -> dict[str, list[float]]:
    """Submit a run, wait for the first step in the training pod's log, and delete the run."""
    submitted_s = time.time()
    name = installation.submit(model="tiny", epochs="1", overrides=OVERRIDES)
    pod = installation.training_pod(name)
    installation.wait_for_step(pod, 1)
    first_step_s = next(stamp for stamp, line in stamped_log(installation, pod, "main") if line.startswith("step 1/"))
    found = timeline(installation, name, submitted_s, first_step_s)
    installation.kubectl("delete", "workflow", name)
    return found


def marked(installation: Installation, tag: str, package: str, *arguments: str) -> Json:
    """Run a command with time marks in a pod like the step's, and return the marks."""
    volume, mount = (
        one.model_dump(by_alias=True, exclude_none=True) for one in (pods.SETTINGS_VOLUME, pods.SETTINGS_MOUNT)
    )
    writable: list[Json] = [{"name": name, "emptyDir": {}} for name in ("out", "tmp")]
    template: Json = {
        "container": {
            "image": image(installation.cluster, "detr-job" if package == "detr_job" else "cpu-steps", tag),
            "command": ["python"],
            "args": ["-c", MARKED, package, *arguments],
            "volumeMounts": [
                {"name": "out", "mountPath": pods.OUT},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                mount,
            ],
        },
        "volumes": [*writable, volume],
    }
    name, pod = run_pod(installation, single_pod(installation, template, gpu_node=package == "detr_job"))
    found = printed(installation, pod)
    installation.kubectl("delete", "workflow", name)
    if found["status"]:
        raise SystemExit(f"{package} {arguments[0]} ended with {found['status']}")
    return found


def commands(installation: Installation, prepared_set: str, name: str) -> dict[str, tuple[str, ...]]:
    """The commands of the three steps, as the workflow starts them."""
    store, export = installation.store, "uploads/sample_trainval.zip"
    values = {"cvat-annotation-path": export, "store": store, "model": "tiny", "device": "cpu", "gpu-count": "0"}
    values |= {"sys-node-pool": "training"}
    run = f"--run=marked-{name}"
    prefix = "workflow-data/output"
    train = (f"--store={store}", f"--set={prepared_set}", f"--output-prefix={prefix}", run, f"--out={pods.OUT}")
    return {
        "check": ("data_prep", "check", run, *(f"--parameter={key}={value}" for key, value in values.items())),
        "prepare": ("data_prep", "prepare", f"--store={store}", "--test=", "--val-fraction=0.15", "--seed=42", export),
        "train": (
            "detr_job",
            "train",
            *train,
            "--model=tiny",
            "--epochs=1",
            "--device=cpu",
            f"--overrides={OVERRIDES}",
        ),
    }


def main(
    rounds: int = 5, against: Annotated[str, typer.Option(help="tag of other images, for the second table")] = ""
) -> None:
    """Prepare the set with a first run, then measure."""
    with space("bench-latency") as installation, tempfile.TemporaryDirectory() as folder:
        print(machine(), flush=True)
        make_sample(Path(folder), images=60)
        installation.upload("uploads/sample_trainval.zip", (Path(folder) / "sample_trainval.zip").read_bytes())
        installation.install()
        prepared_set = _first_run(installation)
        _print_parts([whole_run(installation) for _ in range(rounds)])
        tags = [installation.cluster.tag, *([against] if against else [])]
        looks: dict[tuple[str, str], list[Json]] = {(step, tag): [] for step in STEPS for tag in tags}
        # One more round than requested: the first may pull an image and is discarded.
        for number, tag in itertools.product(range(rounds + 1), tags):
            for step, (package, *arguments) in commands(installation, prepared_set, f"{tag}-{number}").items():
                looks[step, tag].append(marked(installation, tag, package, *arguments))
        for (step, tag), found in looks.items():
            _print_marks(step, tag, found[1:])


def _first_run(installation: Installation) -> str:
    """Pull the images to the nodes and prepare the set. Return its id."""
    name = installation.submit(model="tiny", epochs="1")
    done = installation.wait(
        name, lambda run: (node(run, "prepare") or {}).get("phase") == "Succeeded", 600, "prepared"
    )
    installation.training_pod(name, 600)
    installation.kubectl("delete", "workflow", name)
    found = node(done, "prepare")
    assert found is not None
    values = {one["name"]: one["value"] for one in found["outputs"]["parameters"]}
    return str(values["prepared-set"])


def _print_parts(rounds: list[dict[str, list[float]]]) -> None:
    print("| seconds, mean | " + " | ".join(PARTS) + " |\n|---|" + "---|" * len(PARTS))
    columns = [0.0] * len(PARTS)
    for step in STEPS:
        means = [statistics.mean(found[step][part] for found in rounds) for part in range(len(PARTS))]
        columns = [total + mean for total, mean in zip(columns, means, strict=True)]
        print(f"| {step} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    print("| sum | " + " | ".join(f"{total:.1f}" for total in columns) + " |")
    whole = [sum(sum(parts) for parts in found.values()) for found in rounds]
    print(
        f"from submission to the first step {statistics.mean(whole):.1f} s (from {min(whole):.1f} to "
        f"{max(whole):.1f}, {len(rounds)} runs), of it ours {columns[-1]:.1f} s",
        flush=True,
    )


def _print_marks(step: str, tag: str, found: list[Json]) -> None:
    parts, before = [], 0.0
    for title in found[0]["marks"]:
        at = statistics.median(one["marks"][title] for one in found)
        parts.append(f"{title} {at - before:.2f}")
        before = at
    requests = round(statistics.median(one["requests"] for one in found))
    print(f"inside {step} ({tag}): {before:.2f} s, {requests} requests: {', '.join(parts)}")


if __name__ == "__main__":
    typer.run(main)
