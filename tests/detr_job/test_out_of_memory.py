"""Too little memory halves the batch of a preset once, and is else one sentence with what to lower."""

import itertools
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detr_job.data.batches import EpochBatches, EvaluationSamples, TrainingSamples, normalised, training_loader
from detr_job.errors import OutOfMemory
from detr_job.family import build_family
from detr_job.models.outputs import Outputs
from detr_job.out_of_memory import DoesNotFit, is_out_of_memory, released
from detr_job.prediction.split_predictions import predict_split
from detr_job.stop_request import StopRequest
from detr_job.training.micro_batches import MicroBatches
from detr_job.training.trainer import Interval, Trainer
from detr_job.training.uploads import Uploads
from object_store import open_store
from prepared_set.reader import PreparedSet
from tests.detr_job.pictures import mixed_set, mixed_split, small_config
from tests.detr_job.prediction.test_evaluate_command import random_model
from tests.detr_job.training_runs import TINY, Run, assert_same_result

CPU = torch.device("cpu")
UNCHOSEN = {key: value for key, value in TINY.items() if key != "data.batch_size"} | {"schedule.steps": 4}
# The network asks for more memory than there is when it has computed more images than `room`; the error is the
# allocator's own. At forward pass number `stop_at` the job gets a SIGTERM.
CRAMPED_JOB = """
import os, signal, sys, torch
from detr_job import cli
from detr_job.models.tiny.network import Tiny
room, stop_at, forward, passes = int(sys.argv.pop(1)), int(sys.argv.pop(1)), Tiny.forward, 0
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


def cramped(run: Run, room: int, stop_at: int = 0) -> tuple[int, str]:
    """Exit code and stderr of a run that has memory for so many images at once."""
    program = [sys.executable, "-c", CRAMPED_JOB, str(room), str(stop_at), *run.arguments()]
    environment = os.environ | {"TMPDIR": str(run.folder)}
    done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def micro_batch_size(run: Run) -> int:
    return json.loads(run.stored.get_bytes("run.json"))["micro_batch_size"]


def test_a_presets_batch_is_halved_once_and_a_restart_goes_on_with_halves(run: Run):
    run = replace(run, options=UNCHOSEN)
    whole = replace(run, name="undisturbed")
    code, said = cramped(whole, room=2)
    assert code == 0, said
    assert "warning: step 1 ran out of memory with 4 images at once (this machine: " in said
    assert "each batch of 4 goes through the network in two halves" in said
    assert said.count("out of memory") == 1
    assert micro_batch_size(whole) == 2

    code, said = cramped(run, room=2, stop_at=4)  # after the pass that fails, two of the first step
    assert code == 75, said
    assert "SIGTERM: saving step 2" in said
    again = run.ends()  # with memory for all
    assert "resuming at step 2 " in again.says()
    assert micro_batch_size(run) == 2
    assert_same_result(run, whole)


def test_halves_that_do_not_fit_either_are_refused(run: Run):
    code, said = cramped(replace(run, options=UNCHOSEN), room=1)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: step 1 ran out of memory with 2 images at once, half of a batch (this machine: ")


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
    ("batch_size", "chosen", "halved", "sentence"),
    [
        (8, True, False, "with 8 images at once .it"),
        (8, False, True, "with 4 images at once, half of a batch .it"),
        (1, False, False, "with 1 image .it"),
    ],
)
def test_what_may_not_be_halved_is_refused(batch_size: int, chosen: bool, halved: bool, sentence: str):
    micro = MicroBatches(batch_size, chosen=chosen, halved=halved, record=lambda _: pytest.fail("recorded"))
    with pytest.raises(OutOfMemory, match=f"step 7 ran out of memory {sentence}.*lower batch-size"):
        micro.halve(7, "it")
    assert OutOfMemory.exit_code == 2


def test_halves_have_the_images_of_the_batch_in_its_order(tmp_path: Path):
    split = mixed_split(tmp_path)
    for batch_size in (4, 5):
        whole, halves = (iter(EpochBatches(split, batch_size, 7, start=1, parts=parts)) for parts in (1, 2))
        for _ in range(5):
            first, second = next(halves), next(halves)
            assert first + second == next(whole)
            assert len(first) - len(second) in (0, 1)


def test_the_gradient_of_halves_is_their_mean_over_the_images(tmp_path: Path):
    local = PreparedSet.open(open_store(tmp_path / "store"), mixed_set(tmp_path)).pull(tmp_path / "pulled")
    config = small_config("tiny", **{"data.batch_size": 5, "data.augmentation.recipe": "none"})
    family, split = build_family(config, 2), local.split("train")
    micro = MicroBatches(5, chosen=False, halved=True, record=lambda _: None)
    run, uploads = open_store(tmp_path / "run"), Uploads()
    trainer = Trainer(config, family, local, run, CPU, uploads, StopRequest(), micro, evaluation_batch_chosen=False)
    uploads.close()
    order = EpochBatches(split, 5, seed=1, parts=2)
    halves = list(itertools.islice(training_loader(TrainingSamples(split, config.data, 1), order, CPU), 2))
    assert [len(half.indices) for half in halves] == [3, 2]
    images, names, values = trainer._gradients(iter(halves), Interval())
    assert len(images) == 5
    gradients = [parameter.grad.clone() for parameter in trainer.network.parameters() if parameter.grad is not None]
    trainer.optimizer.zero_grad(set_to_none=True)
    mean = sum(
        family.losses(
            trainer.network,
            normalised(half),
            half.padding_mask,
            half.targets,
            num_boxes=max(len(half.targets), 1),
            generator=trainer.generator,
        ).total
        * (len(half.indices) / 5)
        for half in halves
    )
    mean.backward()
    expected = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert dict(zip(names, values.tolist(), strict=True))["loss"] == pytest.approx(mean.item(), rel=1e-5)
    assert len(gradients) == len(expected) > 50
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


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
