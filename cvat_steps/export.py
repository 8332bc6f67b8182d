"""The step `export`: export CVAT tasks or a project to zips in the store. Each zip is verified.

    <store>/<exports.prefix>/<kind>-<id>/<run>/dataset.zip         CVAT's export, unchanged
                                               dataset.json        written last: format, request, size and ETag
                                               annotations.zip     the second export (`run_config.second_export`)
                                               annotations.json    its mark

`dataset.json` marks `dataset.zip` as complete. A retried step skips a marked zip, verifies and marks an unmarked
one, and otherwise waits for the export that is still running in CVAT.

The second export has no images and follows the first. The step succeeds without it: its mark then says why.
"""

import contextlib
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cvat_client.api import BackgroundRequest, CvatApi, StartedExport
from cvat_client.connection import one_line
from cvat_client.errors import BridgeError, CvatRefusedError
from cvat_client.patience import Pace, Patience
from cvat_client.settings import BridgeSettings
from cvat_client.subject import Kind, Subject
from cvat_steps.export_progress import ExportProgress
from cvat_steps.export_zip import problem_of_zip
from object_store import NoSuchKey, ObjectStore
from run_config.cvat_formats import COCO, CVAT_IMAGES
from run_config.errors import ConfigError
from run_config.json_text import read_json
from run_config.second_export import (
    DATASET_NAME,
    SECOND_MARK_NAME,
    SECOND_NAME,
    FileState,
    SecondMark,
    read_second_mark,
)

MARK_NAME = "dataset.json"
SECOND_LONGEST_S = 1800.0
"""The step does not wait longer than this for a second export, which has no images."""
MOST_ATTEMPTS = 5
"""The step fails after so many finished exports without a valid zip."""
_NO_BUCKET = re.compile(r"resource\b.{1,300}\bnot found", re.DOTALL)
"""CVAT's message about a bucket that it cannot reach, also if its proxy refuses the address."""

_RUN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class SubjectExport:
    """One zip to export: of one task or one project."""

    kind: Kind
    number: int
    format: str
    prefix: str
    """Key prefix below the store, used by this run only."""
    zip_name: str = DATASET_NAME
    with_images: bool = True

    @property
    def name(self) -> str:
        """The name in messages, such as `task 8`."""
        return f"{self.kind} {self.number}"

    @property
    def key(self) -> str:
        """Key of the zip below the store."""
        return f"{self.prefix}/{self.zip_name}"

    @property
    def second(self) -> "SubjectExport":
        """The export of the same annotations without images, with the details that COCO lacks."""
        return replace(self, format=CVAT_IMAGES, zip_name=SECOND_NAME, with_images=False)


def planned(subject: Subject, run: str, format_name: str, prefix: str) -> list[SubjectExport]:
    """The exports for a subject. BridgeError: `run` is not a workflow name."""
    if not _RUN.fullmatch(run) or ".." in run:
        raise BridgeError(f"--run must be a workflow's name, small letters, digits and dashes, not {run[:80]!r}")
    return [
        SubjectExport(subject.kind, number, format_name, f"{prefix.strip('/')}/{subject.kind}-{number}/{run}")
        for number in subject.ids
    ]


def url_of(store: ObjectStore, key: str) -> str:
    """The URL of an object, in the form that the next step expects."""
    return f"{store.url}/{quote(key) if store.url.startswith('file://') else key}"


class ExportStep:
    """Exports to the store, one after the other: CVAT runs one export per account at a time."""

    def __init__(
        self, settings: BridgeSettings, api: CvatApi, store: ObjectStore, progress: ExportProgress, pace: Pace
    ) -> None:
        self._api, self._store, self._progress, self._pace = api, store, progress, pace
        self._patience = Patience(settings.exports.save_for_s, pace, progress.say)
        self._longest_s = settings.exports.longest_s
        self._storage = settings.cvat.cloud_storage_id if store.url.startswith("s3://") else None
        self._storage_checked = False

    def bring(self, exports: Sequence[SubjectExport], user: str, *, seconds: bool = False) -> None:
        """Export everything that is not yet in the store. `seconds`: also the second export of each in COCO."""
        for export in exports:
            if not self._is_marked(export):
                # A second export is never older than the first, even if the first has the same bytes again.
                self._discard_second(export)
                rq_id = self._bring_one(export)
                self._mark(export, rq_id, user)
            if seconds and export.format == COCO:
                self._bring_second(export)
            self._progress.one_is_done()

    def _bring_second(self, first: SubjectExport) -> None:
        """Put the second export and its mark beside the first. A failure is noted in the mark."""
        second, mark_key = first.second, f"{first.prefix}/{SECOND_MARK_NAME}"
        dataset = self._state(first.key)
        with contextlib.suppress(NoSuchKey):
            mark = read_second_mark(self._store.get_bytes(mark_key))
            if mark and (mark.dataset, mark.annotations) == (dataset, self._state(second.key)):
                return
        self._discard_second(first)
        try:
            self._bring_one(second)
            done = SecondMark(dataset, self._state(second.key))
        except BridgeError as error:
            self._progress.say(
                f"{first.name}: there is no second export ({error}); the run continues, but does not know which boxes "
                "a model drew"
            )
            done = SecondMark(dataset, None, one_line(str(error)))
        self._store.put_bytes(mark_key, done.to_json())

    def _discard_second(self, first: SubjectExport) -> None:
        for key in (f"{first.prefix}/{SECOND_MARK_NAME}", first.second.key):
            if self._store.exists(key):
                self._store.delete(key)

    def _state(self, key: str) -> FileState:
        info = self._store.head(key)
        return FileState(info.size_bytes, info.etag)

    def _is_marked(self, export: SubjectExport) -> bool:
        """Whether a mark exists and matches the zip. If it does not match, both are deleted."""
        mark_key = f"{export.prefix}/{MARK_NAME}"
        try:
            text = self._store.get_bytes(mark_key)
            info = self._store.head(export.key)
        except NoSuchKey:
            return False
        try:
            mark = read_json(text, mark_key)
        except ConfigError:
            mark = None
        wanted: Mapping[str, Any] = mark if isinstance(mark, dict) else {}
        same = (wanted.get("format"), wanted.get("size_bytes"), wanted.get("etag"))
        if same == (export.format, info.size_bytes, info.etag):
            self._progress.say(f"{export.name}: {DATASET_NAME} exists already ({_megabytes(info.size_bytes)})")
            return True
        self._progress.say(f"{export.name}: {DATASET_NAME} does not match its mark; exporting again")
        self._store.delete(export.key)
        self._store.delete(mark_key)
        return False

    def _mark(self, export: SubjectExport, rq_id: str, user: str) -> None:
        info = self._store.head(export.key)
        content = {
            "version": 1,
            "subject": f"{export.kind}:{export.number}",
            "user": user,
            "format": export.format,
            "rq_id": rq_id,
            "size_bytes": info.size_bytes,
            "etag": info.etag,
        }
        self._store.put_bytes(f"{export.prefix}/{MARK_NAME}", json.dumps(content, indent=1).encode())
        self._progress.say(f"{export.name}: exported, {_megabytes(info.size_bytes)}")

    def _bring_one(self, export: SubjectExport) -> str:
        """Export until a valid zip is at the key. Returns the id of CVAT's request ("": from an earlier attempt).

        If the same export is already running for another user (409), wait for it and then request the export again.
        """
        problem = self._problem(export)
        if not problem:
            self._progress.say(f"{export.name}: {export.zip_name} of an earlier attempt is complete")
            return ""
        attempts = 0
        until, pauses = time.monotonic() + self._longest_of(export), self._pace.pauses()
        while attempts < MOST_ATTEMPTS:
            started = self._start(export)
            request = self._wait(export, started.rq_id, until, ours=started.is_ours)
            problem = self._fetch(export, request) if self._storage is None and started.is_ours else ""
            # Checked also if the request was not ours: an earlier attempt of this step may have started it.
            problem = problem or self._problem(export)
            if not problem:
                return started.rq_id
            # Checked after the zip: another run may have reused the request id after our request ended.
            if request is not None and request.status == "failed" and started.is_ours:
                raise CvatRefusedError(
                    f"CVAT could not export {export.name} as {export.format!r}: "
                    f"{one_line(request.message) or 'it does not say why'}{self._meaning(request.message)}"
                )
            if started.is_ours:
                attempts += 1
                self._progress.say(f"{export.name}: CVAT has finished, but {problem}; exporting again")
            else:
                self._rest(export, next(pauses), until)
        where = (
            "the log of CVAT's export worker"
            if self._storage is None
            else f"that CVAT's cloud storage {self._storage} has this bucket's endpoint"
        )
        raise CvatRefusedError(
            f"CVAT has finished the export of {export.name} {MOST_ATTEMPTS} times, but {problem} "
            f"({url_of(self._store, export.key)}): check {where}"
        )

    def _meaning(self, message: str) -> str:
        """What to do about messages of CVAT that do not name their cause. Empty for all others."""
        if self._storage is None or not _NO_BUCKET.search(message):
            return ""
        return (
            f". CVAT does not reach the bucket of its cloud storage {self._storage}: either the bucket does not exist "
            "at the storage's endpoint, or CVAT's proxy (smokescreen) refuses the endpoint's private address: set "
            "SMOKESCREEN_OPTS=--allow-range=… in CVAT, see docs/cvat.md"
        )

    def _start(self, export: SubjectExport) -> StartedExport:
        """Request the export from CVAT: to our key in its cloud storage, or for download."""
        self._check_storage()
        images = "with images" if export.with_images else "without images"
        self._progress.say(f"{export.name}: asking CVAT for {export.format!r} {images}")
        key = "" if self._storage is None else self._key_in_bucket(export.key)
        return self._patience.ask(
            lambda: self._api.start_export(
                export.kind,
                export.number,
                export.format,
                save_images=export.with_images,
                storage=self._storage,
                key=key,
            )
        )

    def _check_storage(self) -> None:
        """Check that CVAT's cloud storage is the store's bucket. Otherwise exports would finish elsewhere."""
        if self._storage is None or self._storage_checked:
            return
        found = self._patience.ask(lambda: self._api.get(f"cloudstorages/{self._storage}"))
        kind, bucket = str(found.get("provider_type")), str(found.get("resource"))
        ours, _ = self._bucket_and_prefix()
        if (kind, bucket) != ("AWS_S3_BUCKET", ours):
            raise BridgeError(
                f"CVAT's cloud storage {self._storage} is {one_line(bucket)!r} ({one_line(kind)}), but the store's "
                f"bucket is {ours!r}: set cvat.cloudStorageId to a cloud storage with this bucket, or to none"
            )
        self._storage_checked = True

    def _key_in_bucket(self, key: str) -> str:
        _, prefix = self._bucket_and_prefix()
        return f"{prefix}/{key}" if prefix else key

    def _bucket_and_prefix(self) -> tuple[str, str]:
        # Not urlsplit: a key may contain `?` or `#`.
        bucket, _, prefix = self._store.url.removeprefix("s3://").partition("/")
        return bucket, prefix

    def _longest_of(self, export: SubjectExport) -> float:
        return self._longest_s if export.with_images else min(self._longest_s, SECOND_LONGEST_S)

    def _rest(self, export: SubjectExport, pause_s: float, until: float) -> None:
        """Sleep, but not beyond `until`: if CVAT's worker died, its export stays in the state started."""
        if time.monotonic() + pause_s > until:
            raise BridgeError(
                f"CVAT has not finished the export of {export.name} within {self._longest_of(export) / 3600:.3g} h: "
                "look at CVAT's export worker and its queue (Requests in CVAT), then retry the run"
            )
        time.sleep(pause_s)

    def _wait(self, export: SubjectExport, rq_id: str, until: float, *, ours: bool) -> BackgroundRequest | None:
        """Wait until the request has ended. None: CVAT has deleted it, as it does some time after the end."""
        for pause in self._pace.pauses():
            request = self._patience.ask(lambda: self._api.request(rq_id))
            if request is None or request.has_ended:
                return request
            doing = "waits in CVAT's queue" if request.status == "queued" else "is exported by CVAT"
            if not ours:
                doing = f"{doing} for another run first"
            self._progress.still(f"{export.name} {doing}", f"{export.name} {doing}")
            self._rest(export, pause, until)
        raise AssertionError("pauses have no end")

    def _fetch(self, export: SubjectExport, request: BackgroundRequest | None) -> str:
        """Download the finished export and upload it to the store. Returns what went wrong, or an empty text."""
        if request is None or request.status != "finished" or not request.result_url:
            return "it has no file for download"
        name, result_url = export.name, request.result_url

        def reached(size_bytes: int, total_bytes: int) -> None:
            of = f" of {_megabytes(total_bytes)}" if total_bytes else ""
            part = size_bytes / total_bytes / 2 if total_bytes else 0.0
            self._progress.still(f"{name} comes", f"{name}: {_megabytes(size_bytes)}{of} downloaded from CVAT", part)

        with _disk_faults(name), tempfile.TemporaryDirectory(prefix="cvat-export-") as folder:
            file = Path(folder, export.zip_name)
            if not self._patience.ask(lambda: self._api.download(result_url, file, reached)):
                return "CVAT has deleted the file"
            if not zipfile.is_zipfile(file):
                return "it sent an incomplete zip"
            self._progress.still(
                f"{name} goes", f"{name}: uploading {_megabytes(file.stat().st_size)} to the store", 0.5
            )
            self._store.put_file(file, export.key)
        return ""

    def _problem(self, export: SubjectExport) -> str:
        """What is wrong with the object at the key. Empty: it is a valid zip."""
        try:
            problem = problem_of_zip(self._store, self._store.head(export.key))
        except NoSuchKey:
            return "there is no object at its key"
        return f"the object at its key is not a complete zip ({problem})" if problem else ""


@contextlib.contextmanager
def _disk_faults(name: str) -> Iterator[None]:
    """Turn disk errors into a BridgeError that says what to do."""
    try:
        yield
    except OSError as error:
        raise BridgeError(
            f"the export of {name} cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; give the "
            "step export more ephemeral storage, or let CVAT write to the bucket itself (cvat.cloudStorageId)"
        ) from error


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
