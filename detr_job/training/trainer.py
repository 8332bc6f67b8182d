"""The training loop, in the order of time.

Each iteration: evaluate and save when due; set the rates, forward and backward over the batches of the step,
clip, update, average; log. The state is saved and restored as a whole, and randomness derives from (seed,
epoch, sample) and (seed, step), so an interrupted run continues as if it had not been interrupted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from detr_job.data.batch_stream import batches_of
from detr_job.data.batches import (
    Batch,
    EpochBatches,
    EvaluationSamples,
    TrainingSamples,
    normalised,
    step_seed,
    training_loader,
)
from detr_job.errors import Interrupted, NotFinite, OutOfMemory, WorkersLost
from detr_job.family import Family
from detr_job.hardware import autocast, memory_gib, use_bf16
from detr_job.out_of_memory import DoesNotFit, released
from detr_job.prediction.split_predictions import SplitPredictions, predict_split
from detr_job.stop_request import RESUME, StopNow, StopRequest
from detr_job.training.ema import MovingAverage
from detr_job.training.micro_batches import MicroBatches
from detr_job.training.optimizer import build_optimizer, rate_factor, restore_optimizer, set_rates
from detr_job.training.progress import ProgressReport
from detr_job.training.run_folder import METRICS, MetricsLog
from detr_job.training.step_record import StepRecord
from detr_job.training.thread_choice import thread_choice
from detr_job.training.uploads import ON_STOP_S, Uploads, store_patience_s
from detr_job.training.utilisation import Utilisation
from detr_job.weights import checkpoint as checkpoints
from detr_job.weights.checkpoint import Checkpoint, TrainingProgress, host_copy
from evaluation.coco import evaluate_boxes
from evaluation.ground_truth import GroundTruth
from object_store import ObjectStore
from prepared_set.reader import LocalSet, Split
from run_config.job.config import JobConfig
from run_config.job.presets import presets_from_scratch
from run_config.wording import duration


@dataclass(slots=True)
class Interval:
    """Counts and times since the last line of the log."""

    steps: int = 0
    images: int = 0
    pixels: int = 0
    """Pixels of all batches, including padding."""
    shape: tuple[int, ...] = ()
    """(B, 3, H, W) of the last batch."""
    waited_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)


class Trainer:
    """Trains a run from its configuration and data to its best weights."""

    def __init__(
        self,
        config: JobConfig,
        family: Family,
        local: LocalSet,
        run: ObjectStore,
        device: torch.device,
        uploads: Uploads,
        stop: StopRequest,
        micro: MicroBatches,
        *,
        evaluation_batch_chosen: bool,
    ) -> None:
        self.config, self.family, self.local = config, family, local
        self.run, self.device, self.uploads, self.stop = run, device, uploads, stop
        self.micro, self.evaluation_batch_chosen = micro, evaluation_batch_chosen
        self.network = family.network.to(device).to(memory_format=torch.channels_last)
        # A forward pass changes these before the step is complete; an aborted step restores them.
        norms = (module for module in self.network.modules() if isinstance(module, torch.nn.BatchNorm2d))
        self._statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self._statistics_before = [buffer.clone() for buffer in self._statistics]
        self.bf16 = use_bf16(config.training, device)
        self.generator = torch.Generator(device)
        self.utilisation = Utilisation(config, len(local.class_names), device, bf16=self.bf16)
        self.optimizer = build_optimizer(self.network, config.optimizer, family.rate)
        decay = config.training.ema_decay
        self.ema = MovingAverage(self.network, decay) if decay else None
        self.train_split, self.val_split = local.split("train"), local.split("val")
        self.train_samples: TrainingSamples | None = None
        self.val_samples = EvaluationSamples(self.val_split, config.data)
        self.val_truth = GroundTruth.read(self.val_split.annotations_path) if has_boxes(self.val_split) else None
        self.progress = TrainingProgress()
        self.metrics = MetricsLog(run)
        self.best_weights: Mapping[str, Tensor] | None = None
        self.check_lock: Callable[[], None] = lambda: None
        self.on_best: Callable[[SplitPredictions], None] = lambda _: None
        self._best: Checkpoint | None = None
        self._saved_step = 0
        self._began_s = time.monotonic()
        # Values are checked one step later, when they have long arrived: checking at once would make the host wait
        # for the device.
        self._unseen: deque[StepRecord] = deque()
        self._collapse_was_said = False
        batches = EpochBatches(self.train_split, config.data.batch_size, config.training.seed)
        self.steps_per_epoch = batches.batches_per_epoch / config.data.accumulate
        self.total_steps = self._total_steps()
        epoch_steps = max(1, round(self.steps_per_epoch))
        self.evaluation_interval = config.evaluation.interval or epoch_steps
        self.checkpoint_interval = config.checkpoints.interval or epoch_steps

    def _total_steps(self) -> int | None:
        """The number of steps; None with a time budget."""
        schedule = self.config.schedule
        if schedule.epochs is not None:
            return max(1, round(schedule.epochs * self.steps_per_epoch))
        return schedule.steps

    # The state as a whole -----------------------------------------------------------------------

    def state(self) -> Checkpoint:
        """A copy of everything that a restart needs."""
        return Checkpoint(
            self.progress,
            host_copy(self.network.state_dict()),
            None if self.ema is None else host_copy(self.ema.network.state_dict()),
            host_copy(self.optimizer.state_dict()),
        )

    def resume(self, say: Callable[[str], None]) -> None:
        """Resume from the newest complete checkpoint of this run, if there is one."""
        found, complaints = checkpoints.newest(self.run)
        for complaint in complaints:
            say(f"warning: {complaint}")
        if found is None:
            return
        self.progress = found.progress
        self._saved_step = found.progress.step
        self.network.load_state_dict(found.model)
        if self.ema is not None and found.ema is not None:
            self.ema.network.load_state_dict(found.ema)
        restore_optimizer(self.optimizer, found.optimizer)
        self.metrics = MetricsLog(self.run, found.progress.step, found.progress.evaluated_step)
        self._find_best(found, say)
        if self.complete():
            say(f"training is complete (step {found.progress.step}); only the predictions are computed again")
        else:
            say(f"resuming at step {found.progress.step} (the newest checkpoint of this run)")

    def _find_best(self, newest: Checkpoint, say: Callable[[str], None]) -> None:
        """Find the best weights so far, which may be in an older checkpoint."""
        best = newest.progress.best_step
        if not best:
            return
        try:
            source = newest if best == newest.progress.step else checkpoints.read(self.run, best)
        except checkpoints.DamagedCheckpoint as error:
            say(f"warning: the best weights are damaged; the best of the following evaluations will be used: {error}")
            self.progress = replace(self.progress, best_step=0, best_ap=-1.0)
        else:
            self.best_weights = source.weights()

    def restart_average(self) -> None:
        """Restart the moving average from the network's current weights, after they were loaded."""
        if self.ema is not None:
            self.ema = MovingAverage(self.network, self.ema.decay)

    def save(self) -> None:
        """Queue the state for upload; training does not wait. Raises NotFinite instead when a loss is not finite."""
        self._look_at_all()
        state = self.state()
        self._saved_step = state.progress.step
        # A newer checkpoint replaces a waiting one, but the best checkpoint must not be lost that way.
        if state.progress.best_step == state.progress.step:
            self._best = state
            states = [state]
        else:
            self._best = self._best if self.uploads.waiting("checkpoint") else None
            states = [state] if self._best is None else [self._best, state]
        self.uploads.put("checkpoint", self._upload(states))

    def _upload(self, states: list[Checkpoint]) -> Callable[[], None]:
        """Upload metrics first: after a restart, no line before the checkpoint may be missing."""
        last, keep = states[-1].progress, self.config.checkpoints.keep

        def upload() -> None:
            self._put_metrics()
            while states:
                checkpoints.write(self.run, states[0])
                del states[0]  # after a store error, continue here
            checkpoints.prune(self.run, last, keep)

        return upload

    def send_metrics(self) -> None:
        """Queue the metrics file for upload."""
        self.uploads.put("metrics", self._put_metrics)

    def _put_metrics(self) -> None:
        self.run.put_bytes(METRICS, self.metrics.content())

    # The loop -------------------------------------------------------------------------------------

    def train(self, report: ProgressReport) -> None:
        """Train to the end of the schedule, or until a request to stop (raises Interrupted).

        On WorkersLost, the state is saved too.
        """
        self._began_s = time.monotonic() - self.progress.elapsed_s
        report.begin(self.fraction_done())
        try:
            with ExitStack() as loader:
                self._steps(report, loader)
        except StopNow:
            pass  # the request to stop is handled below
        except WorkersLost:
            self._save_unsaved()
            raise
        except (NotFinite, OutOfMemory):
            self.send_metrics()
            raise
        finally:
            report.end()
        if self.stop and not self.complete():
            self._stop(report)
        self.send_metrics()

    def _steps(self, report: ProgressReport, loader: ExitStack) -> None:
        """Train step by step; the batch loader is opened in `loader`."""
        batches: Iterator[Batch] | None = None
        interval = Interval()
        threads = thread_choice(self.device, time_budget=self.total_steps is None)
        self.network.train()
        while not self.stop:
            self.check_lock()
            better = self._evaluation_due() and self._evaluate(report, interval)
            if better or self._checkpoint_due():
                self.save()
            if self._at_end():
                return
            if batches is None:
                with self.stop.at_once():
                    batches = loader.enter_context(self._batches())
            step, started_s = self.progress.step, time.monotonic()
            set_rates(self.optimizer, rate_factor(self.config.schedule, self.fraction_done()))
            # Dropout and a family's other random numbers must not depend on how often the run was interrupted.
            torch.manual_seed((self.config.training.seed << 32) + step)
            self.generator.manual_seed(step_seed(self.config.training.seed, step))
            try:
                self._unseen.append(self._step(batches, step + 1, interval))
            except DoesNotFit as full:
                report.say(f"warning: {self.micro.halve(step + 1, full.in_use)}")
                loader.close()
                batches = None
                continue
            self.progress = replace(self.progress, step=step + 1, elapsed_s=self._elapsed_s())
            if threads is not None:
                threads.step_took(time.monotonic() - started_s)
            if len(self._unseen) > 1:
                self._unseen.popleft().check()
            if self._due(self.config.training.log_interval) or self._at_end():
                self._log(report, interval)
                interval = Interval()

    def _step(self, batches: Iterator[Batch], number: int, interval: Interval) -> StepRecord:
        """Update the weights once. An aborted step, or one that does not fit (DoesNotFit), changes nothing."""
        if self._statistics:
            torch._foreach_copy_(self._statistics_before, self._statistics)  # one call for all of them
        try:
            images, names, sums = self._gradients(batches, interval)
        except BaseException:
            self.optimizer.zero_grad(set_to_none=True)
            if self._statistics:
                torch._foreach_copy_(self._statistics, self._statistics_before)
            raise
        clip = self.config.optimizer.clip_norm
        if clip:
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip, foreach=True)
        else:  # the norm is checked too: a gradient that is not finite would silently break the weights
            gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        names, sums = (*names, "grad_norm"), torch.cat((sums, norm.detach().float().reshape(1)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.network, number - 1)
        interval.steps += 1
        interval.images += len(images)
        return StepRecord.of(number, images, names, sums)

    def _gradients(
        self, batches: Iterator[Batch], interval: Interval
    ) -> tuple[tuple[str, ...], tuple[str, ...], Tensor]:
        """Add up the gradients of a step's batches, weighted by their number of images.

        Returns the file names of the images, and the names and means of the losses.
        """
        images: list[str] = []
        sums: Tensor | None = None
        names: tuple[str, ...] = ()
        asked = time.monotonic()
        waiting: deque[Batch] = deque()
        for _ in range(self._batches_per_step()):
            with self.stop.in_step():
                waiting.append(next(batches))
        interval.waited_s += time.monotonic() - asked
        boxes = max(sum(len(batch.targets) for batch in waiting), 1)
        while waiting:
            batch = waiting.popleft()
            images += [self.train_split.images[index].file_name for index in batch.indices]
            with self.stop.in_step():
                moved = batch.to(self.device)
            share = self.config.data.accumulate * self.micro.batch_size / len(batch.indices)
            with released(self.device):
                if self._images_are_small():
                    moved = moved.smaller()
                # Sums over boxes are divided by the boxes of the whole step, like the authors' over several GPUs.
                names, values = self._backward(moved, share, boxes / share)
            interval.shape = tuple(moved.images.shape)
            interval.pixels += moved.images.shape[0] * moved.images.shape[2] * moved.images.shape[3]
            sums = values if sums is None else sums + values
        assert sums is not None
        return tuple(images), names, sums

    def _batches_per_step(self) -> int:
        return self.config.data.accumulate * self.micro.parts

    def _backward(self, moved: Batch, share: float, num_boxes: float) -> tuple[tuple[str, ...], Tensor]:
        """Add the gradient of a batch divided by `share`. Returns names and values of its losses, also divided."""
        with autocast(self.device, bf16=self.bf16):
            losses = self.family.losses(
                self.network,
                normalised(moved),
                moved.padding_mask,
                moved.targets,
                num_boxes=num_boxes,
                generator=self.generator,
            )
        (losses.total / share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        values = torch.stack([value.float() for value in (losses.total.detach(), *losses.terms.values())])
        return ("loss", *losses.terms), values / share

    def _batches(self) -> AbstractContextManager[Iterator[Batch]]:
        """Training batches from the run's current position."""
        data, seed = self.config.data, self.config.training.seed
        start = self.progress.step * data.accumulate
        order = EpochBatches(self.train_split, data.batch_size, seed, start, self.micro.parts, balance=data.balance)
        if self.train_samples is None:
            self.train_samples = TrainingSamples(self.train_split, data, seed)
        return batches_of(training_loader(self.train_samples, order, self.device, self._batches_per_step()))

    # When ------------------------------------------------------------------------------------------

    def fraction_done(self) -> float:
        """Fraction of the schedule that is done, 0…1."""
        if self.total_steps is not None:
            return self.progress.step / self.total_steps
        assert self.config.schedule.minutes is not None
        return min(self.progress.elapsed_s / (60 * self.config.schedule.minutes), 1.0)

    def _images_are_small(self) -> bool:
        return self.fraction_done() < self.config.schedule.small_images

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _at_end(self) -> bool:
        """Whether training takes no further step."""
        patience = self.config.evaluation.patience
        return self.fraction_done() >= 1 or 0 < patience <= self.progress.evaluations_since_best

    def complete(self) -> bool:
        """Whether everything is done: steps, evaluation, checkpoint."""
        return self._at_end() and not self._evaluation_due() and self._saved_step == self.progress.step

    def _due(self, interval: int) -> bool:
        return self.progress.step % interval == 0

    def _evaluation_due(self) -> bool:
        if self.val_truth is None or self.progress.evaluated_step == self.progress.step:
            return False
        return self._due(self.evaluation_interval) or self._at_end()

    def _checkpoint_due(self) -> bool:
        if self._saved_step == self.progress.step:
            return False
        return self._due(self.checkpoint_interval) or self._at_end()

    # Reports ---------------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Raise NotFinite when a value of any step so far is not finite."""
        while self._unseen:
            self._unseen.popleft().check()

    def _log(self, report: ProgressReport, interval: Interval) -> None:
        """Log a line: the values of this step, and the speed since the last line."""
        numbers = self._unseen[-1].numbers()
        self._look_at_all()
        seconds = max(time.monotonic() - interval.started_s, 1e-9)
        step, epoch = self.progress.step, self.progress.step / self.steps_per_epoch
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        speed = {
            "lr": rate,
            "images_per_s": interval.images / seconds,
            "step_s": seconds / interval.steps,
            "data_s": interval.waited_s / interval.steps,
            "memory_gib": memory_gib(self.device),
            "threads": torch.get_num_threads(),
        }
        used = self.utilisation.of(interval.pixels / seconds, interval.shape)
        if used is not None:
            speed["utilisation"] = used
        self.metrics.add(step, epoch, "train", {name: float(f"{v:.6g}") for name, v in (numbers | speed).items()})
        self.send_metrics()
        done = self.fraction_done()
        eta = self._remaining_s(seconds / interval.steps, done)
        line = (
            f"step {step}" + (f"/{self.total_steps}" if self.total_steps else "") + f"  epoch {epoch:.1f}  "
            f"loss {numbers['loss']:.3f}  lr {rate:.2e}  {speed['images_per_s']:.1f} images/s  "
            f"{1000 * speed['step_s']:.0f} ms/step, {1000 * speed['data_s']:.0f} of them for data  "
            + (f"GPU {used:.0%}  " if used is not None else "")
            + f"memory {speed['memory_gib']:.1f} GiB  ETA {duration(eta)}"
        )
        report.update(done, line, f"loss {numbers['loss']:.2f}  {speed['images_per_s']:.0f} images/s")

    def _remaining_s(self, step_s: float, done: float) -> float:
        if self.total_steps is not None:
            return (self.total_steps - self.progress.step) * step_s
        return (1 - done) * 60 * (self.config.schedule.minutes or 0)

    def _evaluate(self, report: ProgressReport, interval: Interval) -> bool:
        """Evaluate on the validation split. Returns True if these are the best weights so far and not saved yet."""
        assert self.val_truth is not None
        self._look_at_all()
        started_s = time.monotonic()
        network = self.network if self.ema is None else self.ema.network
        with self.stop.at_once():
            seen = self.predict(self.val_samples, network)
            result = evaluate_boxes(self.val_truth, seen.predictions, per_class=False)
        step = self.progress.step
        self.metrics.add(step, step / self.steps_per_epoch, "val", result.line())
        better = self._judge(result.decisive_ap)
        if better:
            self.on_best(seen)
        interval.started_s += time.monotonic() - started_s
        report.say(f"step {step}: val {result.summary()}" + (" (best)" if better else ""))
        self._say_collapse(report, seen)
        if not better and self._at_end() and self.fraction_done() < 1:
            since = self.progress.evaluations_since_best
            report.say(f"stopping early: {since} evaluations without a better AP than {self.progress.best_ap:.3f}")
        # Evaluated again after a stop, the weights are already in the store.
        return better and self._saved_step != step

    def _judge(self, ap: float) -> bool:
        """Record an evaluation in the progress. Returns True if it is the best so far."""
        before = self.progress
        better = ap > before.best_ap + (self.config.evaluation.min_delta if before.best_step else 0.0)
        self.progress = replace(
            before,
            elapsed_s=self._elapsed_s(),
            evaluated_step=before.step,
            # Smaller images lower the AP. It rises once they have their full size.
            evaluations_since_best=0 if better or self._images_are_small() else before.evaluations_since_best + 1,
            best_step=before.step if better else before.best_step,
            best_ap=ap if better else before.best_ap,
        )
        if better:
            self.best_weights = host_copy((self.network if self.ema is None else self.ema.network).state_dict())
        return better

    def _say_collapse(self, report: ProgressReport, seen: SplitPredictions) -> None:
        """Warn once while queries collapse, not at every evaluation."""
        if seen.collapsed and not self._collapse_was_said:
            advice = "Start from a checkpoint (cvat-finetune-checkpoint) or train longer"
            if self.config.model.from_scratch_images:
                advice = (
                    f"{self.config.model.title} learns very slowly from random weights; start from a checkpoint "
                    f"(cvat-finetune-checkpoint), train longer, or choose model={' or '.join(presets_from_scratch())}"
                )
            report.say(
                "warning: every query predicts the same box for every image: the model does not use the images yet. "
                f"{advice}"
            )
        self._collapse_was_said = seen.collapsed

    def predict(self, samples: EvaluationSamples, network: torch.nn.Module) -> SplitPredictions:
        """Predictions of a network for a split."""
        batch_size, may_halve = self.config.evaluation.batch_size, not self.evaluation_batch_chosen
        return predict_split(
            network, self.family, samples, batch_size, self.device, bf16=self.bf16, may_halve=may_halve
        )

    def _stop(self, report: ProgressReport) -> None:
        """Save, wait until everything is in the store, and raise Interrupted."""
        step = self.progress.step
        if self._saved_step != step:
            report.say(f"{self.stop.name}: saving step {step}")
        self._save_unsaved()
        self.uploads.finish(store_patience_s(ON_STOP_S))
        where = f"after step {step}, which is saved" if step else "before the first step"
        raise Interrupted(f"stopped by {self.stop.name} {where}; {RESUME}")

    def _save_unsaved(self) -> None:
        """Queue unsaved state for upload."""
        if self._saved_step != self.progress.step:
            self.save()
        self.send_metrics()

    def load_best(self) -> None:
        """Load the best weights by validation AP into the network, or the last ones if nothing was validated."""
        last = self.network if self.ema is None else self.ema.network
        self.network.load_state_dict(last.state_dict() if self.best_weights is None else self.best_weights)


def has_boxes(split: Split) -> bool:
    """Whether a split has boxes to measure on."""
    return any(len(record.labels) for record in split.images)
