"""The parameters that a person sets. They are defined only here.

This table is the source of the parameters of the templates, the forms, the checks in the containers and the table in
the docs. Argo passes every value as a string and checks neither types nor choices, so `parse` does.

A parameter that `sets` a configuration key of the job needs nothing else: the step `train` sets the key, and the bounds
of a number are those of the key.
"""

import difflib
import functools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from run_config import cvat_formats, prepare_pods
from run_config.automatic_boxes import AutomaticBoxes
from run_config.cvat_formats import COCO, SHORT_NAMES
from run_config.errors import ConfigError
from run_config.job.limits import Limits
from run_config.job.preset_files import presets_on_offer
from run_config.locations import key_to_write, resolve
from run_config.weights.automatic import AUTO, FOR_CPU, FOR_GPU, FROM_SCRATCH, NONE
from run_config.weights.catalogue import ALL_LICENCES, names_in, published
from run_config.wording import shortened

LENGTHS = frozenset({"epochs", "steps", "minutes"})
"""The keys of `schedule` that set the length of training."""

POOL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""The names that the chart allows for a node pool: the name is also a key of a ConfigMap."""

_SET_ID = re.compile(r"[0-9a-f]{16,64}")
_SUBJECT = re.compile(r"task:[1-9][0-9]{0,9}(,task:[1-9][0-9]{0,9})*|project:[1-9][0-9]{0,9}")

Value = str | int | float | None
"""A parsed value. None: an optional parameter was left empty."""


class Type(StrEnum):
    """The type of a value. `location`: a URL or a key below the store. `locations`: several, one per line.

    The choices of a `node-pool` come from the installation (`installation.py`).
    """

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    LOCATION = "location"
    LOCATIONS = "locations"
    KEY = "key"
    NODE_POOL = "node-pool"
    SET_ID = "set-id"


class Visibility(StrEnum):
    """Who sees a parameter: everybody, those who open the expert part of a form, or nobody."""

    ANNOTATOR = "annotator"
    EXPERT = "expert"
    HIDDEN = "hidden"


class Role(StrEnum):
    """The meaning of a parameter for a program that fills it in, whatever the name of the parameter."""

    DATASET = "dataset"
    TEST_DATASET = "test-dataset"
    OUTPUT = "output"
    FINETUNE_CHECKPOINT = "finetune-checkpoint"
    MODEL_FOLDER = "model-folder"
    NODE_POOL = "node-pool"
    STORE = "store"
    SUBJECT = "subject"
    GRANT = "grant"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter. `default` None: a value is required. `default` empty: the parameter is optional."""

    name: str
    title: str
    help: str
    """Markdown."""
    group: str
    type: Type
    default: str | None = ""
    empty_is_default: bool = False
    """Whether an empty value means the default, so that no value is required."""
    visibility: Visibility = Visibility.ANNOTATOR
    role: Role | None = None
    sets: str = ""
    """The configuration key of the job that gets the value, such as `schedule.epochs`."""
    minimum: float | None = None
    maximum: float | None = None
    """If a key is set, None means the bound of the key (see `limits`). A bound here is narrower than that of the key:
    it catches typing errors in a form, while the key allows all values that a job can use."""
    above_minimum: bool = False
    """Whether the minimum itself is excluded."""
    choices: tuple[str, ...] = ()
    file_suffixes: tuple[str, ...] = ()
    """The file name extensions, if the value may also be the path of a file."""

    @property
    def required(self) -> bool:
        """Whether an empty value is refused."""
        return self.default is None or (self.default != "" and not self.empty_is_default)

    @property
    def limits(self) -> Limits:
        """The bounds of a number: its own, or else those of the key that it sets."""
        own = Limits(self.minimum, self.above_minimum, self.maximum)
        if not self.sets or self.type not in (Type.INTEGER, Type.NUMBER):
            return own
        key = _limits_of_key(self.sets)
        key = key.of_integers() if self.type is Type.INTEGER else key
        low = key if own.minimum is None else own
        high = key if own.maximum is None else own
        if high.below_maximum:
            raise ValueError(f"{self.name}: {self.sets} must be below {high.maximum:g}; give the parameter a maximum")
        return Limits(low.minimum, low.above_minimum, high.maximum)


@functools.cache
def _limits_of_key(name: str) -> Limits:
    from run_config.job.keys import keys  # imports pydantic, which is slow and not needed for a list of parameters

    return next(key.limits for key in keys() if key.name == name)


_PRESETS = presets_on_offer()

_ALL: tuple[Parameter, ...] = (
    Parameter(
        name="cvat-annotation-path",
        title="Dataset",
        help=f"CVAT export in **{COCO}** format: a zip, tar or tar.gz, or a folder with `images/` and `annotations/`. "
        "An `s3://` or `file://` URL, or a key below the store. Several are merged: one per line.",
        group="Data",
        type=Type.LOCATIONS,
        default=None,
        role=Role.DATASET,
    ),
    Parameter(
        name="cvat-test-path",
        title="Test dataset",
        help="Test export for evaluating the finished model, in the same formats as the dataset. "
        "Empty: the model is evaluated on the validation part only.",
        group="Data",
        type=Type.LOCATIONS,
        role=Role.TEST_DATASET,
    ),
    Parameter(
        name="annotation-format",
        title="Format of the datasets",
        help="Only needed if a dataset has the same annotations in several formats. `auto`: the format is recognised.",
        group="Data",
        type=Type.CHOICE,
        default=cvat_formats.AUTO,
        visibility=Visibility.EXPERT,
        choices=(cvat_formats.AUTO, *SHORT_NAMES),
    ),
    Parameter(
        name="classes",
        title="Classes",
        help="Names of the classes to train, separated by commas or line breaks. Empty: all. Boxes of other classes "
        "are left out and counted.",
        group="Data",
        type=Type.TEXT,
        visibility=Visibility.EXPERT,
    ),
    Parameter(
        name="class-map",
        title="Rename or merge classes",
        help="New names as `old=new`, separated by commas or line breaks, such as `truck=car, bus=car`. Classes with "
        "the same new name are merged. `classes` takes the new names.",
        group="Data",
        type=Type.TEXT,
        visibility=Visibility.EXPERT,
    ),
    Parameter(
        name="trained-model",
        title="Trained model",
        help="Model of a finished run. If the list is empty: the `s3://` or `file://` URL of its `model/` folder, or "
        "its key below the store.",
        group="Data",
        type=Type.LOCATION,
        default=None,
        role=Role.MODEL_FOLDER,
    ),
    Parameter(
        name="prepared-set",
        title="Prepared set",
        help="Id of the set. It is a result of the step `prepare` of an earlier run, or of a run of `detr-prepare`.",
        group="Data",
        type=Type.SET_ID,
        default=None,
    ),
    Parameter(
        name="split",
        title="Part of the set",
        help="Part of the set on which the model is evaluated.",
        group="Data",
        type=Type.CHOICE,
        default="test",
        choices=("test", "val"),
    ),
    Parameter(
        name="val-fraction",
        title="Validation part",
        help="Fraction of the images for validation: they choose the best weights and are not trained on. "
        "Ignored if the export has its own validation part.",
        group="Data",
        type=Type.NUMBER,
        default="0.15",
        visibility=Visibility.EXPERT,
        minimum=0,
        maximum=0.9,
    ),
    Parameter(
        name="automatic-boxes",
        title="Untouched automatic boxes",
        help="Boxes that a model drew and nobody has changed since.\n"
        "- `leave-out`: they are not used for training and measuring, and neither are images that have no other boxes. "
        "Objects under such boxes count as background on the other images\n"
        "- `keep`: they are used like boxes of people; choose it if people have checked all images",
        group="Data",
        type=Type.CHOICE,
        default=AutomaticBoxes.LEAVE_OUT,
        choices=tuple(AutomaticBoxes),
    ),
    Parameter(
        name="model",
        title="Model",
        help=f"- `{AUTO}`: The best that the machine can train and whose published weights are in the store: with a "
        f"GPU `{FOR_GPU[0]}`, else `{FOR_GPU[1]}`; without a GPU `{FOR_CPU[0]}`, else `{FROM_SCRATCH}`.\n"
        + "\n".join(f"- `{name}`: {line}" for name, line in _PRESETS.items()),
        group="Model",
        type=Type.CHOICE,
        default=AUTO,
        choices=(AUTO, *_PRESETS),
        file_suffixes=(".yaml", ".yml"),
    ),
    Parameter(
        name="cvat-finetune-checkpoint",
        title="Start from",
        help="Weights to start from, of the same architecture.\n"
        f"- `{AUTO}`, or empty: the published weights of the model, which must be in the store if the model needs "
        "them\n"
        f"- `{NONE}`: random weights; only `{FROM_SCRATCH}` learns from these with few images\n"
        "- `weights:NAME`: published weights in the store\n"
        "- `run:NAME`: an earlier run\n"
        "- the `s3://` or `file://` URL of a `model/` folder or of a file, or its key below the store",
        group="Model",
        type=Type.LOCATION,
        default=AUTO,
        empty_is_default=True,
        role=Role.FINETUNE_CHECKPOINT,
    ),
    Parameter(
        name="threshold",
        title="Threshold",
        help="Lowest confidence of a box, 0 to 1. Lower: more boxes, and more wrong ones. Empty: the model's own "
        "threshold, chosen on its validation images.",
        group="Annotation",
        type=Type.NUMBER,
        minimum=0,
        maximum=1,
    ),
    Parameter(
        name="existing-shapes",
        title="Existing shapes",
        help="- `keep`: keep all shapes and add the model's boxes where the label has none yet\n"
        "- `replace-automatic`: delete shapes that a model made and nobody corrected\n"
        "- `replace-all`: delete all shapes, also those that people drew",
        group="Annotation",
        type=Type.CHOICE,
        default="keep",
        choices=("keep", "replace-automatic", "replace-all"),
    ),
    Parameter(
        name="repeated-boxes",
        title="Repeated boxes",
        help="Boxes that have nearly the place of a better box (IoU above 0.9).\n"
        "- `remove`: only the box with the better score is added\n"
        "- `keep`: all are added, for objects that may have two classes",
        group="Annotation",
        type=Type.CHOICE,
        default="remove",
        choices=("remove", "keep"),
    ),
    Parameter(
        name="epochs",
        title="Epochs",
        help="Passes over the training images. Empty: the preset's value, 300 for `detr-…`; `rf-detr-…` and "
        "`d-fine-…` choose by the number of images. Set epochs or minutes, not both.",
        group="Schedule",
        type=Type.INTEGER,
        sets="schedule.epochs",
        maximum=10_000,
    ),
    Parameter(
        name="minutes",
        title="Minutes",
        help="Training time in minutes, instead of epochs. Empty: the preset's value, 5 for `tiny` and no limit for "
        "the others.",
        group="Schedule",
        type=Type.NUMBER,
        sets="schedule.minutes",
        maximum=10_080,  # a week
    ),
    Parameter(
        name="batch-size",
        title="Batch size",
        help="Images per batch. More need more memory. Empty: the preset's value.",
        group="Schedule",
        type=Type.INTEGER,
        sets="data.batch_size",
        maximum=1024,
    ),
    Parameter(
        name="learning-rate",
        title="Learning rate",
        help="Peak learning rate, except of the backbone. Empty: the preset's value.",
        group="Schedule",
        type=Type.NUMBER,
        visibility=Visibility.EXPERT,
        sets="optimizer.lr",
    ),
    Parameter(
        name="seed",
        title="Seed",
        help="Seed of the random split, initial weights, order of images and augmentation.",
        group="Schedule",
        type=Type.INTEGER,
        default="42",
        visibility=Visibility.EXPERT,
        sets="training.seed",
    ),
    Parameter(
        name="sys-node-pool",
        title="Node pool",
        help="Machines that run the model. Empty only if the installation has no node pools.",
        group="Machine",
        type=Type.NODE_POOL,
        role=Role.NODE_POOL,
    ),
    Parameter(
        name="gpu-count",
        title="GPUs",
        help="GPUs to request, at most the pool's limit. Training uses one; 0 trains on the CPU.",
        group="Machine",
        type=Type.INTEGER,
        default="1",
        visibility=Visibility.EXPERT,
        minimum=0,
        maximum=16,
    ),
    Parameter(
        name=prepare_pods.PARAMETER,
        title="Pods that prepare the data",
        help=f"Pods that share the checks of the images and the writing of the set. `{prepare_pods.AUTO}`: one, and "
        f"from {prepare_pods.SHARED_FROM_BYTES // 10**9} GB on one per {prepare_pods.BYTES_PER_POD // 10**9} GB, at "
        f"most {prepare_pods.MOST_PODS}. The prepared set is the same. `run-local` always uses one process.",
        group="Machine",
        type=Type.CHOICE,
        default=prepare_pods.AUTO,
        visibility=Visibility.EXPERT,
        choices=prepare_pods.CHOICES,
    ),
    Parameter(
        name="overrides",
        title="Configuration overrides",
        help="`key=value` pairs of the job's configuration, separated by spaces or line breaks, such as "
        "`model.queries=300 data.max_size=800`. Quote a value that contains spaces.",
        group="Expert",
        type=Type.TEXT,
        visibility=Visibility.EXPERT,
    ),
    Parameter(
        name="device",
        title="Device",
        help="`cuda` fails without a GPU, so that no run spends hours on a CPU by mistake; `auto` uses a GPU if there "
        "is one, otherwise the CPU.",
        group="Expert",
        type=Type.CHOICE,
        default="cuda",
        visibility=Visibility.EXPERT,
        choices=("cuda", "auto", "cpu"),
    ),
    Parameter(
        name="cvat-subject",
        title="Tasks or project",
        help="Tasks or project in CVAT: `task:8,task:9` or `project:3`. The form in CVAT fills it in.",
        group="Expert",
        type=Type.TEXT,
        default=None,
        visibility=Visibility.HIDDEN,
        role=Role.SUBJECT,
    ),
    Parameter(
        name="cvat-grant",
        title="Permission",
        help="Permission to use the tasks, signed by the bridge to CVAT: for whom, and until when. The form in CVAT "
        "fills it in.",
        group="Expert",
        type=Type.TEXT,
        default=None,
        visibility=Visibility.HIDDEN,
        role=Role.GRANT,
    ),
    Parameter(
        name="weights",
        title="Weights",
        help="Names of published weights, separated by spaces: `detr-workflows weights list` lists them. Weights that "
        "the store has are left as they are.",
        group="Weights",
        type=Type.TEXT,
        default=" ".join(FOR_GPU),
        visibility=Visibility.EXPERT,
        role=Role.WEIGHTS,
    ),
    Parameter(
        name="cvat-output-path",
        title="Output prefix",
        help="Prefix below the store. Each run writes to its own folder below it.",
        group="Expert",
        type=Type.KEY,
        default="workflow-data/output",
        visibility=Visibility.EXPERT,
        role=Role.OUTPUT,
    ),
    Parameter(
        name="store",
        title="Store",
        help="Root of everything that runs read and write: `s3://bucket/prefix` or `file:///folder`.",
        group="Expert",
        type=Type.LOCATION,
        default=None,
        visibility=Visibility.HIDDEN,
        role=Role.STORE,
    ),
)

BY_NAME: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _ALL}


def _without(*names: str) -> tuple[Parameter, ...]:
    return tuple(parameter for parameter in _ALL if parameter.name not in names)


def _only(*names: str) -> tuple[Parameter, ...]:
    return tuple(parameter for parameter in _ALL if parameter.name in names)


_OF_CVAT = ("cvat-subject", "cvat-grant")
_NOT_FOR_TRAINING = (
    "trained-model", "prepared-set", "split", "threshold", "existing-shapes", "repeated-boxes", "weights",
)  # fmt: skip

WEIGHTS_TEMPLATE = "detr-weights"
"""The template that brings published weights into the store. It starts no run, so CVAT does not offer it."""

PARAMETERS: tuple[Parameter, ...] = _without(*_NOT_FOR_TRAINING, *_OF_CVAT)
"""The parameters of a training run."""

TEMPLATES: Mapping[str, tuple[Parameter, ...]] = {
    "detr-train": PARAMETERS,
    "detr-prepare": _only(
        "cvat-annotation-path", "cvat-test-path", "annotation-format", "classes", "class-map", "val-fraction",
        "automatic-boxes", "seed", "prepare-pods", "cvat-output-path", "store",
    ),
    "detr-evaluate": _only(
        "trained-model", "prepared-set", "split", "sys-node-pool", "gpu-count", "device",
        "cvat-output-path", "store",
    ),
    WEIGHTS_TEMPLATE: _only("weights", "store"),
    # A user who clicks in CVAT has a task, and rarely a second export.
    "cvat-train": tuple(
        replace(one, visibility=Visibility.EXPERT) if one.name == "cvat-test-path" else one
        for one in _without(*_NOT_FOR_TRAINING, "cvat-annotation-path")
    ),
    "detr-annotate": _only(
        "trained-model", "threshold", "existing-shapes", "repeated-boxes", "sys-node-pool", "gpu-count", "device",
        *_OF_CVAT, "cvat-output-path", "store",
    ),
}  # fmt: skip
"""Name of a workflow template → its parameters, in the order of the form."""

BRIDGE_TEMPLATES = ("cvat-train", "detr-annotate")
"""The templates that use CVAT. They are installed only together with the bridge to CVAT."""


def parse(texts: Mapping[str, str], parameters: Sequence[Parameter] = PARAMETERS) -> dict[str, Value]:
    """Validate the given texts, fill in defaults and return the typed values by name.

    Raises ConfigError: one line for each mistake.
    """
    values, mistakes = parse_valid(texts, parameters)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return values


def parse_valid(texts: Mapping[str, str], parameters: Sequence[Parameter]) -> tuple[dict[str, Value], list[str]]:
    """The typed values of all valid texts and defaults by name, and one sentence for each mistake."""
    known = [parameter.name for parameter in parameters]
    mistakes = [unknown_name(name, known) for name in texts if name not in known]
    values: dict[str, Value] = {}
    for parameter in parameters:
        try:
            values[parameter.name] = parse_value(parameter, texts.get(parameter.name, parameter.default or ""))
        except ConfigError as error:
            mistakes.append(str(error))
    mistakes += _two_lengths(values)
    return values, mistakes


def _two_lengths(values: Mapping[str, Value]) -> list[str]:
    """A sentence if the length of training is set twice, by parameters or in `overrides`."""
    lengths = [name for name in ("epochs", "minutes") if values.get(name) is not None]
    if len(lengths) > 1:
        return ["epochs and minutes: set one of them and leave the other empty."]
    if not lengths:
        return []
    try:
        pairs = split_overrides(str(values.get("overrides") or ""))
    except ConfigError:  # said where the overrides are read
        return []
    if other := next((pair for pair in pairs if _sets_length(pair)), ""):
        return [f"{lengths[0]} and overrides: {_short(other)} sets the length of training too; set one of them."]
    return []


def _sets_length(pair: str) -> bool:
    """Whether a `key=value` of `overrides` sets the length of training, alone or with the whole section."""
    key, _, text = pair.partition("=")
    section, _, name = key.partition(".")
    if section != "schedule":
        return False
    if name:
        return name in LENGTHS
    from run_config.yaml_text import read_yaml  # forms read this module without yaml

    try:
        content = read_yaml(text, pair)
    except ConfigError:  # said where the overrides are read
        return False
    return isinstance(content, dict) and not LENGTHS.isdisjoint(content)


def parse_value(parameter: Parameter, text: str) -> Value:
    """Parse the text of one parameter. None: an optional parameter without a default is empty.

    Raises ConfigError: naming the parameter, when the value is invalid.
    """
    text = text.replace("\r\n", "\n").strip()
    if "{{" in text:
        # Argo would replace it as a tag.
        raise ConfigError(f"{parameter.name}: a value must not contain '{{{{'.")
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        raise ConfigError(f"{parameter.name}: {_short(text)} has a control character; type it again.")
    if not text:
        if parameter.required:
            raise ConfigError(f"{parameter.name} is missing: {_expected(parameter)}.")
        return parameter.default or None
    match parameter.type:
        case Type.INTEGER | Type.NUMBER:
            return _number(parameter, text)
        case Type.CHOICE:
            return _choice(parameter, text)
        case Type.TEXT:
            return _text(parameter, text)
        case Type.NODE_POOL | Type.SET_ID:
            return _name(parameter, text)
        case _:
            return _locations(parameter, text)


def lines(value: Value) -> tuple[str, ...]:
    """The entries of a `locations` value, without blank lines."""
    return tuple(line.strip() for line in str(value or "").splitlines() if line.strip())


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Parse `name=value` options into a mapping of name to text.

    Raises ConfigError: when an option has another form, or a name is given twice.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"-p {_short(text)} is not of the form name=value.")
        if name in given:
            raise ConfigError(f"-p {name} is given twice.")
        given[name] = value
    return given


def split_overrides(text: str) -> tuple[str, ...]:
    """Split a text into `key=value` pairs at blanks and line ends. Quotes keep blanks together.

    Raises ConfigError: when a quote is not closed, or a word is not key=value.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"overrides: {_short(text)} has a quote that is not closed.") from error
    for word in words:
        if not re.match(r"[A-Za-z_][\w.]*=", word):
            raise ConfigError(f"overrides: {_short(word)} is not of the form key=value.")
    return words


def overrides_of(texts: Mapping[str, str]) -> list[str]:
    """The configuration keys that the parameters set, as `key=value`. The pairs of `overrides` come last.

    Raises ConfigError: when the text of `overrides` cannot be parsed.
    """
    single = [f"{one.sets}={texts[one.name]}" for one in BY_NAME.values() if one.sets and texts.get(one.name)]
    return [*single, *split_overrides(texts.get("overrides", ""))]


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The error message for an unknown parameter."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    return f"{_short(name)} is not a parameter; {hint}"


def _number(parameter: Parameter, text: str) -> int | float:
    wanted = f"{parameter.name} must be {_expected(parameter)}, not {_short(text)}."
    value: int | float
    if parameter.type is Type.INTEGER:
        # More digits are always out of bounds, and Python refuses to parse thousands of them.
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ConfigError(wanted)
        value = int(text)
    else:
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            raise ConfigError(wanted)
        value = float(text)
    limits = parameter.limits
    too_small = limits.minimum is not None and (
        value < limits.minimum or (limits.above_minimum and value == limits.minimum)
    )
    too_large = limits.maximum is not None and value > limits.maximum
    if too_small or too_large or not math.isfinite(value):
        raise ConfigError(wanted)
    return value


def _choice(parameter: Parameter, text: str) -> str:
    if text in parameter.choices or text.endswith(parameter.file_suffixes or ("\0",)):
        return text
    near = difflib.get_close_matches(text, parameter.choices, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{parameter.name} must be {_expected(parameter)}, not {_short(text)}.{hint}")


def _text(parameter: Parameter, text: str) -> str:
    if parameter.role is Role.SUBJECT and not _SUBJECT.fullmatch(text):
        raise ConfigError(f"{parameter.name} must be {_expected(parameter)}, not {_short(text)}.")
    if parameter.role is Role.WEIGHTS:
        for name in names_in(text):
            try:
                published(name, ALL_LICENCES)
            except ConfigError as error:
                raise ConfigError(f"{parameter.name}: {error}") from error
    return text


def _name(parameter: Parameter, text: str) -> str:
    if not (POOL_NAME if parameter.type is Type.NODE_POOL else _SET_ID).fullmatch(text):
        raise ConfigError(f"{parameter.name} must be {_expected(parameter)}, not {_short(text)}.")
    return text


def _locations(parameter: Parameter, text: str) -> str:
    if parameter.type is Type.LOCATIONS:
        return "\n".join(_location(parameter, line) for line in lines(text))
    if "\n" in text:
        raise ConfigError(f"{parameter.name}: {_short(text)} has more than one line; give one.")
    return _location(parameter, text)


def _location(parameter: Parameter, text: str) -> str:
    """Check a URL, path or key without opening it. The store is returned without a trailing slash."""
    if parameter.role is Role.STORE and "://" not in text:
        raise ConfigError(f"{parameter.name} must be {_expected(parameter)}, not {_short(text)}.")
    if parameter.type is Type.KEY and text.endswith("/"):
        # Templates append the run's name with a slash and cannot remove a second one.
        raise ConfigError(f"{parameter.name}: {_short(text)} must not end with a slash.")
    try:
        if parameter.type is Type.KEY:
            return key_to_write(text)
        url = resolve(text, "file:///store")
    except ConfigError as error:
        raise ConfigError(f"{parameter.name}: {error}.") from error
    return url if parameter.role is Role.STORE else text


_WANTED = {
    Type.KEY: "a prefix below the store",
    Type.TEXT: "text",
    Type.NODE_POOL: "the name of a node pool (lower-case letters, digits and dashes)",
    Type.SET_ID: "the id of a prepared set",
}


_FILLED_IN = {
    Role.SUBJECT: "tasks or one project of CVAT, such as task:8,task:9 or project:3",
    Role.GRANT: "the permission from the form in CVAT; start the run from CVAT",
    Role.WEIGHTS: "names of published weights, separated by spaces",
}


def _expected(parameter: Parameter) -> str:
    """A description of the valid values, for use in a sentence."""
    if parameter.role in _FILLED_IN:
        return _FILLED_IN[parameter.role]
    if parameter.type in _WANTED:
        return _WANTED[parameter.type]
    if parameter.type is Type.CHOICE:
        also = " or a .yaml file" if parameter.file_suffixes else ""
        return f"one of {shortened(parameter.choices, 10)}{also}"
    if parameter.type in (Type.INTEGER, Type.NUMBER):
        return f"{'a whole number' if parameter.type is Type.INTEGER else 'a number'} {parameter.limits.words()}"
    if parameter.role is Role.STORE:
        return "s3://bucket/prefix or file:///folder"
    return "an s3:// or file:// URL, or a key below the store"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
