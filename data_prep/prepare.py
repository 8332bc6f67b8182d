"""Make a prepared set from sources: read, check, split and write it, or find the one made earlier."""

import itertools
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import msgspec

from data_prep.changes import ChangeLog, Reason
from data_prep.checks.class_choice import ClassChoice, choose_classes
from data_prep.checks.refusals import refuse_named
from data_prep.dataset import Dataset, build_dataset
from data_prep.export_reader import Export, ReadingRules, Watcher, check_share, read_export
from data_prep.formats.registry import FoundExport, find_exports, images_outside
from data_prep.set_writer import add_warnings, describe, set_id, write_set, write_shards_of
from data_prep.shared_work import Share, SharedWork, Stage
from data_prep.sources.files import ExportFiles
from data_prep.sources.find import Source, find_source
from object_store import AccessDenied, NoSuchKey, ObjectStore
from prepared_set.errors import SetError
from prepared_set.manifest import FORMAT_VERSION, Manifest, Options
from prepared_set.reader import PreparedSet
from run_config.cvat_formats import AUTO
from run_config.installation import MAX_IMAGE_PIXELS, load_installation

# Increase this when the same sources would give a different set: pointers written by older code are then
# ignored.
RULES_VERSION = 10

MAX_POINTER_BYTES = 64

DrawReport = Callable[[Dataset, Manifest], bytes]


@dataclass(frozen=True)
class PrepareRequest:
    """What the user asked for: sources to split, and sources whose split is given."""

    pool: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    rules: ReadingRules = field(default_factory=ReadingRules)
    choice: ClassChoice = field(default_factory=ClassChoice)


@dataclass(frozen=True)
class LocatedRequest:
    """A request whose sources were found but not read yet."""

    pool: tuple[Source, ...]
    val: tuple[Source, ...]
    test: tuple[Source, ...]
    options: Options
    rules: ReadingRules
    choice: ClassChoice

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources of the request."""
        return self.pool + self.val + self.test

    @property
    def pointer_key(self) -> str:
        """Key in the store that points from these sources, in their current state, to the set made from them."""
        files = [
            sorted((file.key, file.size_bytes, file.etag) for source in sources for file in source.files)
            for sources in (self.pool, self.val, self.test)
        ]
        limits = self.rules.limits
        rules: list[object] = [self.rules.box_form, limits.by_name, *([limits.refuse] if limits.refuse else [])]
        if self.rules.format != AUTO or self.choice:
            rules += [self.rules.format, self.choice]
        seconds = [(one.second.folder, one.second.state, one.second.problem) for one in self.sources if one.second]
        rules += [self.rules.automatic_boxes, sorted(seconds)]
        content = msgspec.json.encode([FORMAT_VERSION, RULES_VERSION, self.options, rules, files])
        return f"datasets/by-source/{sha256(content).hexdigest()[:32]}"

    @property
    def work_key(self) -> str:
        """The name of the folder in which pods share the work on these sources."""
        installation = load_installation()
        most_pixels = MAX_IMAGE_PIXELS if installation is None else installation.max_image_pixels
        content = msgspec.json.encode([self.pointer_key, version("detr-workflows"), most_pixels])
        return sha256(content).hexdigest()[:32]


def locate(request: PrepareRequest) -> LocatedRequest:
    """Find every source. Raises SourceError when one does not exist."""
    pool, val, test = (
        tuple(find_source(name, request.rules.format) for name in names)
        for names in (request.pool, request.val, request.test)
    )
    return LocatedRequest(
        pool,
        val,
        test,
        request.options,
        request.rules,
        request.choice,
    )


@dataclass(frozen=True)
class ReadExports:
    """The exports of a request."""

    pool: list[Export]
    val: list[Export]
    test: list[Export]


@contextmanager
def read_exports(
    found: LocatedRequest, watcher: Watcher, work: SharedWork | None = None
) -> Iterator[tuple[ReadExports, ChangeLog, Path]]:
    """Read and check the sources. Yields also a scratch folder; the sources stay open meanwhile.

    `work`: what pods have done. The sources are then read where they are.
    """
    changes = ChangeLog()
    with tempfile.TemporaryDirectory(prefix="data-prep-") as scratch, ExitStack() as opened:

        def read_all(sources: Sequence[Source]) -> list[Export]:
            return [
                export
                for source in sources
                for export in _read_one(source, Path(scratch), opened, changes, watcher, found.rules, work)
            ]

        groups = [read_all(sources) for sources in (found.pool, found.val, found.test)]
        if found.choice:
            chosen = iter(choose_classes([one for group in groups for one in group], found.choice, changes))
            groups = [list(itertools.islice(chosen, len(group))) for group in groups]
        yield ReadExports(*groups), changes, Path(scratch)


@contextmanager
def read_dataset(
    found: LocatedRequest, watcher: Watcher, work: SharedWork | None = None
) -> Iterator[tuple[Dataset, Path]]:
    """Read, check and split the sources. Yields also a scratch folder; the sources stay open meanwhile."""
    with read_exports(found, watcher, work) as (read, changes, scratch):
        dataset = build_dataset(read.pool, read.val, read.test, found.options, changes, found.rules.limits)
        refuse_named(changes, found.rules.limits)
        yield dataset, scratch


def _read_one(
    source: Source,
    scratch: Path,
    opened: ExitStack,
    changes: ChangeLog,
    watcher: Watcher,
    rules: ReadingRules,
    work: SharedWork | None,
) -> list[Export]:
    files, exports = _open(source, scratch, opened, watcher, rules, in_place=work is not None)
    for path in (*source.outside, *images_outside(files, exports)):
        changes.add(Reason.IMAGE_UNLISTED, path)
    # CVAT's export is the only one in its zip.
    second = source.second if len(exports) == 1 else None
    return [read_export(found, changes, watcher, rules, second, scratch, work) for found in exports]


def _open(
    source: Source, scratch: Path, opened: ExitStack, watcher: Watcher, rules: ReadingRules, *, in_place: bool
) -> tuple[ExportFiles, list[FoundExport]]:
    """The files of a source, open as long as `opened`, and the exports in it."""
    if source.local is None and not in_place:
        watcher.stage(f"fetching {source.name}", source.size_bytes, "bytes")
    files = opened.enter_context(source.open(scratch, watcher.advance, in_place=in_place))
    return files, find_exports(files, rules.format)


@dataclass(frozen=True)
class Prepared:
    """A set that is complete in the store."""

    manifest: Manifest
    was_there: bool
    """True when the set already existed."""


def prepare(
    request: PrepareRequest,
    store: ObjectStore,
    draw_report: DrawReport,
    watcher: Watcher | None = None,
    *,
    pods: int = 1,
) -> Prepared:
    """Make the prepared set of a request in the store, or return the existing one.

    `pods`: above 1, use what pods have left with `prepare_share`, and do the rest.
    """
    watcher = watcher or Watcher()
    found = locate(request)
    work = SharedWork(store, found.work_key) if pods > 1 else None
    known = _look_up(store, found)
    if known is not None:
        if work is not None:
            work.discard()
        with suppress(AccessDenied):  # with read-only access an existing set can still be used
            add_warnings(store, known)
        return Prepared(known, was_there=True)
    _try_store(store)
    with read_dataset(found, watcher, work) as (dataset, scratch):
        own_id = set_id(dataset, found.options)
        existing = _open_if_there(store, own_id)
        if existing is None:
            total = sum(image.source.checked.size_bytes for image in dataset.images)
            watcher.stage(f"storing {own_id}", total, "bytes")
            manifest = write_set(
                store,
                dataset,
                found.options,
                lambda manifest: draw_report(dataset, manifest),
                scratch,
                watcher.advance,
                work,
            )
    if existing is not None:
        add_warnings(store, existing)
    store.put_bytes(found.pointer_key, own_id.encode())
    if work is not None:
        work.discard()
    return Prepared(existing or manifest, was_there=existing is not None)


def prepare_share(request: PrepareRequest, store: ObjectStore, share: Share, watcher: Watcher | None = None) -> None:
    """Do one pod's share of a stage of `prepare`, and leave it in the store."""
    watcher = watcher or Watcher()
    found = locate(request)
    if _look_up(store, found) is not None:
        return
    _try_store(store)
    work = SharedWork(store, found.work_key)
    if share.stage is Stage.SHARDS:
        with read_dataset(found, watcher, work) as (dataset, scratch):
            if _open_if_there(store, set_id(dataset, found.options)) is None:
                write_shards_of(store, dataset, found.options, scratch, watcher.advance, work, share)
        return
    with tempfile.TemporaryDirectory(prefix="data-prep-") as scratch_name, ExitStack() as opened:
        for source in found.sources:
            _, exports = _open(source, Path(scratch_name), opened, watcher, found.rules, in_place=True)
            for export in exports:
                check_share(export, watcher, found.rules, work, share)


def _try_store(store: ObjectStore) -> None:
    """Write a small object where the set will go: an unwritable store fails before the sources are read."""
    key = f"datasets/check-{secrets.token_hex(8)}"
    store.put_bytes(key, b"data-prep prepare was here")
    with suppress(AccessDenied):  # sets are never deleted, so nobody needs the permission
        store.delete(key)


def inspect(request: PrepareRequest, draw_report: DrawReport, watcher: Watcher | None = None) -> tuple[Manifest, bytes]:
    """Run the same checks without a store. Returns the manifest that the set would have, and its report page."""
    found = locate(request)
    with read_dataset(found, watcher or Watcher()) as (dataset, _):
        manifest = describe(dataset, found.options)
        return manifest, draw_report(dataset, manifest)


def _look_up(store: ObjectStore, found: LocatedRequest) -> Manifest | None:
    try:
        own_id = store.get_bytes(found.pointer_key, end=MAX_POINTER_BYTES).decode(errors="replace")
    except NoSuchKey:
        return None
    return _open_if_there(store, own_id)


def _open_if_there(store: ObjectStore, own_id: str) -> Manifest | None:
    try:
        return PreparedSet.open(store, own_id).manifest
    except SetError:
        return None
