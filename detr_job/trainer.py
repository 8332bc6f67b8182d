"""The training loop, in the order of time.

Each step: set the rates, forward and backward over the batches of the step, clip, update, average.
Between steps, when due: log, evaluate, save. The state is taken and restored as a whole; with that and
with randomness that derives from (seed, epoch, sample) and (seed, step), an interrupted run continues
as if it had not been.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_prep.prepared_set import LocalSet
from detr_job import checkpoint as checkpoints
from detr_job.checkpoint import Checkpoint, Progress, host_copy
from detr_job.data import (
    Batch,
    EpochBatches,
    EvaluationSamples,
    TrainingSamples,
    normalised,
    training_loader,
)
from detr_job.ema import MovingAverage
from detr_job.errors import Interrupted, JobError
from detr_job.family import Family
from detr_job.hardware import autocast, memory_gib, use_bf16
from detr_job.optimizer import build_optimizer, rate_factor, set_rates
from detr_job.prediction import SplitPredictions, predict_split
from detr_job.progress import ProgressReport, duration
from detr_job.run_folder import METRICS, Metrics
from detr_job.stop_request import StopRequest
from detr_job.uploads import Uploads
from evaluation.coco import CocoResult, evaluate_boxes
from evaluation.ground_truth import GroundTruth
from object_store import ObjectStore
from run_config.job import JobConfig

SAVE_ON_STOP_S = 10 * 60
SAVE_AT_END_S = 30 * 60


@dataclass(slots=True)
class Interval:
    """What happened since the last line of the log."""

    steps: int = 0
    images: int = 0
    waited_s: float = 0.0
    started_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step's numbers, still on their way from the device."""

    step: int
    images: tuple[str, ...]
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None

    def numbers(self) -> dict[str, float]:
        """Name to value; waits until they are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class Trainer:
    """A run from its configuration and data to its best weights."""

    def __init__(
        self,
        config: JobConfig,
        family: Family,
        local: LocalSet,
        run: ObjectStore,
        device: torch.device,
        uploads: Uploads,
        stop: StopRequest,
    ) -> None:
        self.config, self.family, self.local = config, family, local
        self.run, self.device, self.uploads, self.stop = run, device, uploads, stop
        self.network = family.network.to(device).to(memory_format=torch.channels_last)
        self.bf16 = use_bf16(config.training, device)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        decay = config.training.ema_decay
        self.ema = MovingAverage(self.network, decay) if decay else None
        self.train_split, self.val_split = local.split("train"), local.split("val")
        self.val_samples = EvaluationSamples(self.val_split, config.data)
        self.val_truth = GroundTruth.read(self.val_split.annotations_path) if len(self.val_split) else None
        self.progress = Progress()
        self.metrics = Metrics(run, 0)
        self.best_weights: dict[str, Tensor] | None = None
        batches = EpochBatches(self.train_split, config.data.batch_size, config.training.seed)
        self.steps_per_epoch = max(1, batches.batches_per_epoch // config.data.accumulate)
        self.total_steps = self._total_steps()
        self.evaluation_interval = config.evaluation.interval or self.steps_per_epoch
        self.checkpoint_interval = config.checkpoints.interval or self.steps_per_epoch

    def _total_steps(self) -> int | None:
        """None under a time budget."""
        schedule = self.config.schedule
        if schedule.epochs is not None:
            return schedule.epochs * self.steps_per_epoch
        return schedule.steps

    # The state as a whole -----------------------------------------------------------------------

    def state(self) -> Checkpoint:
        """Everything that a restart needs, copied."""
        return Checkpoint(
            self.progress,
            host_copy(self.network.state_dict()),
            None if self.ema is None else host_copy(self.ema.network.state_dict()),
            host_copy(self.optimizer.state_dict()),
        )

    def resume(self, say: Callable[[str], None]) -> None:
        """Go on from the newest whole checkpoint of this run, if there is one."""
        found, complaints = checkpoints.newest(self.run)
        for complaint in complaints:
            say(f"warning: {complaint}")
        if found is None:
            return
        self.progress = found.progress
        self.network.load_state_dict(found.model)
        if self.ema is not None and found.ema is not None:
            self.ema.network.load_state_dict(found.ema)
        self.optimizer.load_state_dict(found.optimizer)
        self.metrics = Metrics(self.run, found.progress.step)
        best = found.progress.best_step
        if best:
            weights = found if best == found.progress.step else checkpoints.read(self.run, best)
            self.best_weights = dict(weights.weights())
        say(f"going on from step {found.progress.step} (the newest checkpoint of this run)")

    def restart_average(self) -> None:
        """Begin the moving average at the network's present weights, after they were loaded."""
        if self.ema is not None:
            self.ema = MovingAverage(self.network, self.ema.decay)

    def save(self) -> None:
        """Hand the state to the uploads; training does not wait."""
        state, keep = self.state(), self.config.checkpoints.keep
        self.uploads.put("checkpoint", lambda: checkpoints.write(self.run, state, keep))

    def send_metrics(self) -> None:
        """Hand the metrics file to the uploads."""
        content = self.metrics.content()
        self.uploads.put("metrics", lambda: _put_metrics(self.run, content))

    # The loop -------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train to the end of the schedule, or until somebody asks to stop (Interrupted)."""
        report = ProgressReport(self._length())
        try:
            self._train(report)
        finally:
            report.close()

    def _train(self, report: ProgressReport) -> None:
        settings = self.config
        start, elapsed_before = time.monotonic(), self.progress.elapsed_s
        batches = self._batches()
        interval = Interval(started_s=start)
        pending: deque[StepRecord] = deque()
        record: StepRecord | None = None
        saved_step = self.progress.step
        self.network.train()
        while not self._finished() and not self.stop:
            step = self.progress.step
            set_rates(self.optimizer, rate_factor(settings.schedule, self.fraction_done()))
            # Dropout must not depend on how often the run was interrupted.
            torch.manual_seed((settings.training.seed << 32) + step)
            record = self._step(batches, step + 1, interval)
            elapsed = elapsed_before + time.monotonic() - start
            self.progress = replace(self.progress, step=step + 1, elapsed_s=elapsed)
            # A number is looked at one step later, when it has long arrived: looking at once would
            # make the host wait for the device.
            pending.append(record)
            if len(pending) > 1:
                self._check_finite(pending.popleft())
            if self._due(settings.training.log_interval):
                self._log(report, record, interval)
                interval = Interval(started_s=time.monotonic())
            better = False
            if self._due(self.evaluation_interval) or self._finished():
                self._check_finite(record)
                pending.clear()
                better = self._evaluate(report)
                interval.started_s = time.monotonic()
            if better or self._due(self.checkpoint_interval) or self._finished():
                self._check_finite(record)
                pending.clear()
                self.save()
                saved_step = self.progress.step
        if record is not None:
            self._check_finite(record)
        if self.stop and not self._finished():
            if saved_step != self.progress.step:
                self.save()
            self.send_metrics()
            self._stop(report)
        self.send_metrics()

    def _step(self, batches: Iterator[Batch], number: int, interval: Interval) -> StepRecord:
        """One update of the weights from `accumulate` batches."""
        accumulate, clip = self.config.data.accumulate, self.config.optimizer.clip_norm
        images: list[str] = []
        sums: Tensor | None = None
        names: tuple[str, ...] = ()
        for _ in range(accumulate):
            asked = time.monotonic()
            batch = next(batches)
            interval.waited_s += time.monotonic() - asked
            interval.images += len(batch.indices)
            images += [self.train_split.images[index].file_name for index in batch.indices]
            moved = batch.to(self.device)
            with autocast(self.device, bf16=self.bf16):
                outputs = self.network(normalised(moved), moved.padding_mask)
            losses = self.family.criterion(outputs, moved.targets)
            (losses.total / accumulate).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            names = ("loss", *losses.terms)
            values = torch.stack([value.float() for value in (losses.total.detach(), *losses.terms.values())])
            sums = values / accumulate if sums is None else sums + values / accumulate
        if clip:
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip, foreach=True)
            names = (*names, "grad_norm")
            sums = torch.cat((sums, norm.detach().float().reshape(1))) if sums is not None else norm
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.network, number - 1)
        interval.steps += 1
        assert sums is not None
        return self._record(number, tuple(images), names, sums)

    def _record(self, number: int, images: tuple[str, ...], names: tuple[str, ...], values: Tensor) -> StepRecord:
        """Start the numbers' way to the host without waiting for them."""
        if self.device.type != "cuda":
            return StepRecord(number, images, names, values, None)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        arrived.record()
        return StepRecord(number, images, names, host, arrived)

    def _batches(self) -> Iterator[Batch]:
        """Training batches from where the run stands."""
        data, seed = self.config.data, self.config.training.seed
        start = self.progress.step * data.accumulate
        order = EpochBatches(self.train_split, data.batch_size, seed, start)
        return iter(training_loader(TrainingSamples(self.train_split, data, seed), order, self.device))

    # When ------------------------------------------------------------------------------------------

    def fraction_done(self) -> float:
        """0…1 of the schedule."""
        if self.total_steps is not None:
            return self.progress.step / self.total_steps
        assert self.config.schedule.minutes is not None
        return min(self.progress.elapsed_s / (60 * self.config.schedule.minutes), 1.0)

    def _length(self) -> float:
        return float(self.total_steps or 60 * (self.config.schedule.minutes or 0))

    def _finished(self) -> bool:
        patience = self.config.evaluation.patience
        return self.fraction_done() >= 1 or 0 < patience <= self.progress.evaluations_since_best

    def _due(self, interval: int) -> bool:
        return self.progress.step % interval == 0

    # Reports ---------------------------------------------------------------------------------------

    def _check_finite(self, record: StepRecord) -> None:
        """Stop on a loss that is not a number, with what broke; nothing after it was saved."""
        numbers = record.numbers()
        broken = {name: value for name, value in numbers.items() if not abs(value) < float("inf")}
        if not broken:
            return
        terms = ", ".join(
            f"{name} = {value}" for name, value in numbers.items() if "_" not in name[5:] or name in broken
        )
        raise JobError(
            f"the loss is not finite at step {record.step} ({terms}). The images of this step: "
            f"{', '.join(record.images)}. Look at their boxes in the data report; a lower optimizer.lr, "
            "optimizer.clip_norm=0.1 or training.precision=fp32 may help. Checkpoints before this step are whole"
        )

    def _log(self, report: ProgressReport, record: StepRecord, interval: Interval) -> None:
        """A line of metrics; the numbers of this step, the speed of the interval."""
        numbers = record.numbers()
        self._check_finite(record)
        seconds = max(time.monotonic() - interval.started_s, 1e-9)
        step, epoch = self.progress.step, self.progress.step / self.steps_per_epoch
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        speed = {
            "lr": rate,
            "images_per_s": interval.images / seconds,
            "step_s": seconds / interval.steps,
            "data_s": interval.waited_s / interval.steps,
            "memory_gib": memory_gib(self.device),
        }
        self.metrics.add(step, epoch, "train", {name: float(f"{v:.6g}") for name, v in (numbers | speed).items()})
        self.send_metrics()
        done = self.fraction_done()
        eta = self._remaining_s(seconds / interval.steps, done)
        line = (
            f"step {step}" + (f"/{self.total_steps}" if self.total_steps else "") + f"  epoch {epoch:.1f}  "
            f"loss {numbers['loss']:.3f}  lr {rate:.2e}  {speed['images_per_s']:.1f} images/s  "
            f"data {speed['data_s']:.3f} s/step  memory {speed['memory_gib']:.1f} GiB  ETA {duration(eta)}"
        )
        report.update(done * report.total, line, f"loss {numbers['loss']:.2f}  {speed['images_per_s']:.0f} images/s")

    def _remaining_s(self, step_s: float, done: float) -> float:
        if self.total_steps is not None:
            return (self.total_steps - self.progress.step) * step_s
        return (1 - done) * 60 * (self.config.schedule.minutes or 0)

    def _evaluate(self, report: ProgressReport) -> bool:
        """Measure the weights on the validation split; whether they are the best so far."""
        if self.val_truth is None:
            return False
        network = self.network if self.ema is None else self.ema.network
        seen = self.predict(self.val_samples, network)
        result = evaluate_boxes(self.val_truth, seen.predictions, per_class=False)
        self.metrics.add(self.progress.step, self.progress.step / self.steps_per_epoch, "val", result.numbers())
        return self._judge(report, seen, result)

    def _judge(self, report: ProgressReport, seen: SplitPredictions, result: CocoResult) -> bool:
        progress, settings = self.progress, self.config.evaluation
        better = result.ap > progress.best_ap + (settings.min_delta if progress.best_step else 0.0)
        report.say(
            f"step {progress.step}: val AP {result.ap:.3f}, AP50 {result.ap50:.3f}" + (" (best)" if better else "")
        )
        if seen.collapsed:
            report.say(
                "warning: every query gives the same box for every image: the model has not begun to look at the "
                "pictures. From random weights this takes DETR very long; start from a checkpoint "
                "(cvat-finetune-checkpoint), train longer, or choose model=tiny"
            )
        since = 0 if better else progress.evaluations_since_best + 1
        self.progress = replace(progress, evaluations_since_best=since)
        if better:
            self.progress = replace(self.progress, best_step=progress.step, best_ap=result.ap)
            self.best_weights = host_copy((self.network if self.ema is None else self.ema.network).state_dict())
        if settings.patience and since >= settings.patience:
            report.say(f"stopping early: {since} evaluations without a better AP than {self.progress.best_ap:.3f}")
        return better

    def predict(self, samples: EvaluationSamples, network: torch.nn.Module) -> SplitPredictions:
        """Predictions of a network on a split."""
        batch_size = self.config.evaluation.batch_size
        return predict_split(network, self.family, samples, batch_size, self.device, bf16=self.bf16)

    def _stop(self, report: ProgressReport) -> None:
        """Wait for the upload of what was saved, then leave."""
        assert self.stop.signal is not None
        report.say(f"{self.stop.signal.name}: saving step {self.progress.step}")
        self.uploads.finish(SAVE_ON_STOP_S)
        raise Interrupted(
            f"stopped by {self.stop.signal.name} after step {self.progress.step}, which is saved; "
            "run the same again to go on from there"
        )

    def load_best(self) -> None:
        """Put the best weights into the network: by validation AP, or the last where nothing was validated."""
        last = self.network if self.ema is None else self.ema.network
        self.network.load_state_dict(self.best_weights or last.state_dict())


def _put_metrics(run: ObjectStore, content: bytes) -> None:
    run.put_bytes(METRICS, content)
