"""Too little memory divides the batch of a preset, and is else one sentence with what to lower."""

import itertools
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detr_job.data.batches import Batch, EpochBatches, EvaluationSamples, TrainingSamples, training_loader
from detr_job.errors import OutOfMemory
from detr_job.family import Family, build_family
from detr_job.models.outputs import Outputs
from detr_job.out_of_memory import DoesNotFit, is_out_of_memory, released
from detr_job.prediction.split_predictions import predict_split
from detr_job.stop_request import StopRequest
from detr_job.training import memory_probe, micro_batches
from detr_job.training.memory_probe import largest_batch
from detr_job.training.micro_batches import MicroBatches
from detr_job.training.trainer import Interval, Trainer
from detr_job.training.uploads import Uploads
from object_store import open_store
from prepared_set.reader import LocalSet, PreparedSet
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.job.keys import with_values
from tests.detr_job.pictures import mixed_set, mixed_split, small_config
from tests.detr_job.prediction.test_evaluate_command import random_model
from tests.detr_job.training_runs import TINY, Run, assert_same_result

CPU = torch.device("cpu")
UNCHOSEN = {key: value for key, value in TINY.items() if key != "data.batch_size"} | {"schedule.steps": 4}
# The network asks for more memory than there is when it has computed more images than `room`; the error is the
# allocator's own. At forward pass number `stop_at` the job gets a SIGTERM.
CRAMPED_JOB = """
import functools, os, signal, sys, torch
from detr_job import cli
from detr_job.training import memory_probe
from detr_job.models.tiny.network import Tiny
room, stop_at, probe = (int(sys.argv.pop(1)) for _ in range(3))
forward, passes = Tiny.forward, 0
if probe:
    memory_probe.probe = lambda local, device: functools.partial(memory_probe.fits, local, device)
def cramped(self, images, mask=None):
    global passes
    outputs = forward(self, images, mask)
    if self.training:
        passes += 1
        if passes == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(images) > room:
            torch.empty(1 << 50)
    return outputs
Tiny.forward = cramped
cli.main()
"""


def cramped(run: Run, room: int, stop_at: int = 0, *, probe: bool = False) -> tuple[int, str]:
    """Exit code and stderr of a run that has memory for so many images at once."""
    program = [sys.executable, "-c", CRAMPED_JOB, str(room), str(stop_at), str(int(probe)), *run.arguments()]
    environment = os.environ | {"TMPDIR": str(run.folder)}
    done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def micro_batch_size(run: Run) -> int:
    return json.loads(run.stored.get_bytes("run.json"))["micro_batch_size"]


def test_a_presets_batch_is_halved_and_a_restart_goes_on_with_halves(run: Run):
    run = replace(run, options=UNCHOSEN)
    whole = replace(run, name="undisturbed")
    code, said = cramped(whole, room=2)
    assert code == 0, said
    assert "warning: step 1 ran out of memory with 4 images at once (this machine: " in said
    assert "each batch of 4 goes through the network in 2 parts, and their gradients are added; the gradient" in said
    assert said.count("out of memory") == 1
    assert micro_batch_size(whole) == 2

    code, said = cramped(run, room=2, stop_at=4)  # after the pass that fails, two of the first step
    assert code == 75, said
    assert "SIGTERM: saving step 2" in said
    again = run.ends()  # with memory for all
    assert "resuming at step 2 " in again.says()
    assert "an earlier start of this run ran out of memory: each batch of 4 goes" in again.says()
    assert micro_batch_size(run) == 2
    assert_same_result(run, whole)


def test_a_restart_with_less_memory_lowers_the_parts_down_to_one_image(run: Run):
    run = replace(run, options=UNCHOSEN)
    code, said = cramped(run, room=2, stop_at=4)
    assert code == 75, said
    code, said = cramped(run, room=1)
    assert code == 0, said
    assert "ran out of memory with 2 images at once, a part of a batch (this machine: " in said
    assert "each batch of 4 goes through the network in 4 parts" in said
    assert "the gradient of a step is not exactly the same: batch norms see the images of a part" in said
    assert micro_batch_size(run) == 1
    code, said = cramped(replace(run, name="none"), room=0)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: step 1 ran out of memory with 1 image, a part of a batch (this machine: ")


def test_a_batch_that_fits_is_found_before_training_and_kept(run: Run):
    """The probe asks the network as it does on a GPU."""
    run = replace(run, options=UNCHOSEN)
    whole = replace(run, name="undisturbed")
    code, said = cramped(whole, room=2, probe=True)
    assert code == 0, said
    found = "data.batch_size=2 (4 of the largest images do not fit into memory; data.accumulate=2 keeps 4 a step)"
    assert found in said
    assert "with data.batch_size=2 instead of 4, the gradient of a step is not exactly the same: batch norms" in said
    assert "ran out of memory" not in said
    stored = json.loads(whole.stored.get_bytes("run.json"))
    assert (stored["config"]["data"]["batch_size"], stored["config"]["data"]["accumulate"]) == (2, 2)
    assert "data.accumulate=2" in stored["auto"]["data.batch_size"]

    code, said = cramped(run, room=2, stop_at=3 + 4, probe=True)  # after the passes of the probe
    assert code == 75, said
    again = run.ends()  # with memory for all, and without a probe
    assert "data.batch_size" not in again.says()
    assert_same_result(run, whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_probe_takes_a_step_with_the_largest_images_and_most_boxes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    local = PreparedSet.open(open_store(tmp_path / "store"), mixed_set(tmp_path)).pull(tmp_path / "pulled")
    config = small_config(name, **{"training.ema_decay": 0.9})
    seen: list[Batch] = []

    def cramped_batch(*arguments: Any) -> Batch:
        seen.append(largest_batch(*arguments))
        if len(seen[-1].images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return seen[-1]

    monkeypatch.setattr(memory_probe, "largest_batch", cramped_batch)
    assert not memory_probe.fits(local, CPU, config, 3)
    assert memory_probe.fits(local, CPU, config, 2)
    assert memory_probe.probe(local, CPU) is None
    assert seen[1].targets.counts == (3, 3)
    order = training_loader(
        TrainingSamples(local.split("train"), config.data, 1), EpochBatches(local.split("train"), 2, 1), CPU
    )
    for batch in itertools.islice(order, 12):
        assert batch.images.shape[2:] <= seen[1].images.shape[2:]
        assert len(batch.targets) <= len(seen[1].targets)


def test_a_batch_that_a_person_chose_is_refused_with_what_to_lower(run: Run):
    code, said = cramped(run, room=2)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: step 1 ran out of memory with 4 images at once (this machine: "), last
    assert last.endswith(
        "): lower batch-size (data.batch_size), the image size (data.min_sizes, data.max_size) or model.queries"
    )


def test_what_did_not_fit_is_released_before_the_next_try():
    held = []

    def compute() -> None:
        weights = torch.rand(10, requires_grad=True)
        activations = (2 * weights).exp()
        held.extend((weakref.ref(weights), weakref.ref(activations)))
        torch.empty(1 << 50)

    def step() -> None:
        with released(CPU):
            compute()

    alive = None
    try:
        step()
    except DoesNotFit:
        alive = [each() for each in held]
    assert alive == [None, None]


@pytest.mark.parametrize(
    ("batch_size", "fixed", "images", "sentence"),
    [
        (8, True, None, "with 8 images at once .it"),
        (8, True, 4, "with 4 images at once, a part of a batch .it"),
        (1, False, None, "with 1 image .it"),
    ],
)
def test_what_may_not_be_halved_is_refused(batch_size: int, fixed: bool, images: int | None, sentence: str):
    micro = MicroBatches(batch_size, fixed=fixed, images=images, record=lambda _: pytest.fail("recorded"))
    with pytest.raises(OutOfMemory, match=f"step 7 ran out of memory {sentence}.*lower batch-size"):
        micro.halve(7, "it")
    assert OutOfMemory.exit_code == 2


def test_parts_are_the_same_after_a_restart():
    recorded: list[int] = []
    micro = MicroBatches(7, fixed=False, record=recorded.append)
    for parts in (2, 4, 7):
        micro.halve(1, "it")
        assert micro.parts == MicroBatches(7, fixed=False, images=recorded[-1], record=recorded.append).parts == parts


def test_halves_have_the_images_of_the_batch_in_its_order(tmp_path: Path):
    split = mixed_split(tmp_path)
    for batch_size in (4, 5):
        whole, halves = (iter(EpochBatches(split, batch_size, 7, start=1, parts=parts)) for parts in (1, 2))
        for _ in range(5):
            first, second = next(halves), next(halves)
            assert first + second == next(whole)
            assert len(first) - len(second) in (0, 1)


EXACT = {"data.square": "true", "data.augmentation.recipe": "none", "model.dropout": 0}


@pytest.mark.parametrize(
    ("name", "options", "why_not"),
    [
        ("rf_detr", {}, ""),
        ("deformable_detr", EXACT, ""),
        ("deformable_detr", EXACT | {"model.dropout": 0.5}, "dropout is drawn for each part"),
        ("deformable_detr", EXACT | {"data.square": "false"}, "images are padded to the largest of a part"),
        ("detr", EXACT, "the class loss is a mean over the queries of a part"),
        ("tiny", EXACT, "batch norms see the images of a part"),
        ("d_fine", EXACT | {"model.denoising_queries": 0}, "batch norms see the images of a part"),
        ("faster_rcnn", {"data.square": "true"}, "anchors and proposals are drawn for each part"),
    ],
)
def test_the_log_is_right_about_whether_parts_change_the_gradient(
    name: str, options: dict[str, Any], why_not: str, tmp_path: Path
):
    local = PreparedSet.open(open_store(tmp_path / "store"), mixed_set(tmp_path)).pull(tmp_path / "pulled")
    config = small_config(name, **{"data.batch_size": 4, "data.accumulate": 1, **options})
    torch.manual_seed(0)
    family = build_family(config, 2)
    whole = gradient(family, config, local, tmp_path)
    furthest = 0.0
    for size, accumulate, images in ((4, 1, 3), (4, 1, 1), (2, 2, 2)):
        other = with_values(config, {"data.batch_size": size, "data.accumulate": accumulate})
        parts = gradient(family, other, local, tmp_path, images, order_of=config)
        furthest = max(furthest, float((parts - whole).norm() / whole.norm()))
    assert (furthest > 2e-4) is bool(why_not)
    said = micro_batches.exactness(family, config)
    assert why_not in said if why_not else said == "the gradient of a step stays the same, up to rounding"


def gradient(
    family: Family,
    config: JobConfig,
    local: LocalSet,
    folder: Path,
    images: int | None = None,
    order_of: JobConfig | None = None,
) -> Tensor:
    """The gradient of a step over the first batch of `order_of`, with `images` of a batch at once."""
    micro = MicroBatches(config.data.batch_size, fixed=False, images=images, record=lambda _: None)
    run, uploads = open_store(folder / "run"), Uploads()
    trainer = Trainer(config, family, local, run, CPU, uploads, StopRequest(), micro, evaluation_batch_chosen=False)
    uploads.close()
    data = (order_of or config).data
    batches = EpochBatches(local.split("train"), data.batch_size, seed=1, parts=config.data.accumulate * micro.parts)
    loader = training_loader(TrainingSamples(local.split("train"), data, 1), batches, CPU)
    trainer.network.train()
    torch.manual_seed(5)
    trainer.generator.manual_seed(5)
    names, _, _ = trainer._gradients(iter(loader), Interval())
    assert len(names) == 4
    found = torch.cat([each.grad.flatten() for each in trainer.network.parameters() if each.grad is not None])
    trainer.optimizer.zero_grad(set_to_none=True)
    return found


class Cramped(nn.Module):
    """A network that has memory for two images at once, as a GPU would say it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, []

    def forward(self, images: Tensor, mask: Tensor | None) -> Outputs:
        self.images.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return self.network(images, mask)


def test_an_evaluation_batch_is_divided_without_changing_the_result(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    split = mixed_split(tmp_path, count=30)
    samples = EvaluationSamples(split, small_config("tiny").data)
    torch.manual_seed(3)
    family = build_family(small_config("tiny"), 2)
    reference = predict_split(family.network, family, samples, 1, CPU, bf16=False)
    cramped = Cramped(family.network)
    assert predict_split(cramped, family, samples, 6, CPU, bf16=False) == reference
    assert max(cramped.images) > 2
    assert len([size for size in cramped.images if size > 2]) <= 2
    assert "images at once ran out of memory" in caplog.records[0].getMessage()
    with pytest.raises(OutOfMemory, match="predicting 6 images at once ran out of memory"):
        predict_split(cramped, family, samples, 6, CPU, bf16=False, may_halve=False)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("size mismatch"), False),
        (OSError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_faults(error: Exception, is_one: bool):
    assert is_out_of_memory(error) is is_one


PREDICT = """
import resource, sys
from pathlib import Path
import torch._dynamo  # a first model imports it; here before memory is limited
from detr_job import cli
from detr_job.prediction import predictor
lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
limit = int(lines["VmData"].split()[0]) * 1024 + (60 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
cli.main()
"""


def test_prediction_without_memory_is_a_sentence_with_2(tmp_path: Path):
    model = random_model(tmp_path / "model", ("disc", "square"), **{"data.eval_size": 1600, "data.max_size": 1600})
    Image.new("RGB", (100, 100)).save(tmp_path / "photo.png")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PREDICT,
            "predict",
            "--device",
            "cpu",
            "--model",
            model,
            tmp_path / "photo.png",
            "--json",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: out of memory (this machine: ")
    assert done.stderr.count("\n") == 1
