"""`data-prep check`: everything that can be known in seconds before a run costs hours.

Parameters, configuration, sources, checkpoint, and whether the store takes what the run will write.
Nothing of the data is read beyond names: `prepare` looks into it.
"""

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.errors import DataPrepError, SourceError
from data_prep.export_layout import find_annotation_files
from data_prep.source_names import source_places
from data_prep.sources import find_source
from object_store import NoSuchKey, ObjectStore, StoreError, StoreUnavailable, open_store
from run_config.errors import ConfigError
from run_config.locations import resolve
from run_config.parameters import Value, lines, parse, split_overrides
from run_config.presets import load_job_config

PATIENCE_S = 10.0
"""How long an unreachable store is asked again; a retry of the step comes cheaper."""

RUN = "run.json"
ZIP_BEGINS = b"PK\x03\x04"
MODEL_CONFIG = ("config.json", "model/config.json")


class CheckError(DataPrepError):
    """What was given is wrong, or cannot be used: one sentence a line."""


def texts_from_json(content: str) -> dict[str, str]:
    """Parameters from Argo's `{{workflow.parameters.json}}`, [{"name", "value", …}], or from an object.

    Raises ConfigError: neither of them.
    """
    try:
        tree = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"--parameters-json is not JSON: {error}") from error
    if isinstance(tree, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in tree):
        # A parameter without a value has not been given.
        tree = {one["name"]: one["value"] for one in tree if one.get("value") is not None}
    if not isinstance(tree, dict):
        raise ConfigError("--parameters-json must be a list of names and values, or an object of them")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in tree.items()}


def check(texts: Mapping[str, str], run: str, workflow_uid: str = "") -> list[str]:
    """Check the parameters of the run called `run` and say what was found, a sentence each.

    Raises ConfigError for values that are wrong by themselves; CheckError for places that are, with one
    sentence each; StoreUnavailable when a store cannot be reached and nothing else is wrong.
    """
    values = parse(texts)
    mistakes = _Mistakes()
    findings = []
    with mistakes.collected():
        findings.append(_configuration(values))
    mistakes.stop_here()
    store = open_store(str(values["store"]), retry_for_s=PATIENCE_S)
    folder = f"{values['cvat-output-path']}/{run}"
    with mistakes.collected("cvat-output-path"):
        _writable(store, folder)
        findings.append(f"output: {store.url}/{folder}")
        _same_workflow(store, folder, workflow_uid)
    mistakes.stop_here()
    for name in ("cvat-annotation-path", "cvat-test-path"):
        for line in lines(values[name]):
            with mistakes.collected(name):
                findings.append(f"{name}: {_source(line, store.url)}")
    if values["cvat-finetune-checkpoint"]:
        with mistakes.collected("cvat-finetune-checkpoint"):
            findings.append(f"start from: {_checkpoint(str(values['cvat-finetune-checkpoint']), store.url)}")
    mistakes.stop_here()
    return findings


class _Mistakes:
    """Sentences gathered so that a person can mend all of them at once."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._unavailable: StoreUnavailable | None = None

    @contextlib.contextmanager
    def collected(self, parameter: str = "") -> Iterator[None]:
        """Note what is wrong inside the block, under the parameter's name."""
        try:
            yield
        except StoreUnavailable as error:
            self._unavailable = self._unavailable or error
        except (ConfigError, DataPrepError, StoreError) as error:
            self._sentences.append(f"{parameter}: {error}" if parameter else str(error))

    def stop_here(self) -> None:
        """Raise what was noted. Wrong input comes before faults that pass: a retry would not mend it."""
        if self._sentences:
            raise CheckError("\n".join(self._sentences))
        if self._unavailable is not None:
            raise self._unavailable


def _configuration(values: Mapping[str, Value]) -> str:
    """The preset or file with the overrides, as the job will read them."""
    model = str(values["model"])
    load_job_config(model, split_overrides(str(values["overrides"] or "")))
    return f"model: {model}"


def _writable(store: ObjectStore, folder: str) -> None:
    """Put and delete a small object where the run will write."""
    key = f"{folder}/check-{uuid.uuid4().hex}"
    store.put_bytes(key, b"data-prep check was here")
    store.delete(key)


def _same_workflow(store: ObjectStore, folder: str, workflow_uid: str) -> None:
    """A folder that another workflow has written to is not ours, though the name is the same."""
    try:
        content = store.get_bytes(f"{folder}/{RUN}")
    except NoSuchKey:
        return
    try:
        other = json.loads(content).get("workflow_uid", "")
    except (ValueError, AttributeError) as error:
        raise CheckError(f"{store.url}/{folder}/{RUN} is damaged: choose another output prefix") from error
    if other != workflow_uid:
        raise CheckError(
            f"{store.url}/{folder} belongs to another workflow (uid {other or 'none'}, this is "
            f"{workflow_uid or 'none'}): choose another output prefix or name"
        )


def _source(line: str, store: str) -> str:
    """An export that is there, can be read and looks like one."""
    (place,) = source_places([line], store)
    source = find_source(place)
    if source.local is not None:
        with source.open(Path(tempfile.gettempdir())) as files:
            find_annotation_files(files.sizes, line)
    elif source.is_zip:
        _begins_as_zip(place)
    else:
        find_annotation_files({file.key.removeprefix(f"{place}/"): file.size_bytes for file in source.files}, line)
    return f"{line}, {source.size_bytes / 1e6:,.1f} MB"


def _begins_as_zip(url: str) -> None:
    """Reading takes another permission than listing; four bytes show both that and the format."""
    folder, _, key = url.rpartition("/")
    if open_store(folder, retry_for_s=PATIENCE_S).get_bytes(key, start=0, end=len(ZIP_BEGINS)) != ZIP_BEGINS:
        raise SourceError(f"{url} is not a zip: export the task again")


def _checkpoint(text: str, store: str) -> str:
    """A file of weights, or the `model/` folder of a run."""
    url = resolve(text, store).rstrip("/")
    folder, _, name = url.rpartition("/")
    if open_store(folder, retry_for_s=PATIENCE_S).exists(name):
        return url
    inside = open_store(url, retry_for_s=PATIENCE_S)
    if any(inside.exists(key) for key in MODEL_CONFIG):
        return url
    raise CheckError(f"there is no checkpoint at {url}: give the model/ folder of an earlier run, or a file of weights")
