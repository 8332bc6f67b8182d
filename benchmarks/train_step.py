"""Forward and backward, or prediction, of a model against the same model in transformers: same weights and batch.

    python -m benchmarks.train_step                                     # detr-r50, a small batch, on a CPU
    python -m benchmarks.train_step --family rf-detr --predict
    python -m benchmarks.train_step --preset rf-detr-small --device cuda --precision bf16 --batch 8

Both sides alternate in one process, so that other load on the machine affects both. The results are medians, on a CPU
of the processor time, which other programs change little. In training, both have the same loss: the mean square of
each output that is supervised, so that only the networks are compared. Our own loss, with its matching, is timed beside
it. transformers is unchanged, with scaled-dot-product attention. Memory is the peak of the tensors beyond the weights.
On a CPU, threads that wait for each other would count: set OMP_WAIT_POLICY=passive.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import transformers
import typer
from torch import Tensor

from benchmarks.transformers_models import twin
from detr_job.data.batches import Batch, normalised
from detr_job.family import Family, build_family
from detr_job.hardware import autocast, choose_device, hardware_name, prepare
from detr_job.models.d_fine.decoder import Predictions as DFinePredictions
from detr_job.models.d_fine.denoising import denoising_queries
from detr_job.models.d_fine.family import DFineFamily
from detr_job.models.detr.family import DetrFamily
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import JobConfig
from run_config.job.presets import load_job_config

CLASSES = 91
PRESETS = {
    "detr": "detr-r50",
    "deformable-detr": "deformable-detr-r50",
    "rf-detr": "rf-detr-nano",
    "d-fine": "d-fine-nano",
}
PADDED = ("detr", "deformable_detr")
"""Families whose batches have images of different sizes here."""


def host_batch(size: tuple[int, int], batch: int, boxes: int, *, padded: bool) -> Batch:
    """Random images with boxes; with `padded`, of slightly different widths."""
    height, width = size
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    for index in range(1, batch if padded else 1):
        mask[index, :, width - width * index // (8 * batch) :] = True
    images = images.masked_fill(mask[:, None], 0)
    wanted = torch.cat((torch.rand(batch * boxes, 2) * 0.6 + 0.2, torch.rand(batch * boxes, 2) * 0.3 + 0.05), dim=1)
    labels = torch.randint(0, CLASSES, (batch * boxes,))
    found = Batch(
        images, mask if bool(mask.any()) else None, Targets(labels, wanted, (boxes,) * batch), tuple(range(batch))
    )
    return found.pin_memory() if torch.cuda.is_available() else found


def common_loss(outputs: list[Tensor]) -> Tensor:
    """The sum of the mean squares."""
    return torch.stack([each.float().square().mean() for each in outputs]).sum()


class OurSide:
    """Our network, as the training loop and prediction run it."""

    name = "detr-job"

    def __init__(self, family: Family, batch: Batch, device: torch.device, *, bf16: bool) -> None:
        self.family, self.device, self.bf16 = family, device, bf16
        self.network = family.network.to(device).to(memory_format=torch.channels_last)
        self.batch = batch.to(device)
        self.images = normalised(self.batch)
        self.sizes = torch.tensor([batch.images.shape[-2:]] * len(batch.images))
        self.generator = torch.Generator(device)

    def outputs(self) -> list[Tensor]:
        """Everything that the loss supervises."""
        batch = self.batch
        with autocast(self.device, bf16=self.bf16):
            if isinstance(self.family, DFineFamily):
                denoising = denoising_queries(self.family.model, batch.targets, CLASSES, self.generator)
                found = self.network(self.images, batch.padding_mask, denoising)
            else:
                found = self.network(self.images, batch.padding_mask)
        if isinstance(found, DFinePredictions):
            parts = (found.first, found.layers, found.encoder)
            return [found.edges, *(tensor for part in parts for tensor in (part.logits, part.boxes))]
        layers: Outputs = getattr(found, "layers", found)
        return [layers.logits, layers.boxes]

    def full_loss(self) -> Tensor:
        """The loss of training, with its matching."""
        batch = self.batch
        with autocast(self.device, bf16=self.bf16):
            return self.family.losses(
                self.network,
                self.images,
                batch.padding_mask,
                batch.targets,
                num_boxes=len(batch.targets),
                generator=self.generator,
            ).total

    @torch.inference_mode()
    def predict(self) -> list[Tensor]:
        """Scores, labels and boxes of each image."""
        with autocast(self.device, bf16=self.bf16):
            outputs = self.network(self.images, self.batch.padding_mask)
        found = self.family.detections(outputs, self.sizes)
        return [tensor for each in found for tensor in (each.scores, each.labels, each.boxes)]


class TheirSide:
    """The model of transformers, which computes a loss in its forward pass if it gets labels."""

    name = "transformers"

    def __init__(self, network: transformers.PreTrainedModel, ours: OurSide) -> None:
        self.network, self.device, self.bf16 = network.to(ours.device), ours.device, ours.bf16
        batch, self.sizes = ours.batch, ours.sizes
        self.arguments: dict[str, Any] = {"pixel_values": ours.images.contiguous()}
        if isinstance(ours.family, DFineFamily):  # their D-FINE reads pixels in 0…1, and knows no padding
            own = ours.family.network
            self.arguments["pixel_values"] = self.arguments["pixel_values"] * own.deviation + own.mean
        else:
            mask = torch.ones_like(batch.images[:, 0], dtype=torch.int64)
            self.arguments["pixel_mask"] = (
                mask if batch.padding_mask is None else mask.masked_fill_(batch.padding_mask, 0)
            )
        labels = batch.targets.labels.split(batch.targets.counts), batch.targets.boxes.split(batch.targets.counts)
        self.labels = [{"class_labels": c, "boxes": b} for c, b in zip(*labels, strict=True)]
        self.processor = transformers.RTDetrImageProcessor()
        self.supervised: list[Tensor] = []
        # they call it with everything that it supervises
        self.network.loss_function = self._loss

    def _loss(self, *positional: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor], None]:  # noqa: ANN401 - theirs
        config, layers = positional[4], list(positional[5:])
        if config.model_type == "d_fine":
            layers += [named[name] for name in ("enc_topk_logits", "enc_topk_bboxes", "predicted_corners")]
        elif config.model_type == "rf_detr":
            # our network returns the selection as the first of its layers
            classes, boxes, *encoder = layers
            layers = [torch.cat((encoder[0][None], classes)), torch.cat((encoder[1][None], boxes))]
        self.supervised = layers
        return torch.zeros(()), {}, None

    def outputs(self) -> list[Tensor]:
        """Everything that the loss supervises."""
        with autocast(self.device, bf16=self.bf16):
            self.network(**self.arguments, labels=self.labels)
        found, self.supervised = self.supervised, []
        return found

    @torch.inference_mode()
    def predict(self) -> list[Tensor]:
        """Scores, labels and boxes of each image."""
        with autocast(self.device, bf16=self.bf16):
            outputs = self.network(**self.arguments)
        found = self.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=self.sizes)
        return [each[name] for each in found for name in ("scores", "labels", "boxes")]


@dataclass
class Work:
    """A repeated piece of work, and the seconds that its parts took in each round."""

    name: str
    network: torch.nn.Module
    loss: Callable[[], Tensor] | None
    predict: Callable[[], object]
    device: torch.device
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self) -> None:
        """Forward and loss, then backward; or only a prediction."""
        start = self._now()
        if self.loss is None:
            self.predict()
            self.seconds.append((self._now() - start, 0.0))
            return
        loss = self.loss()
        middle = self._now()
        loss.backward()
        self.seconds.append((middle - start, self._now() - middle))
        self.network.zero_grad(set_to_none=True)

    def _now(self) -> float:
        """Seconds: processor time, or the time after the GPU has finished all its work."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def median_ms(self) -> tuple[float, float, float]:
        """Milliseconds in all, forward and backward."""
        forward, backward = zip(*self.seconds, strict=True)
        totals = [sum(each) for each in self.seconds]
        total, *parts = (1000 * statistics.median(each) for each in (totals, forward, backward))
        return total, parts[0], parts[1]

    def peak_mib(self) -> float:
        """The peak memory of tensors in one round, beyond what exists before it."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            self()
        events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]  # set while profiling
        changes = [(each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]"]
        now = peak = 0
        for _, change in sorted(changes, key=lambda each: each[0]):
            now += change
            peak = max(peak, now)
        return peak / 2**20


def waits(work: Callable[[], None]) -> int:
    """How often the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


@torch.no_grad()
def check_same(ours: OurSide, theirs: TheirSide) -> None:
    """Check that both sides predict the same and train equally many parameters.

    In double precision, in which no token has the same score as another; DETR, whose heads always run in fp32, selects
    none.
    """
    exact = torch.float if isinstance(ours.family, DetrFamily) else torch.double
    for side in (ours, theirs):
        side.network.eval().to(exact)
    mask = None if ours.batch.padding_mask is None else ours.batch.padding_mask[-1:]
    mine = ours.network(ours.images[-1:].to(exact), mask)
    arguments = {name: value[-1:] for name, value in theirs.arguments.items()}
    other = theirs.network(**arguments | {"pixel_values": arguments["pixel_values"].to(exact)})
    for one, another in ((mine.logits[-1], other.logits), (mine.boxes[-1], other.pred_boxes)):
        difference = (one - another).abs().max().item()
        if difference > 1e-4:
            raise SystemExit(f"the two sides differ: predictions by {difference:.2g}")
    for side in (ours, theirs):
        side.network.float()
    counts = [sum(each.numel() for each in side.network.parameters() if each.requires_grad) for side in (ours, theirs)]
    if counts[0] != counts[1]:
        raise SystemExit(f"the two sides differ: {counts[0]} and {counts[1]} trained parameters")


def sides(
    config: JobConfig, batch: int, size: str, boxes: int, device: torch.device, *, bf16: bool
) -> tuple[OurSide, TheirSide]:
    """Both sides with the same weights and batch. size: `480x640`, or empty for what the preset trains with."""
    torch.manual_seed(0)
    family = build_family(config, CLASSES)
    model = twin(family, config.model, CLASSES)
    usual = "480x640" if config.model.family in PADDED else f"{config.data.eval_size}x{config.data.eval_size}"
    height, width = (int(side) for side in (size or usual).split("x"))
    data = host_batch((height, width), batch, boxes, padded=config.model.family in PADDED)
    ours = OurSide(family, data, device, bf16=bf16)
    theirs = TheirSide(model, ours)
    check_same(ours, theirs)
    return ours, theirs


def compare(ours: OurSide, theirs: TheirSide, rounds: int, warmup: int, *, predict: bool) -> list[Work]:
    """Run both, and our full loss when training, in alternation; the rounds of warm-up are not kept."""
    for side in (ours, theirs):
        side.network.train(not predict)
    works = [
        Work(
            side.name,
            side.network,
            None if predict else lambda side=side: common_loss(side.outputs()),
            side.predict,
            side.device,
        )  # type: ignore[misc]
        for side in (ours, theirs)
    ]
    if not predict:
        works.append(Work("our full loss", ours.network, ours.full_loss, ours.predict, ours.device))
    for number in range(warmup + rounds):
        for work in works:
            work()
            if number < warmup:
                work.seconds.clear()
    return works


def main(
    family: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "detr",
    preset: Annotated[str, typer.Option(help="another preset than the family's usual one")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16")] = "fp32",
    batch: Annotated[int, typer.Option(help="images of a batch")] = 2,
    size: Annotated[str, typer.Option(help="height x width of the batch; empty: what the preset trains with")] = "",
    boxes: Annotated[int, typer.Option(help="boxes of each image")] = 7,
    rounds: Annotated[int, typer.Option(help="rounds that are timed")] = 11,
    warmup: Annotated[int, typer.Option(help="rounds before that")] = 2,
    threads: Annotated[int, typer.Option(help="threads on a CPU; 0: one per core")] = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="also print which operators our side spends time in")
    ] = False,
    predict: Annotated[bool, typer.Option("--predict", help="prediction instead of training")] = False,
) -> None:
    """Time both sides and print the medians and one line for the docs."""
    if not preset and family not in PRESETS:
        raise SystemExit(f"--family: {family!r} is not one of {', '.join(PRESETS)}")
    preset = preset or PRESETS[family]
    where = choose_device(device)
    prepare(where)
    if threads:
        torch.set_num_threads(threads)
    ours, theirs = sides(load_job_config(preset), batch, size, boxes, where, bf16=precision == "bf16")
    works = compare(ours, theirs, rounds, warmup, predict=predict)
    print(f"{'ms':<15}{'total':>9}{'forward':>9}{'backward':>9}{'MiB':>9}")
    for work in works:
        print(f"{work.name:<15}" + "".join(f"{each:>9.1f}" for each in work.median_ms()) + f"{work.peak_mib():>9.0f}")
    if where.type == "cuda" and not predict:
        print(f"waits for the GPU in a step with our full loss: {waits(works[-1])}")
    if profile:
        with torch.profiler.profile() as profiled:
            works[0]()
        print(profiled.key_averages().table(sort_by=f"self_{where.type}_time_total", row_limit=20))
    mine, other = (work.median_ms()[0] for work in works[:2])
    height, width = ours.images.shape[-2:]
    print(
        f"{preset}, {'prediction' if predict else 'forward and backward'} of {batch} x {height} x {width}, "
        f"{precision}, {hardware_name(where)}: {mine:.0f} ms, {other / mine:.2f} times as fast as transformers "
        f"{transformers.__version__} ({other:.0f} ms), torch {torch.__version__}"
    )


if __name__ == "__main__":
    typer.run(main)
