"""Check that the places that a run names exist and have the right type, without reading the data."""

import difflib
import itertools
import os
import tempfile
import uuid
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.formats.registry import find_exports
from data_prep.sources.find import find_source
from data_prep.sources.names import source_places
from data_prep.sources.tar_archive import GZIP_BEGINS
from object_store import NoSuchKey, ObjectStore, open_store
from published_weights.start import missing
from published_weights.stored import CARD
from run_check.errors import CheckError
from run_config.cvat_formats import AUTO
from run_config.json_text import load_json
from run_config.locations import resolve
from run_config.wording import shortened

PATIENCE_S = 10.0
"""How long an unreachable store is retried. Retrying the whole step later is cheaper."""

RUN = "run.json"
MAX_RUN_BYTES = 16 << 20
MAX_LISTED = 10_000
"""Keys that are listed to name other runs."""
ARCHIVE_BEGINS = {"zip": b"PK\x03\x04", "tgz": GZIP_BEGINS, "gz": GZIP_BEGINS}
CONFIG = "config.json"
MODEL_CONFIG = (CONFIG, f"model/{CONFIG}")
BEST = "best"
"""The best weights so far of a run that is training or failed, as a model folder."""


def opened(url: str) -> ObjectStore:
    """The store at `url`, with the short retry time of a check."""
    return open_store(url, retry_for_s=PATIENCE_S)


def try_to_write(store: ObjectStore, folder: str) -> None:
    """Write and delete a small object where the run will write."""
    key = f"{folder}/check-{uuid.uuid4().hex}"
    store.put_bytes(key, b"data-prep check was here")
    store.delete(key)


def require_same_workflow(store: ObjectStore, folder: str, workflow_uid: str) -> None:
    """Refuse a run folder that another workflow with the same name has written to.

    Raises CheckError: when the folder belongs to another workflow, or its run.json is damaged.
    """
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


def source(line: str, store: str, chosen_format: str = AUTO, sizes: list[int] | None = None) -> str:
    """Check that an export exists, is readable and has the right format.

    `sizes`: gets its size in bytes, if pods can share it.
    """
    (place,) = source_places([line], store)
    found = find_source(place, chosen_format)
    if found.local is not None:
        with found.open(Path(tempfile.gettempdir())) as files:
            for export in find_exports(files, chosen_format):
                export.own_files()
    elif found.is_archive:
        _begins_as_archive(place)
    if sizes is not None and found.can_be_shared:
        sizes.append(found.size_bytes)
    return f"{line}, {found.size_bytes / 1e6:,.1f} MB"


def _begins_as_archive(url: str) -> None:
    """Check the first bytes: this tests the format and the permission to read, not only that to list."""
    folder, _, key = url.rpartition("/")
    kind = key.lower().rpartition(".")[2]
    head = opened(folder).get_bytes(key, start=0, end=4)
    # Old tars begin with a name and have no mark.
    if not head.startswith(ARCHIVE_BEGINS.get(kind, b"")) or not head:
        raise SourceError(f"{url} is not a {kind}: export the task again")


def checkpoint(text: str, store: str) -> str:
    """Check for a file of weights, the folder of a run or of its model, or published weights in the store."""
    url = resolve(text, store).rstrip("/")
    if _is_file(url) or _is_model(url) or any(opened(url).exists(key) for key in (f"{BEST}/{CONFIG}", CARD)):
        return url
    if unpulled := missing(url):
        raise CheckError(unpulled)
    here = "://" not in text and os.path.exists(text)  # noqa: PTH110 - Path raises for names that are too long
    elsewhere = f", and {text} in this folder is another place: write its full path" if here else ""
    beside = _models_beside(url) if url.startswith(f"{store}/") else ""
    raise CheckError(
        f"there is no checkpoint at {url}{elsewhere}: give the model/ folder of an earlier run, or a file of weights"
        f"{beside}"
    )


def _models_beside(url: str) -> str:
    """The folders beside `url` that hold a model, nearest names first: the end of a sentence, or ""."""
    folder, _, missed = url.rpartition("/")
    keys = (found.key for found in itertools.islice(opened(folder).list(), MAX_LISTED))
    ends = (f"model/{CONFIG}", f"{BEST}/{CONFIG}")
    runs = sorted({run for run, _, rest in (key.partition("/") for key in keys) if rest in ends})
    if not runs:
        return ""
    near = difflib.get_close_matches(missed, runs, len(runs), 0)
    return f"; runs with a model beside it: {shortened(near)}"


def model_folder(text: str, store: str) -> str:
    """Check for the `model/` folder of a run, or the run's own folder."""
    url = resolve(text, store).rstrip("/")
    if _is_model(url):
        return url
    raise CheckError(f"there is no model at {url} (no config.json): give the model/ folder of a finished run")


def backbone(url: str, store: str) -> str:  # noqa: ARG001 - one signature for all places
    """Check for a file of ImageNet weights, at a URL or a path on this machine. The job does not accept a key here."""
    if _is_file(url):
        return url
    raise CheckError(f"there is no file {url}: put the weights of the backbone there, or leave the key out")


def prepared_set(store: ObjectStore, set_id: str, split: str) -> str:
    """Check for a complete prepared set with images in the split."""
    # Imported here: it imports image libraries, which no other check needs.
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
