"""Start from other weights: an earlier run's `model/` folder, published weights in the store, or a public checkpoint.

If the classes differ, the heads are initialised anew, but rows of classes with the same name are kept. A
report says what was loaded, initialised and ignored. This is not for resuming a run.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from detr_job.errors import JobError
from detr_job.family import Family
from detr_job.weights.model_folder import CONFIG, WEIGHTS, NoModel, find_model, is_of_transformers
from detr_job.weights.tensor_files import read_tensors, refuse_not_finite, tensors_in
from object_store import open_store
from published_weights.start import missing
from published_weights.stored import card_of, read
from run_config.job.config import JobConfig
from run_config.job.keys import value_in
from run_config.job.preset_files import preset_names
from run_config.job.presets import load_job_config
from run_config.wording import shortened

TRANSFORMERS_HEAD = "class_labels_classifier.weight"
_COMPARED_BY_SHAPE = frozenset({"queries", "position_cells", "freeze_norms"})
"""Keys that may differ where the shapes of the weights allow it."""
_TRAINED_FURTHER = frozenset({"dilation", "windows"})
"""Keys that change what the weights see, and to which training adapts them."""
WHOLE_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Weights, the class of each row of their heads, and the queries and image size of their model.

    None: a file does not say.
    """

    url: str
    weights: Mapping[str, Tensor]
    classes: tuple[str | None, ...] | None
    queries: int | None = None
    image_size: int | None = None
    preset: str = ""
    """The preset or file of the model. Empty: a file does not say."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """The model's section of the configuration. Empty: a file does not say."""

    def refuse_other_model(self, config: JobConfig) -> None:
        """Raise JobError when the weights belong to another model, or mean something else in this one."""
        family = self.settings.get("family", config.model.family)
        if family != config.model.family:
            raise JobError(
                f"cvat-finetune-checkpoint: {self.url} is a model of {self.preset or family}, and another architecture "
                f"than {config.model.title}: choose {self.preset or 'that model'}, or weights of this one"
            )
        apart = _COMPARED_BY_SHAPE | _TRAINED_FURTHER | config.model.beside_weights
        now = config.model.model_dump(mode="json", exclude=set(apart))
        other = {key: value for key, value in now.items() if key in self.settings and self.settings[key] != value}
        if other:
            trained = ", ".join(f"model.{key}={self.settings[key]}" for key in other)
            here = ", ".join(f"model.{key}={value}" for key, value in other.items())
            raise JobError(
                f"cvat-finetune-checkpoint: {self.url} was trained with {trained}, and this run has {here}: its "
                "weights would mean something else; use the checkpoint's values, or other weights"
            )

    def other_settings(self, config: JobConfig) -> Iterator[str]:
        """A line for the log for each setting that this run has changed and that the weights allow."""
        for key in sorted(_TRAINED_FURTHER):
            trained, now = self.settings.get(key), getattr(config.model, key, None)
            if key in self.settings and trained != now:
                yield f"  model.{key}={now} instead of {trained}: the weights have to adapt to it"
        queries, size = config.model.most_objects, config.data.eval_size
        if self.queries not in (None, queries):
            yield f"  model.queries={queries} instead of {self.queries}: no weight depends on it"
        if self.image_size not in (None, size):
            yield f"  data.eval_size={size} instead of {self.image_size}: the weights know objects of another size"


@dataclass(slots=True)
class LoadReport:
    """What happened to each tensor, for the log."""

    same: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    kept_classes: tuple[str, ...] = ()
    names_classes: bool = True
    """Whether the checkpoint says which class each row is."""

    def sentences(self, source: str) -> list[str]:
        """One line each for loaded, newly initialised and ignored tensors."""
        lines = [f"starting from {source}: {len(self.same)} tensors loaded unchanged"]
        if self.rows:
            kept = (
                f"rows kept of {shortened(self.kept_classes)}"
                if self.kept_classes
                else "no class has the same name in the checkpoint"
                if self.names_classes
                else "the file does not say which classes its rows are"
            )
            lines.append(f"  heads initialised for the classes of this set: {shortened(list(self.rows))}; {kept}")
        if self.fresh:
            lines.append(f"  initialised: {shortened(self.fresh)}")
        if self.ignored:
            lines.append(f"  ignored, because this model has no such tensors: {shortened(self.ignored)}")
        return lines


def read_source(url: str) -> WeightsSource:
    """Read the weights. Raises JobError, or the store's error, when there are no usable weights at this place."""
    source = _read_source(url)
    refuse_not_finite(source.weights, f"cvat-finetune-checkpoint: {source.url}")
    return source


def _read_source(url: str) -> WeightsSource:
    if url.endswith(WHOLE_FILES):
        parent, slash, name = url.rpartition("/")
        beside = parent or slash or "."
        folder = open_store(beside)
        if name == WEIGHTS and folder.exists(CONFIG) and not is_of_transformers(folder):
            return _read_source(beside)  # a model folder names the classes
        return WeightsSource(url, _only_tensors(url), None)
    folder = open_store(url)
    if is_of_transformers(folder):
        return _read_source(f"{url.rstrip('/')}/{WEIGHTS}")
    if (card := card_of(folder)) is not None:
        known = load_job_config(card.preset) if card.preset in preset_names() else None
        return WeightsSource(
            folder.url,
            tensors_in(read(folder, card)),
            card.classes,
            None if known is None else known.model.most_objects,
            None if known is None else known.data.eval_size,
            card.preset,
            {} if known is None else known.model.model_dump(mode="json"),
        )
    try:
        found = find_model(url)
    except NoModel as error:
        why = missing(url) or f"{error}, or a .pth or .safetensors file of a public DETR checkpoint"
        raise JobError(f"cvat-finetune-checkpoint: {why}") from error
    info, queries = found.info, value_in(found.info.job, "model.queries")
    queries = queries if isinstance(queries, int) else None
    settings = info.job.get("model")
    return WeightsSource(
        found.url,
        found.weights,
        info.classes,
        queries,
        info.preprocessing.eval_size,
        info.preset,
        settings if isinstance(settings, dict) else {},
    )


def _only_tensors(url: str) -> dict[str, Tensor]:
    """The state dict of a file in a store."""
    folder, slash, name = url.rpartition("/")
    store = open_store(folder or slash or ".")
    with tempfile.TemporaryDirectory() as local:
        path = Path(local) / name
        store.get_file(name, path)
        content = read_tensors(path, name=url)
    if TRANSFORMERS_HEAD in content:
        raise JobError(
            f"cvat-finetune-checkpoint: {url} is a checkpoint of Hugging Face Transformers, whose tensors have other "
            "names; give the original .pth file from github.com/facebookresearch/detr"
        )
    return content


def load_weights(family: Family, source: WeightsSource, classes: Sequence[str]) -> LoadReport:
    """Load the weights into a new network. Raises JobError when the source has another architecture."""
    state = family.network.state_dict()
    if source.classes is None:
        weights = family.own_names(source.weights)
        source = replace(source, weights=weights, classes=_public_classes(family, weights, len(classes)))
    report = LoadReport(ignored=sorted(set(source.weights) - set(state)), names_classes=source.classes is not None)
    same_classes = source.classes is not None and tuple(source.classes) == tuple(classes)
    filled: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, fresh in state.items():
        given = source.weights.get(name)
        if given is None:
            report.fresh.append(name)
        elif fresh.is_floating_point() and not given.is_floating_point():
            wrong.append(f"{name} has whole numbers in the checkpoint, which is quantised")
        elif name in family.class_heads and given.shape[1:] == fresh.shape[1:] and not same_classes:
            no_object = fresh.shape[0] - len(classes)
            if source.classes is not None and given.shape[0] != len(source.classes) + no_object:
                wrong.append(f"{name} has {given.shape[0]} rows for {len(source.classes)} classes in the checkpoint")
            else:
                filled[name], report.rows[name] = _head(fresh, given, source.classes or (), classes)
                if family.objectness_head and name.startswith(family.objectness_head):
                    filled[name][0] = given[0]
        elif given.shape != fresh.shape:
            wrong.append(f"{name} is {tuple(given.shape)} in the checkpoint and {tuple(fresh.shape)} in this model")
        else:
            filled[name] = given
            report.same.append(name)
    wrong += [f"{name} is only in this model" for name in report.fresh if not _may_be_missing(name, family)]
    wrong += [f"{name} is only in the checkpoint" for name in report.ignored if _belongs_to_us(name, state)]
    if wrong:
        what = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more differences" if len(wrong) > 3 else "")
        raise JobError(
            f"cvat-finetune-checkpoint: {source.url} has a different architecture: {what}. Choose the model it was "
            "trained as, and the same number of queries and layers"
        )
    family.network.load_state_dict(filled, strict=False)
    if report.rows:
        report.kept_classes = tuple(name for name in classes if _row(name, source.classes or ()) is not None)
    return report


def _public_classes(family: Family, weights: Mapping[str, Tensor], fresh: int) -> tuple[str | None, ...] | None:
    """The classes of a public checkpoint, if its heads have the rows of one; `fresh`: classes of the network."""
    state, rows = family.network.state_dict(), len(family.public_classes)
    sizes = {weights[name].shape[0] - (state[name].shape[0] - fresh) for name in family.class_heads if name in weights}
    return family.public_classes if sizes == {rows} else None


def _may_be_missing(name: str, family: Family) -> bool:
    """Heads, which are often removed before publishing, counters that only a batch norm has, and training parts."""
    return name in family.class_heads or name.endswith("num_batches_tracked") or name.startswith(family.training_parts)


def _belongs_to_us(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether an unknown tensor belongs to a module that this network also has, which means another architecture."""
    part = name.partition(".")[0]
    counter = name.endswith(("num_batches_tracked", "total_params", "total_ops"))
    return not counter and any(own.partition(".")[0] == part for own in state)


def _row(name: str, classes: Sequence[str | None]) -> int | None:
    """The row of a class; `Traffic_light` matches `traffic light`."""
    if name in classes:
        return classes.index(name)
    plain = [None if each is None else _plain(each) for each in classes]
    return plain.index(_plain(name)) if _plain(name) in plain else None


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _head(fresh: Tensor, given: Tensor, old: Sequence[str | None], new: Sequence[str]) -> tuple[Tensor, int]:
    """New rows, except that rows of classes with the same name, and of "no object", come from the source."""
    head, kept = fresh.clone(), 0
    for row, name in enumerate(new):
        old_row = _row(name, old)
        if old_row is not None:
            head[row] = given[old_row]
            kept += 1
    if fresh.shape[0] == len(new) + 1:
        head[-1] = given[-1]
    return head, kept
