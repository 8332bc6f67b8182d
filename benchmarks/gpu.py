"""Everything that must be measured on a GPU; `gpu.sh` starts it.

    benchmarks/gpu.sh                        # all parts, on the GPU
    benchmarks/gpu.sh parity resume          # some of them
    benchmarks/gpu.sh --device cpu           # small models, which shows that the parts work

parity: loss, gradient and scores of each family in fp32 and bf16 against the CPU in fp32. speed: a training step
against transformers, with images per second, memory, and the part of the device's peak that is used. run: `run-local`
from a drawn sample to an evaluated model. resume: a killed run ends like one that nobody disturbed.
"""

import argparse
import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import torch

    from detr_job.data.batches import Batch
    from detr_job.family import Family

COMMON = ("torch", "numpy", "scipy", "msgspec", "pydantic", "yaml", "typer", "safetensors", "PIL")
STORE = ("rich", "tenacity", "boto3", "obstore")
NEEDED = {
    "parity": (*COMMON, *STORE, "torchvision", "transformers"),
    "speed": (*COMMON, *STORE, "torchvision", "transformers"),
    "run": (*COMMON, *STORE, "jinja2"),
    "resume": (*COMMON, *STORE),
}
"""The modules that each part imports, besides those of this repository."""

PRESETS = {
    "tiny": "tiny",
    "detr": "detr-r50",
    "deformable_detr": "deformable-detr-r50-two-stage",
    "rf_detr": "rf-detr-nano",
    "d_fine": "d-fine-nano",
    "faster_rcnn": "faster-rcnn-r50",
}
QUIET = {
    "tiny": ("model.dropout=0",),
    "detr": ("model.dropout=0",),
    "deformable_detr": ("model.dropout=0",),
    "d_fine": ("model.denoising_queries=0",),
}
"""What makes a training step the same on two devices, which draw different random numbers."""
TOLERANCE = {"fp32": 0.02, "bf16": 0.15}
"""Largest difference from the CPU; fp32 on a GPU is TF32."""
SPEED = {"detr": ("detr-r50", 8, "800x1066"), "rf_detr": ("rf-detr-small", 8, ""), "d_fine": ("d-fine-nano", 16, "")}
REPEATED = 1e-6
"""Largest difference of weights after a resume, if the device repeats a run without any."""


def end(sentence: str, code: int = 2) -> NoReturn:
    """Print a sentence and end."""
    print(f"gpu.sh: {sentence}", file=sys.stderr)
    sys.exit(code)


class Step(NamedTuple):
    """A training step and a prediction: the loss, the length of its gradient, and the best scores of each image."""

    loss: float
    gradient: float
    scores: "torch.Tensor"


def step(family: "Family", data: "Batch", device: "torch.device", *, bf16: bool) -> Step:
    """Compute both on a device. The weights stay as they are."""
    import torch

    from detr_job.data.batches import normalised
    from detr_job.hardware import autocast

    network, batch = family.network.to(device), data.to(device)
    images = normalised(batch)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with autocast(device, bf16=bf16), torch.inference_mode():
        outputs = network.eval()(images, batch.padding_mask)
        found = family.detections(outputs, torch.tensor([images.shape[-2:]] * len(images)))
    ranked = [each.scores.float().cpu().sort(descending=True).values for each in found]
    scores = [torch.nn.functional.pad(each, (0, 20))[:20] for each in ranked]
    network.train().zero_grad(set_to_none=True)
    generator = torch.Generator(device).manual_seed(1)
    with autocast(device, bf16=bf16):
        loss = family.losses(
            network, images, batch.padding_mask, batch.targets, num_boxes=len(batch.targets), generator=generator
        ).total
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    lengths = [each.grad.norm() for each in network.parameters() if each.grad is not None]
    network.load_state_dict(kept)
    return Step(loss.item(), torch.stack(lengths).norm().item(), torch.stack(scores))


def parity(device: "torch.device") -> None:
    """Compare each family with itself on the CPU in fp32."""
    import torch

    from benchmarks.train_step import CLASSES, host_batch
    from detr_job.family import build_family
    from run_config.job.presets import load_job_config
    from tests.detr_job.pictures import small_config

    different = []
    for name, preset in PRESETS.items():
        options = QUIET.get(name, ())
        if device.type == "cpu":
            config, size = small_config(name, **dict(each.split("=") for each in options)), (64, 96)
        else:
            config = load_job_config(preset, list(options))
            size = (config.data.eval_size,) * 2 if config.data.square else (256, 320)
        torch.manual_seed(0)
        family, data = build_family(config, CLASSES), host_batch(size, 2, 5, padded=False)
        reference = step(family, data, torch.device("cpu"), bf16=False)
        for precision, tolerance in TOLERANCE.items():
            mine = step(family, data, device, bf16=precision == "bf16")
            loss, gradient = (abs(a / b - 1) for a, b in zip(mine[:2], reference[:2], strict=True))
            scores = (mine.scores - reference.scores).abs().max().item()
            # Faster R-CNN draws the proposals of its loss, differently on each device
            same = max((scores,) if name == "faster_rcnn" else (loss, gradient, scores)) <= tolerance
            print(
                f"parity of {name}, {precision}: loss {loss:.1e}, gradient {gradient:.1e}, scores {scores:.1e}, "
                f"{'within' if same else 'BEYOND'} {tolerance}",
                flush=True,
            )
            if not same:
                different.append(f"{name} in {precision}")
    if different:
        end(f"parity: too different from the CPU: {', '.join(different)}", 1)


def speed(device: "torch.device") -> None:
    """Time a training step of three models against transformers."""
    from benchmarks.train_step import CLASSES, compare, sides, waits
    from detr_job.hardware import hardware_name
    from detr_job.training.utilisation import peak_flops, training_flops
    from run_config.job.presets import load_job_config
    from tests.detr_job.pictures import small_config

    for family, (preset, batch, size) in SPEED.items():
        small = device.type == "cpu"
        config = small_config(family) if small else load_job_config(preset)
        precision = "fp32" if small else "bf16"
        ours, theirs = sides(
            config, 2 if small else batch, "96x96" if small else size, 7, device, bf16=precision == "bf16"
        )
        works = compare(ours, theirs, *((1, 1) if small else (10, 5)), predict=False)
        mine, other, full = (work.median_ms()[0] for work in works)
        peak, flops = peak_flops(hardware_name(device), bf16=True), None
        if peak is not None:
            flops = training_flops(config, CLASSES, tuple(ours.images.shape))
        used = f"{100 * flops / (full / 1000) / peak:.0f} %" if peak and flops else "unknown"
        waited = f", {waits(works[-1])} waits for the device" if device.type == "cuda" else ""
        print(
            f"speed of {f'small {family}' if small else preset}, {len(ours.images)} x {ours.images.shape[-2]} x "
            f"{ours.images.shape[-1]}, {precision}: "
            f"{mine:.1f} ms, {other / mine:.2f} times as fast as transformers; with our full loss {full:.1f} ms, "
            f"{1000 * len(ours.images) / full:.1f} images/s, {works[-1].peak_mib():.0f} MiB (transformers "
            f"{works[1].peak_mib():.0f}), {used} of the peak{waited}",
            flush=True,
        )


def run(device: "torch.device") -> None:
    """Run the whole workflow on a drawn sample."""
    from benchmarks.local_run import BIN, local_run

    small = device.type == "cpu"
    with tempfile.TemporaryDirectory() as name:
        sample = Path(name) / "sample"
        count = ("--images", "30") if small else ()
        subprocess.run([BIN / "data-prep", "make-sample", sample, *count], check=True, stdout=subprocess.DEVNULL)
        result = local_run(
            Path(name) / "store",
            parameters={
                "cvat-annotation-path": str(sample / "sample_trainval.zip"),
                "cvat-test-path": str(sample / "sample_test.zip"),
                "model": "tiny",
                "cvat-finetune-checkpoint": "none",
                "device": device.type,
                "minutes": "0.05" if small else "1",
            },
        )
    print(f"run: AP50 {result.ap50:.3f}, AP {result.ap:.3f} after {result.seconds:.0f} s in all", flush=True)


def resume(device: "torch.device") -> None:
    """Compare a run that was killed with two that nobody disturbed."""
    import torch
    from safetensors.torch import load_file

    from benchmarks.local_run import BIN
    from object_store import open_store
    from tests.detr_job.training_runs import TINY, make_set

    steps = 24 if device.type == "cpu" else 300
    keys = TINY | {"schedule.steps": steps, "checkpoints.interval": steps // 6, "evaluation.interval": steps}
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        set_id = make_set(Path(name), open_store(store))

        def command(number: int) -> list[str]:
            given = {
                "--store": store.as_uri(),
                "--set": set_id,
                "--output-prefix": "runs",
                "--run": f"run-{number}",
                "--out": str(Path(name) / f"out-{number}"),
                "--model": "tiny",
                "--finetune": "none",
                "--device": device.type,
                "--overrides": " ".join(f"{key}={value}" for key, value in keys.items()),
            }
            return [str(BIN / "detr-job"), "train", *(word for pair in given.items() for word in pair)]

        def train(number: int) -> dict[str, torch.Tensor]:
            done = subprocess.run(command(number), check=False, capture_output=True, text=True)
            if done.returncode:
                end(f"resume: training failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}", 1)
            return load_file(Path(name) / f"out-{number}" / "model" / "model.safetensors")

        undisturbed, again = train(1), train(2)
        job = subprocess.Popen(command(3), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while job.poll() is None and not list(store.glob("runs/run-3/checkpoints/step-*/manifest.json")):
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
        if job.wait() != -signal.SIGKILL:
            end("resume: the run ended before it could be killed", 1)
        resumed = train(3)
    usual, after = (
        max((each[key].float() - undisturbed[key].float()).abs().max().item() for key in undisturbed)
        for each in (again, resumed)
    )
    allowed = 0.0 if device.type == "cpu" else max(10 * usual, REPEATED)
    print(
        f"resume: weights differ by {after:.1e} from an undisturbed run, which itself differs by {usual:.1e} when "
        f"repeated; {allowed:.1e} is allowed",
        flush=True,
    )
    if after > allowed:
        end("resume: a resumed run differs more from an undisturbed one than its repetition", 1)


PARTS = {"parity": parity, "speed": speed, "run": run, "resume": resume}


def main() -> None:
    """Check the packages and the device, then run the parts."""
    parser = argparse.ArgumentParser(prog="gpu.sh", description="Measure on a GPU, in at most five minutes.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: small models, without a GPU")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        end(f"{unknown[0]!r} is not a part; use {', '.join(PARTS)}")
    parts = given.parts or list(PARTS)
    needed = {module for part in parts for module in NEEDED[part]}
    if missing := sorted(module for module in needed if importlib.util.find_spec(module) is None):
        end(f"{sys.base_prefix} has no {', '.join(missing)}; set PYTHON to a Python that has them, or name other parts")
    import torch

    from detr_job.hardware import hardware_name, prepare

    if given.device == "cuda" and not torch.cuda.is_available():
        end("PyTorch finds no GPU; use --device cpu to try the parts with small models")
    device = torch.device(given.device)
    prepare(device)
    print(f"{hardware_name(device)}, torch {torch.__version__}, parts: {', '.join(parts)}", flush=True)
    for part in parts:
        start = time.monotonic()
        PARTS[part](device)
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
