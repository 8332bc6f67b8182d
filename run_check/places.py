"""The places that a run names, looked at without reading the data: is it there, is it what it should be."""

import tempfile
import uuid
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.formats.registry import recognise
from data_prep.sources.find import find_source
from data_prep.sources.names import source_places
from object_store import NoSuchKey, ObjectStore, open_store
from run_check.errors import CheckError
from run_config.json_text import load_json
from run_config.locations import resolve

PATIENCE_S = 10.0
"""How long an unreachable store is asked again; a retry of the step comes cheaper."""

RUN = "run.json"
MAX_RUN_BYTES = 16 << 20
ZIP_BEGINS = b"PK\x03\x04"
MODEL_CONFIG = ("config.json", "model/config.json")


def opened(url: str) -> ObjectStore:
    """The store at `url`, asked no longer than a check may take."""
    return open_store(url, retry_for_s=PATIENCE_S)


def try_to_write(store: ObjectStore, folder: str) -> None:
    """Put and delete a small object where the run will write."""
    key = f"{folder}/check-{uuid.uuid4().hex}"
    store.put_bytes(key, b"data-prep check was here")
    store.delete(key)


def require_same_workflow(store: ObjectStore, folder: str, workflow_uid: str) -> None:
    """A folder that another workflow has written to is not ours, though the name is the same."""
    try:
        content = store.get_bytes(f"{folder}/{RUN}", end=MAX_RUN_BYTES)
    except NoSuchKey:
        return
    try:
        other = load_json(content).get("workflow_uid", "")
    except (ValueError, AttributeError) as error:
        raise CheckError(f"{store.url}/{folder}/{RUN} is damaged: choose another output prefix") from error
    if other != workflow_uid:
        raise CheckError(
            f"{store.url}/{folder} belongs to another workflow (uid {other or 'none'}, this is "
            f"{workflow_uid or 'none'}): choose another output prefix or name"
        )


def source(line: str, store: str) -> str:
    """An export that is there, can be read and looks like one."""
    (place,) = source_places([line], store)
    found = find_source(place)
    if found.local is not None:
        with found.open(Path(tempfile.gettempdir())) as files:
            recognise(files).own_files(files)
    elif found.is_zip:
        _begins_as_zip(place)
    return f"{line}, {found.size_bytes / 1e6:,.1f} MB"


def _begins_as_zip(url: str) -> None:
    """Reading takes another permission than listing; four bytes show both that and the format."""
    folder, _, key = url.rpartition("/")
    if opened(folder).get_bytes(key, start=0, end=len(ZIP_BEGINS)) != ZIP_BEGINS:
        raise SourceError(f"{url} is not a zip: export the task again")


def checkpoint(text: str, store: str) -> str:
    """A file of weights, or the `model/` folder of a run."""
    url = resolve(text, store).rstrip("/")
    if _is_file(url) or _is_model(url):
        return url
    raise CheckError(f"there is no checkpoint at {url}: give the model/ folder of an earlier run, or a file of weights")


def model_folder(text: str, store: str) -> str:
    """The `model/` folder of a run, or the run's own."""
    url = resolve(text, store).rstrip("/")
    if _is_model(url):
        return url
    raise CheckError(f"there is no model at {url} (no config.json): give the model/ folder of a finished run")


def backbone(url: str, store: str) -> str:  # noqa: ARG001 - one signature for all places
    """A file of ImageNet weights, at a URL or a path on this machine: the job takes no key for it."""
    if _is_file(url):
        return url
    raise CheckError(f"there is no file {url}: put the weights of the backbone there, or leave the key out")


def prepared_set(store: ObjectStore, set_id: str, split: str) -> str:
    """A set that is complete and has images in the split."""
    # Imported here: it brings libraries for images, which no other check needs.
    from prepared_set.reader import PreparedSet

    manifest = PreparedSet.open(store, set_id).manifest
    counts = manifest.counts.get(split)
    if counts is None or not counts.images:
        there = ", ".join(name for name, each in manifest.counts.items() if each.images)
        raise CheckError(f"the prepared set {set_id} has no images in {split}: choose another split (it has {there})")
    return f"{set_id}, {counts.images:,} images in {split}"


def _is_file(url: str) -> bool:
    folder, slash, name = url.rpartition("/")
    return opened(folder or slash or ".").exists(name)


def _is_model(url: str) -> bool:
    folder = opened(url)
    return any(folder.exists(key) for key in MODEL_CONFIG)
