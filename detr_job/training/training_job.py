"""`detr-job train`, from its options to the results of a run."""

import dataclasses
import functools
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from detr_job import hardware, leaving, out_of_memory
from detr_job.data.batches import EvaluationSamples, smallest_side
from detr_job.errors import Interrupted, JobError, NotFinite, OutOfMemory, StoreLeftBehind, WorkersLost
from detr_job.family import Family, build_family
from detr_job.prediction.split_predictions import SplitPredictions, beyond_reach
from detr_job.stop_request import RESUME, StopNow, StopRequest
from detr_job.training import memory_probe, micro_batches
from detr_job.training.micro_batches import MicroBatches
from detr_job.training.precision import with_precision
from detr_job.training.progress import ProgressReport, SayHandler
from detr_job.training.run_folder import (
    MICRO_BATCH,
    describe_run,
    first_precision,
    open_run,
    resumed_settings,
    write_run,
)
from detr_job.training.run_lock import locked
from detr_job.training.set_facts import facts_of
from detr_job.training.trainer import Trainer, has_boxes
from detr_job.training.uploads import AT_END_S, ON_ERROR_S, ON_STOP_S, Uploads, store_patience_s
from detr_job.weights import checkpoint, model_folder
from detr_job.weights.finetune import load_weights, read_source
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing
from evaluation.coco import evaluate_boxes
from evaluation.ground_truth import STANDARD_MAX_DETS
from evaluation.operating_point import choose_operating_point
from evaluation.predictions import write_predictions
from object_store import ObjectStore, open_store
from object_store.file_errors import file_errors
from prepared_set.reader import LocalSet, PreparedSet
from published_weights.automatic_start import automatic_start, begun, model_of
from published_weights.start import start_from
from run_config.errors import ConfigError
from run_config.installation import load_installation, permitted
from run_config.job.config import MOST_BOXES, JobConfig, advised_queries
from run_config.job.keys import shown, value_of, with_values
from run_config.job.places import places
from run_config.job.presets import auto_keys, base_preset, is_chosen, load_job_config, presets_from_scratch
from run_config.job.recipe import resolved
from run_config.locations import resolve
from run_config.parameters import Type, overrides_of
from run_config.weights.automatic import AUTO, NONE
from run_config.wording import duration, plural
from run_config.writable import require_writable, write_whole

FINETUNE = "cvat-finetune-checkpoint"
PREDICTED_SPLITS = ("val", "test")
BATCH_SIZE = "data.batch_size"
LEFT_BEHIND = ("model", "checkpoint", "predictions")  # folders in --out


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """The options of `detr-job train`; an empty string means that the option is not given.

    settings: name → text of the workflow's parameters, including the options. recorded: parameters for
    run.json.
    """

    store: str
    set_id: str
    output_prefix: str
    run: str
    model: str
    workflow_uid: str = ""
    finetune: str = ""
    device: str = "cuda"
    settings: Mapping[str, str]
    recorded: Mapping[str, Any]
    out: Path

    @property
    def preset(self) -> str:
        """The name of the preset, or of the configuration file without its suffix."""
        return Path(self.model).stem

    @property
    def auto(self) -> frozenset[str]:
        """The configuration keys whose values follow from the data."""
        return auto_keys(self.model, overrides_of(self.settings))

    def chosen(self, key: str) -> bool:
        """Whether the user set this configuration key."""
        return is_chosen(key, self.model, overrides_of(self.settings))


def job_config(request: TrainRequest) -> JobConfig:
    """The configuration: the preset or file, then parameters that set a key, then overrides; later ones win."""
    if request.settings.get("epochs") and request.settings.get("minutes"):
        raise JobError("epochs and minutes are both set; set only one of them")
    return load_job_config(request.model, overrides_of(request.settings))


def train(request: TrainRequest) -> None:
    """Train, predict the validation and test splits, and write the results to `out`."""
    if not request.run.strip("/ "):
        raise JobError(f"--run: {request.run!r} is not allowed; give the run a name, such as first")
    request, config = _resolved(request)
    for name in LEFT_BEHIND:
        require_writable(request.out / name, "--out")
    _cache()
    device = hardware.choose_device(request.device)
    hardware.prepare(device)
    stop, uploads, report = StopRequest(), Uploads(), ProgressReport()
    with stop.installed(), working_folder() as folder, _warnings_shown(report), ExitStack() as held:
        try:
            with out_of_memory.explained(device, micro_batches.LOWER):
                with stop.at_once():
                    job = _prepare(request, config, device, folder, uploads, stop, report, held)
                job.trainer.train(report)
                with file_errors(request.out):
                    info = _write_results(job, report)
            with stop.at_once():
                uploads.finish(store_patience_s(AT_END_S))
        except StopNow:
            uploads.finish(store_patience_s(ON_STOP_S))
            raise Interrupted(f"stopped by {stop.name}; {RESUME}") from None
        except (NotFinite, OutOfMemory, WorkersLost):
            # Earlier checkpoints and metrics may still be uploading.
            with suppress(StoreLeftBehind):
                uploads.finish(store_patience_s(ON_ERROR_S))
            raise
        finally:
            uploads.close()
    report.say(_farewell(job, info))


def _resolved(request: TrainRequest) -> tuple[TrainRequest, JobConfig]:
    """Replace `auto` by a model and its weights, and allow only places that the installation permits.

    `check` may not have run.
    """
    allowed = permitted(request.settings)
    # Refused before anything is read from the store.
    config = None if request.model == AUTO else _permitted_places(job_config(request))
    store, text, finetune, before = open_store(request.store), request.finetune.strip() or AUTO, "", None
    if AUTO in (request.model, text):
        before = begun(store.child(f"{request.output_prefix.strip('/')}/{request.run}"), store)
    if text not in (AUTO, NONE):
        with _naming_the_start():
            named = start_from(text, store, request.output_prefix, request.run)
            finetune = allowed[FINETUNE] if named == text else permitted({FINETUNE: named})[FINETUNE]
    if config is None:
        url = resolve(finetune, store.url) if finetune else ""
        gpu, laptop = hardware.choose_device(request.device).type == "cuda", load_installation() is None
        chosen = model_of(text, url, before, store, open_store, gpu=gpu, laptop=laptop)
        request = dataclasses.replace(request, model=chosen.preset)
        config = _permitted_places(job_config(request))
    if text == AUTO:
        with _naming_the_start():
            start = automatic_start(config.model, base_preset(request.model), before, store)
        finetune = permitted({FINETUNE: start.checkpoint})[FINETUNE]
        if start.backbone:
            config = with_values(config, {"model.backbone_weights": start.backbone})
    return dataclasses.replace(request, finetune=finetune), config


@contextmanager
def _naming_the_start() -> Iterator[None]:
    """Put the name of the parameter before a mistake in it."""
    try:
        yield
    except ConfigError as error:
        raise JobError(f"{FINETUNE}: {error}") from error


def _permitted_places(config: JobConfig) -> JobConfig:
    """The configuration with its places as the installation permits them."""
    read = places(config)
    return with_values(config, permitted(read, dict.fromkeys(read, Type.LOCATION)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """Everything that is ready to train."""

    request: TrainRequest
    config: JobConfig
    local: LocalSet
    trainer: Trainer


def _prepare(
    request: TrainRequest,
    config: JobConfig,
    device: torch.device,
    folder: Path,
    uploads: Uploads,
    stop: StopRequest,
    report: ProgressReport,
    held: ExitStack,
) -> _Job:
    """Load data and model, open the run's folder, and load the weights: the newest checkpoint's or initial ones.

    held: gets the lock of the run.
    """
    store = open_store(request.store)
    run = store.child(f"{request.output_prefix.strip('/')}/{request.run}")
    local = PreparedSet.open(store, request.set_id).pull(folder)
    _check_data(local)
    check_lock = held.enter_context(locked(run, report.say))
    config, auto = _resumed(run, request, config, report)
    facts = facts_of(local, pretrained=bool(request.finetune), fits=memory_probe.probe(local, device))
    whole = config.data.batch_size
    config, reasons = resolved(config, auto, facts)
    for key, reason in reasons.items():
        report.say(f"{key}={shown(value_of(config, key))} ({reason})")
    _check_smallest_batch(config, local)
    torch.manual_seed(config.training.seed)
    family = build_family(config, len(local.class_names))
    exactness = micro_batches.exactness(family, config)
    if config.data.batch_size < whole:
        report.say(f"with data.batch_size={config.data.batch_size} instead of {whole}, {exactness}")
    settled, precision, reason = with_precision(config, first_precision(run), local, device)
    report.say(f"training.precision={precision} ({reason})")
    description = _open_run(request, config, reasons, local, family, device, run, precision)
    config = settled
    checkpoint.try_place(run)
    chosen = request.chosen(BATCH_SIZE) and BATCH_SIZE not in request.auto
    micro = MicroBatches(
        min(config.data.batch_size, len(local.split("train"))),
        fixed=chosen or _may_be_one_pixel(config, local),
        record=functools.partial(_record, uploads, run, description),
        images=description.get(MICRO_BATCH),
        exactness=exactness,
    )
    if micro.parts > 1:
        report.say(f"an earlier start of this run ran out of memory: {micro.describe()}")
    chosen = request.chosen("evaluation.batch_size")
    trainer = Trainer(config, family, local, run, device, uploads, stop, micro, evaluation_batch_chosen=chosen)
    job = _Job(request, config, local, trainer)
    trainer.check_lock = check_lock
    trainer.on_best = functools.partial(_publish, job)
    _announce(job, report)
    trainer.resume(report.say)
    if trainer.progress.step == 0:
        _initialise(job, store, report)
        trainer.restart_average()
    return job


def _resumed(
    run: ObjectStore, request: TrainRequest, config: JobConfig, report: ProgressReport
) -> tuple[JobConfig, frozenset[str]]:
    """The settings that the run started with if another release started it, otherwise the requested ones.

    Also returns the keys that are still `auto`: all at the first start, none when the run resumes.
    """
    config, kept, auto = resumed_settings(run, config, request.preset, request.chosen, request.auto)
    if kept:
        what = ", ".join(f"{key}={shown(old)} (now {shown(new)})" for key, (old, new) in kept.items())
        report.say(f"this run was started by another release and keeps its settings: {what}")
    return _permitted_places(config), auto


def _record(uploads: Uploads, run: ObjectStore, description: dict[str, Any], images: int) -> None:
    """Write to run.json how many images go through the network at once, for the next start of this run."""
    description[MICRO_BATCH] = images
    uploads.put("run", functools.partial(write_run, run, description))


@contextmanager
def working_folder() -> Iterator[Path]:
    """The folder for downloaded data: DETR_JOB_CACHE, which is kept, or a temporary folder."""
    kept = _cache()
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        with leaving.in_time():
            yield kept
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="detr-job-")
    except OSError as error:
        raise JobError(f"there is no folder for temporary files ({error.strerror}): set TMPDIR to one") from error
    with temporary as folder, leaving.in_time():
        yield Path(folder)


def _cache() -> Path | None:
    """The folder in DETR_JOB_CACHE. Raises ConfigError when it cannot be written."""
    kept = os.environ.get("DETR_JOB_CACHE")
    if not kept:
        return None
    require_writable(Path(kept), "DETR_JOB_CACHE")
    return Path(kept)


@contextmanager
def _warnings_shown(report: ProgressReport) -> Iterator[None]:
    """Show warnings of the libraries in the progress report."""
    handler = SayHandler(report)
    logger = logging.getLogger("detr_job")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _check_data(local: LocalSet) -> None:
    train_split = local.split("train")
    if not len(train_split):
        raise JobError(f"the prepared set {local.id} has no training images; prepare it with a train split")
    if not any(len(record.labels) for record in train_split.images):
        raise JobError(f"the prepared set {local.id} has no training boxes; label some images first")
    if not len(local.class_names):
        raise JobError(f"the prepared set {local.id} has no classes")


def _check_smallest_batch(config: JobConfig, local: LocalSet) -> None:
    """Refuse batches of one image whose coarsest map is one pixel, before they stop training in the middle."""
    train_split, stride = local.split("train"), config.model.normalised_stride
    if min(config.data.batch_size, len(train_split)) == 1 and _may_be_one_pixel(config, local):
        raise JobError(
            f"data.min_sizes, data.max_size: images may have {smallest_side(train_split, config.data)} pixels, which "
            f"are one pixel at this model's stride of {stride}, and one image per batch cannot be normalised: use "
            f"images of more than {stride + 1} pixels, or set data.batch_size to 2 or more"
        )


def _may_be_one_pixel(config: JobConfig, local: LocalSet) -> bool:
    """Whether the coarsest map with batch norms may have one pixel."""
    return smallest_side(local.split("train"), config.data) <= config.model.normalised_stride


def _open_run(
    request: TrainRequest,
    config: JobConfig,
    reasons: dict[str, str],
    local: LocalSet,
    family: Family,
    device: torch.device,
    run: ObjectStore,
    precision: str,
) -> dict[str, Any]:
    """Write run.json early, so that missing permissions and a used name are found before anything is computed."""
    return open_run(
        run,
        describe_run(
            run=request.run,
            uid=request.workflow_uid,
            parameters=dict(request.recorded),
            config=config.model_dump(mode="json"),
            auto=reasons,
            preset=request.preset,
            finetune=request.finetune,
            set_id=local.id,
            classes=local.class_names,
            hardware=hardware.hardware_name(device),
            precision=precision,
            model_parameters=sum(parameter.numel() for parameter in family.network.parameters()),
        ),
    )


def _announce(job: _Job, report: ProgressReport) -> None:
    """Say what will be trained, and warn about likely problems."""
    local, trainer = job.local, job.trainer
    count = sum(parameter.numel() for parameter in trainer.network.parameters())
    report.say(
        f"{job.request.preset}: {count / 1e6:.1f} M parameters, {plural(len(local.class_names), 'class', 'classes')}, "
        f"{len(local.split('train'))} training and {len(local.split('val'))} validation images, on "
        f"{hardware.hardware_name(trainer.device)}, {'bf16' if trainer.bf16 else 'fp32'}"
    )
    report.say(checkpoint.room(trainer.run, trainer.network, job.config))
    if about := job.config.model.about_image_size(job.config.data.eval_size):
        report.say(about)
    for warning in _warnings(job):
        report.say(f"warning: {warning}")


def _warnings(job: _Job) -> Iterator[str]:
    config, local = job.config, job.local
    train_split = local.split("train")
    batch_size, queries = config.data.batch_size, config.model.most_objects
    training_images = plural(len(train_split), "training image is", "training images are")
    if len(train_split) < batch_size:
        yield (
            f"{training_images} fewer than the batch size {batch_size}: "
            f"batches have {plural(len(train_split), 'image')}"
        )
    elif len(train_split) < batch_size * config.data.accumulate:
        yield (
            f"{training_images} fewer than data.batch_size x data.accumulate "
            f"({batch_size} x {config.data.accumulate}): a step uses some images twice and counts as an epoch"
        )
    crowded = [record for record in train_split.images if len(record.labels) > queries]
    if crowded:
        most = max(crowded, key=lambda record: len(record.labels))
        yield (
            f"{plural(len(crowded), 'training image has', 'training images have')} more boxes than the model has "
            f"queries ({queries}), up to {len(most.labels)} in {most.file_name}: the surplus boxes are not learned. "
            f"Set model.queries={advised_queries(len(most.labels))} or more"
        )
        if len(most.labels) > MOST_BOXES:
            yield f"an image gets at most {MOST_BOXES} boxes, whatever model.queries is: cut larger images into parts"
    if queries > MOST_BOXES:
        yield f"model.queries={queries} is more than the {MOST_BOXES} boxes an image can get: only the best are kept"
    if not len(local.split("val")):
        yield "the prepared set has no validation images: the last weights are used, not the best"
    elif not has_boxes(local.split("val")):
        yield "the validation images have no boxes to evaluate on: the last weights are used, not the best"
    model = config.model
    if not job.request.finetune and len(train_split) < model.from_scratch_images:
        yield (
            f"{model.title} from {model.untrained} needs more than {model.from_scratch_images} images and hundreds of "
            f"epochs to learn anything, and this set has {len(train_split)}: start from a checkpoint "
            f"(cvat-finetune-checkpoint), or choose {' or '.join(presets_from_scratch())}"
        )
    for name in PREDICTED_SPLITS:
        yield from beyond_reach(local.split(name), job.trainer.family.most_detections, queries)


def _initialise(job: _Job, store: ObjectStore, report: ProgressReport) -> None:
    """Load the first weights of a run."""
    family = job.trainer.family
    if job.request.finetune:
        source = read_source(resolve(job.request.finetune, store.url))
        source.refuse_other_model(job.config)
        loaded = load_weights(family, source, job.local.class_names)
        for line in (*loaded.sentences(source.url), *source.other_settings(job.config)):
            report.say(line)
        if source.classes is None and (about := family.about_weights(source.url.rpartition("/")[2])):
            report.say(about)
        return
    for url in places(job.config).values():
        folder, _, name = url.rpartition("/")
        with tempfile.TemporaryDirectory() as local_folder:
            path = Path(local_folder) / name
            open_store(folder or ".").get_file(name, path)
            family.load_backbone(path)
        report.say(f"backbone from {url}")


def _write_results(job: _Job, report: ProgressReport) -> ModelFolderConfig:
    """Write the best weights, last state and predictions to `out`. Returns the model's config.json."""
    request, trainer = job.request, job.trainer
    last = request.out / "checkpoint"
    last.mkdir(parents=True, exist_ok=True)
    for name, data in trainer.state().files().items():
        write_whole(last / name, data)
    trainer.load_best()
    (request.out / "predictions").mkdir(exist_ok=True)  # must exist, even for a set with only training images
    for split in PREDICTED_SPLITS:
        _predictions(request.out, split).unlink(missing_ok=True)  # an earlier run's set may have had more splits
    # The model's thresholds are chosen from predictions of its final weights, so the model is written after them.
    seen = _predict(job, "val", report)
    weights = {name: tensor.cpu().contiguous() for name, tensor in trainer.network.state_dict().items()}
    info = _model_config(job, seen)
    model_folder.write_model(request.out / "model", weights, info)
    _predict(job, "test", report)
    return info


def _predictions(out: Path, split: str) -> Path:
    return out / "predictions" / f"{split}.json"


def _predict(job: _Job, name: str, report: ProgressReport) -> SplitPredictions | None:
    """Predict a split with the best weights and write the file. None when the set has no images in this split."""
    config, local, trainer = job.config, job.local, job.trainer
    split = local.split(name)
    if not len(split):
        return None
    report.say(f"predicting {name}: {plural(len(split), 'image')}")
    with trainer.stop.at_once():
        seen = trainer.predict(EvaluationSamples(split, config.data), trainer.network)
    description = f"{job.request.preset}, step {trainer.progress.best_step or trainer.progress.step}"
    write_predictions(_predictions(job.request.out, name), seen.file(local.id, name, description, local.class_names))
    return seen


def _publish(job: _Job, seen: SplitPredictions) -> None:
    """Queue the best weights so far for upload as a model folder, so that they can be used while training goes on."""
    trainer, info = job.trainer, _model_config(job, seen)
    assert trainer.best_weights is not None
    folder, weights = trainer.run.child(model_folder.BEST), trainer.best_weights
    trainer.uploads.put("best", functools.partial(model_folder.upload_model, folder, weights, info))


def _model_config(job: _Job, seen: SplitPredictions | None) -> ModelFolderConfig:
    """Contents of config.json for the best weights. seen: their predictions for the validation split."""
    config, trainer = job.config, job.trainer
    truth, progress = trainer.val_truth, trainer.progress
    metrics = {"val_ap": progress.best_ap} if progress.best_step else {}
    point = None
    if truth is not None and seen is not None:
        point = choose_operating_point(truth, seen.predictions, "val")
        if metrics and truth.max_dets() > STANDARD_MAX_DETS:  # best_ap is the AP at max_dets
            result = evaluate_boxes(truth, seen.predictions, per_class=False)
            metrics = {
                "val_ap": result.ap,
                "val_ap_max_dets": result.decisive_ap,
                "val_max_dets": float(truth.max_dets()),
            }
    return ModelFolderConfig(
        classes=job.local.class_names,
        preset=job.request.preset,
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size, square=config.data.square),
        prepared_set=job.local.id,
        metrics=metrics,
        operating_point=point,
    )


def _farewell(job: _Job, info: ModelFolderConfig) -> str:
    progress = job.trainer.progress
    best = f"best val AP {progress.best_ap:.3f} at step {progress.best_step}" if progress.best_step else "last weights"
    point = "" if info.operating_point is None else f", threshold {info.operating_point.describe()}"
    # A step's $OUT is moved into the run's folder, so a path in it would soon lead nowhere.
    where = "" if "OUT" in os.environ else f"; model and predictions are in {job.request.out}"
    return f"done: {plural(progress.step, 'step')} in {duration(progress.elapsed_s)}, {best}{point}{where}"
