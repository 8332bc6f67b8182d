"""`detr-job evaluate`: evaluate a model on a split of a prepared set."""

from collections.abc import Callable, Mapping
from pathlib import Path

from detr_job import hardware, out_of_memory
from detr_job.data.batches import EvaluationSamples
from detr_job.errors import JobError
from detr_job.prediction.predictor import model_place
from detr_job.prediction.split_predictions import beyond_reach, predict_split
from detr_job.training.training_job import working_folder
from detr_job.weights.model_folder import load_model
from evaluation.coco import CocoResult, evaluate_boxes
from evaluation.predictions import write_predictions
from object_store import open_store
from prepared_set.manifest import SPLITS
from prepared_set.reader import PreparedSet
from run_config.installation import permitted
from run_config.wording import shortened
from run_config.writable import require_writable

BATCH_SIZE = 4


def measure(
    model_url: str,
    store_url: str,
    set_id: str,
    split_name: str,
    out: Path | None,
    batch_size: int | None,
    device_name: str,
    parameters: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> CocoResult:
    """Compute the COCO numbers over the classes of the set.

    Raises JobError when the model does not know a class of the set, or the split is empty.

    parameters: the workflow's, name → text. `say` is called with warnings about the numbers.
    """
    if split_name not in SPLITS:
        raise JobError(f"--split: {split_name!r} is not one of {', '.join(SPLITS)}")
    if out is not None:
        require_writable(out / "predictions", "--out")
    given = {"store": store_url, "trained-model": model_url}
    model_url = permitted({**(parameters or {}), **given})["trained-model"]
    device = hardware.choose_device(device_name)
    hardware.prepare(device)
    model = load_model(model_place(model_url, store_url), device)
    prepared = PreparedSet.open(open_store(store_url), set_id)
    known, wanted = model.info.classes, prepared.class_names
    if not set(wanted) <= set(known):
        by_folded = {name.casefold(): name for name in known}
        alike = [
            f"{name}={by_folded[name.casefold()]}"
            for name in wanted
            if name not in known and name.casefold() in by_folded
        ]
        way_on = f", or prepare this one with --class-map {' '.join(alike)}" if alike else ""
        raise JobError(
            f"the model knows the classes {', '.join(known)}, the set {set_id} has {', '.join(wanted)}: measure it on "
            f"a set whose classes the model knows{way_on}"
        )
    if len(wanted) < len(known):
        others = [name for name in known if name not in wanted]
        say(
            f"measured over the {len(wanted)} classes of the set; the model also knows {shortened(others)}, and boxes "
            "of these classes are left out"
        )
    with working_folder() as folder:
        split = prepared.pull(folder, [split_name]).split(split_name)
        if not len(split):
            raise JobError(f"the prepared set {set_id} has no images in {split_name}: choose another --split")
        for sentence in beyond_reach(split, model.family.most_detections, model.config.model.most_objects):
            say(f"warning: {sentence}")
        samples = EvaluationSamples(split, model.config.data)
        bf16 = hardware.use_bf16(model.config.training, device, insist=False)
        may_halve, batch_size = batch_size is None, batch_size or BATCH_SIZE
        with out_of_memory.explained(device, "--batch-size"):
            seen = predict_split(
                model.family.network, model.family, samples, batch_size, device, bf16=bf16, may_halve=may_halve
            )
        if known != wanted:
            seen = seen.with_classes({known.index(name): label for label, name in enumerate(wanted)})
        if out is not None:
            content = seen.file(set_id, split_name, model.description, wanted)
            path = out / "predictions" / f"{split_name}.json"
            try:
                write_predictions(path, content)
            except OSError as error:
                raise JobError(f"--out: {path} cannot be written: {error.strerror or error}") from error
        return evaluate_boxes(split.annotations_path, seen.predictions)
