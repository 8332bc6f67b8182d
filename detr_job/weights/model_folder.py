"""The `model/` folder: the best weights with everything needed to use them, and no executable content.

model.safetensors   weights
config.json         format, classes in the order of the logits, the model's configuration, preprocessing
README.md           the model card
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from detr_job.data.batches import MEAN, STD
from detr_job.errors import JobError
from detr_job.family import Family, build_family
from detr_job.training.run_folder import RUN
from detr_job.weights import checkpoint
from detr_job.weights.tensor_files import refuse_not_finite, tensors_in
from evaluation.operating_point import OperatingPoint
from object_store import NoSuchKey, ObjectStore, open_store
from published_weights.pickle_scan import Unreadable
from run_config.job.config import JobConfig
from run_config.job.stored_config import stored_config
from run_config.model_quality import FALLBACK_THRESHOLD
from run_config.wording import plural
from run_config.writable import write_whole

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BEST = "best"  # in a run's folder: the best weights so far, as a model folder
_CHECKPOINT = re.compile(r"/checkpoints/step-\d{8,}$")


class Preprocessing(msgspec.Struct, frozen=True):
    """How images are prepared: short side to `eval_size`, long side at most `max_size`, then mean and std.

    square: both sides to `eval_size` instead.
    """

    eval_size: Annotated[int, msgspec.Meta(gt=0)]
    max_size: Annotated[int, msgspec.Meta(gt=0)]
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    square: bool = False


class ModelFolderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of config.json."""

    format: int = FORMAT
    classes: tuple[str, ...]
    preset: str
    job: dict[str, Any]
    """The whole JobConfig that the model was trained with."""
    preprocessing: Preprocessing
    prepared_set: str
    metrics: dict[str, float]
    """AP on the validation split when the model was chosen: `val_ap` as in COCO, with 100 boxes per image and class;
    if an image has more objects, also `val_ap_max_dets`, with `val_max_dets` boxes."""
    operating_point: OperatingPoint | None = None
    """Score thresholds to use. None: written by an older release, or no validation box was found."""


class _AnyFormat(msgspec.Struct):
    """The fields that every format has."""

    format: int


class _OfTransformers(msgspec.Struct):
    """A field that Hugging Face Transformers writes into every config.json."""

    model_type: str


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that is ready to predict."""

    description: str
    config: JobConfig
    info: ModelFolderConfig
    family: Family


class NoModel(JobError):
    """The place has no model and no checkpoint."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Weights as they were read, and what is needed to use them. `url`: the folder with the weights."""

    url: str
    info: ModelFolderConfig
    weights: Mapping[str, Tensor]


def model_files(weights: Mapping[str, Tensor], info: ModelFolderConfig) -> dict[str, bytes]:
    """The contents of a model folder by name: weights, model card, and config.json last."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return {
        WEIGHTS: save_safetensors(plain),
        CARD: model_card(info).encode(),
        CONFIG: msgspec.json.format(msgspec.json.encode(info), indent=2),
    }


def write_model(folder: Path, weights: Mapping[str, Tensor], info: ModelFolderConfig) -> None:
    """Write weights, config.json and model card to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files(weights, info).items():
        write_whole(folder / name, content)


def upload_model(store: ObjectStore, weights: Mapping[str, Tensor], info: ModelFolderConfig) -> None:
    """Write the same to a folder in a store."""
    for name, content in model_files(weights, info).items():
        store.put_bytes(name, content)


def find_model(url: str) -> FoundModel:
    """Read a model folder, a run's folder, or a checkpoint of a run.

    Of a run, the final model is used, or else its best weights so far, or else its newest checkpoint. Raises JobError
    when it is damaged, and NoModel when there is none.
    """
    store = open_store(url.removesuffix(f"/{WEIGHTS}"))
    if is_of_transformers(store):
        raise NoModel(
            f"{url} is a model of Hugging Face Transformers, and not one of ours: give the model/ folder of a run (of "
            "RF-DETR, D-FINE and Deformable DETR, cvat-finetune-checkpoint takes it as the start of a training)"
        )
    for candidate in (store, store.child("model"), store.child(BEST)):
        if candidate.exists(CONFIG):
            return FoundModel(candidate.url, read_info(candidate), read_weights(candidate))
    if store.exists(checkpoint.MANIFEST) and _CHECKPOINT.search(store.url):
        run, step = open_store(store.url.rsplit("/", 2)[0]), int(store.url.rpartition("-")[2])
        return _of_checkpoint(run, checkpoint.read(run, step))
    if store.exists(RUN):
        newest, _ = checkpoint.newest(store)
        if newest is not None:
            return _of_checkpoint(store, newest)
    raise NoModel(
        f"there is no model at {url} (no {CONFIG}): give the model/ folder of a run, the folder of the run itself, or "
        "one of its checkpoints/"
    )


def _of_checkpoint(run: ObjectStore, state: checkpoint.Checkpoint) -> FoundModel:
    """The weights of a checkpoint, with the classes and settings from run.json."""
    try:
        described = json.loads(run.get_bytes(RUN))
        job = described["config"]
        info = ModelFolderConfig(
            classes=msgspec.convert(described["classes"], tuple[str, ...]),
            preset=str(described["model"]),
            job=job,
            preprocessing=Preprocessing(
                int(job["data"]["eval_size"]), int(job["data"]["max_size"]), square=bool(job["data"].get("square"))
            ),
            prepared_set=str(described["prepared_set"]),
            metrics={},
        )
    except (NoSuchKey, ValueError, RecursionError, LookupError, TypeError, msgspec.ValidationError) as error:
        raise JobError(
            f"{run.url}/{RUN} is missing or does not describe a run: copy a checkpoint with its run's folder"
        ) from error
    return FoundModel(f"{run.url}/{checkpoint.folder(state.progress.step)}", info, state.weights())


def is_of_transformers(store: ObjectStore) -> bool:
    """Whether the config.json of a folder was written by Hugging Face Transformers."""
    try:
        msgspec.json.decode(store.get_bytes(CONFIG), type=_OfTransformers)
    except (NoSuchKey, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def read_info(store: ObjectStore) -> ModelFolderConfig:
    """Read config.json of a model folder. Raises JobError when it is invalid."""
    where = f"{store.url}/{CONFIG}"
    content = store.get_bytes(CONFIG)
    try:
        written = msgspec.json.decode(content, type=_AnyFormat).format
        if written != FORMAT:
            raise JobError(f"{where} has format {written}, this version reads {FORMAT}: use the version that wrote it")
        info = msgspec.json.decode(content, type=ModelFolderConfig)
    except RecursionError as error:
        raise JobError(f"{where} is not a model's configuration: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{where} is not a model's configuration: {error}") from error
    if not info.classes or len(set(info.classes)) < len(info.classes):
        raise JobError(f"{where} is not a model's configuration: classes is empty, or names one twice")
    if (info.preprocessing.mean, info.preprocessing.std) != (MEAN, STD):
        raise JobError(f"{where} has another mean or std than all models of this release, {MEAN} and {STD}: restore it")
    return info


def read_weights(store: ObjectStore) -> dict[str, Tensor]:
    """Read the weights of a model folder. Raises JobError when the file is damaged."""
    try:
        return tensors_in(store.get_bytes(WEIGHTS))
    except Unreadable as error:
        raise JobError(f"{store.url}/{WEIGHTS} is damaged: {error}") from error


def load_model(url: str, device: torch.device) -> TrainedModel:
    """Load a model from its folder, ready to predict on a device. Raises JobError when the folder is incomplete."""
    found = find_model(url)
    info, weights = found.info, found.weights
    config = stored_config(info.job, f"{found.url}/{CONFIG}")
    _check_size(found.url, config, info, weights)
    refuse_not_finite(weights, f"{found.url}/{WEIGHTS}")
    family = build_family(config, len(info.classes))
    own = family.network.state_dict()
    for name in family.class_heads:
        rows = weights[name].shape[0] if name in weights and weights[name].ndim else 0
        if rows and rows != own[name].shape[0]:
            raise JobError(
                f"{found.url}: {WEIGHTS} and {CONFIG} do not belong together: {name} has {rows} rows, and "
                f"{len(info.classes)} classes need {own[name].shape[0]}"
            )
    try:
        family.network.load_state_dict(weights)
    except RuntimeError as error:
        # The first line names the Python class, each further line a tensor.
        reasons = " ".join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise JobError(f"{found.url}: {WEIGHTS} and {CONFIG} do not belong together: {reasons}") from error
    family.network.to(device).to(memory_format=torch.channels_last).eval()
    return TrainedModel(f"{info.preset} from {found.url}", config, info, family)


def _check_size(url: str, config: JobConfig, info: ModelFolderConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse sizes that do not match the weights, before a network of that size is built."""
    too_deep = [f"{name}={depth}" for name, depth in config.model.depths.items() if depth > len(weights)]
    if too_deep:
        raise JobError(f"{url}: {WEIGHTS} and {CONFIG} do not belong together: {too_deep[0]} in {len(weights)} tensors")
    try:
        with torch.device("meta"):
            outline = build_family(config, len(info.classes)).network.state_dict()
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise JobError(f"{url}/{CONFIG} describes a network that cannot be built: check its model") from error
    wanted, found = (sum(each.nbytes for each in state.values()) for state in (outline, weights))
    if wanted > 4 * found + (64 << 20):  # smaller differences are reported per tensor
        raise JobError(
            f"{url}: {WEIGHTS} and {CONFIG} do not belong together: {CONFIG} needs {wanted >> 20} MiB of weights, "
            f"{WEIGHTS} has {found >> 20} MiB"
        )


def model_card(info: ModelFolderConfig) -> str:
    """The model card: what a user needs to know about the model, in Markdown."""
    model = info.job["model"]
    size = info.preprocessing
    sides = f"short side {size.eval_size} pixels, long side at most {size.max_size}"
    if size.square:
        sides = f"stretched to {size.eval_size} x {size.eval_size} pixels"
    rows = "\n".join(f"| {index} | {_cell(name)} |" for index, name in enumerate(info.classes))
    return f"""# {_cell(info.preset)}: a detector of {plural(len(info.classes), "class", "classes")}

Trained by detr-workflows on the prepared set `{info.prepared_set}`. On its validation split: {_numbers(info.metrics)}.

| index | class |
|---|---|
{rows}

- Family `{model["family"]}`; the whole configuration is in `{CONFIG}`.
- Input: RGB, orientation applied, {sides},
  scaled to 0…1, then minus mean {list(size.mean)} over deviation {list(size.std)}.
- Output: boxes as centre and size, as fractions of the image.
- Threshold: {_cell(_threshold(info.operating_point))}

Use it:

    detr-job predict --model THIS_FOLDER IMAGE...
"""


def _numbers(metrics: Mapping[str, float]) -> str:
    """AP and other metrics for people; with two limits on boxes, each AP with its limit."""
    rest = dict(metrics)
    wide, most = rest.pop("val_ap_max_dets", None), rest.pop("val_max_dets", None)
    numbers = [f"{name.removeprefix('val_').upper()} {value:.3f}" for name, value in rest.items()]
    if wide is not None and most is not None:
        numbers = [f"AP {wide:.3f} at maxDets {most:.0f}", *numbers, "as COCO counts, at maxDets 100"]
    return ", ".join(numbers) or "not measured"


def _threshold(point: OperatingPoint | None) -> str:
    if point is None:
        return f"{FALLBACK_THRESHOLD} (default; not chosen on validation images)"
    chosen = f"chosen by the F1 at IoU {point.iou} on {point.split}"
    return f"{point.describe()}, {chosen}. It is used where no other is given."


def _cell(text: str) -> str:
    """Escape a name so that it stays within its table cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
