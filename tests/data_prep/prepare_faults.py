"""Disturbs `prepare` at a moment that chance chooses, and sees that no half set is taken for whole.

Each fault has the exit codes that are right for it; 0 is, where the set may have been whole before the fault met it.
"""

import contextlib
import errno
import http.client
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

from data_prep.prepare import Prepared, PrepareRequest, prepare
from data_prep.set_writer import _HashingWriter
from object_store import ObjectStore, open_store
from prepared_set.errors import SetError
from prepared_set.manifest import Manifest, Options
from prepared_set.reader import PreparedSet
from tests.data_prep.export_builder import simple_export, write_zip
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_error

CRASHED = 70
"""Exit code of a child for an exception that is not meant for a person."""
FAULTS_ON_S3: dict[str, tuple[Callable[[], Reply], int]] = {
    "credentials expire": (lambda: s3_error(400, "ExpiredToken"), 2),
    "store unreachable": (lambda: Reply(503, cut_after=0), 75),
}
"""What the store answers from some request on, and the exit code that is right for it."""


class Disturbed:
    """An export, and what an undisturbed `prepare` makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = write_zip(folder / "export.zip", simple_export(20))
        self._request = PrepareRequest((str(source),), options=Options(shard_bytes=20_000))
        self.run(open_store(folder / "warm"))
        start = time.monotonic()
        self.expected: Manifest = self.run(open_store(folder / "undisturbed")).manifest
        self.seconds = time.monotonic() - start

    def run(self, store: ObjectStore) -> Prepared:
        """Prepare the export."""
        return prepare(self._request, store, lambda *_: b"the report has tests of its own")

    def exit_code(self, store: ObjectStore) -> int:
        """The exit code of the command line for preparing the export. Raises what keeps its traceback there."""
        try:
            self.run(store)
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if not isinstance(code, int):
                raise
            return code
        return 0

    def is_there(self, store: ObjectStore) -> bool:
        """Whether the store has the set. Raises when it has it and it is not whole."""
        try:
            found = PreparedSet.open(store, self.expected.id)
        except SetError as error:
            if "there is no prepared set" not in str(error):
                raise
            return False
        assert found.manifest == self.expected
        found.pull(self.folder / "pulled" / os.urandom(8).hex())  # verifies each file
        return True

    def check_after(self, store: ObjectStore) -> None:
        """The set is whole or absent, and the same command makes it whole."""
        was_there = self.is_there(store)
        assert self.run(store).was_there == was_there
        assert self.is_there(store)

    def fork(self, store: ObjectStore, disk_bytes: int | None = None) -> int:
        """Prepare in a new process, and return its id."""
        child = os.fork()
        if not child:
            code = CRASHED
            with contextlib.suppress(BaseException), disk_of(disk_bytes):
                code = self.exit_code(store)
            os._exit(code)
        return child


@contextlib.contextmanager
def disk_of(size_bytes: int | None) -> Iterator[None]:
    """Writing a file fails after so many bytes, as on a full disk. None: never."""
    left = size_bytes

    def spend(data: bytes | memoryview) -> None:
        nonlocal left
        if left is not None:
            left -= len(data)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pwrite, write = os.pwrite, _HashingWriter.write

    def to_store(fd: int, data: memoryview, offset: int) -> int:
        spend(data)
        return pwrite(fd, data, offset)

    def to_scratch(self: _HashingWriter, data: bytes) -> None:
        spend(data)
        write(self, data)

    with mock.patch("os.pwrite", to_store), mock.patch.object(_HashingWriter, "write", to_scratch):
        yield


def _killed(case: Disturbed, store: ObjectStore, chance: random.Random) -> None:
    child = case.fork(store)
    time.sleep(chance.uniform(0, 1.3 * case.seconds))
    os.kill(child, signal.SIGKILL)
    assert _ending(child) in {-signal.SIGKILL, 0}


def _killed_beside_another(case: Disturbed, store: ObjectStore, chance: random.Random) -> None:
    children = [case.fork(store), case.fork(store)]
    time.sleep(chance.uniform(0, 2.6 * case.seconds))
    os.kill(children[0], signal.SIGKILL)
    assert _ending(children[0]) in {-signal.SIGKILL, 0}
    assert _ending(children[1]) == 0
    assert case.is_there(store)


def _two_at_once(case: Disturbed, store: ObjectStore, _: random.Random) -> None:
    children = [case.fork(store), case.fork(store)]
    assert [_ending(child) for child in children] == [0, 0]
    assert case.is_there(store)


def _disk_full(case: Disturbed, store: ObjectStore, chance: random.Random) -> None:
    total = sum(path.stat().st_size for path in (case.folder / "undisturbed").rglob("*") if path.is_file())
    code = _ending(case.fork(store, chance.randrange(2 * total)))
    assert code in {0, 2}, code


FAULTS: dict[str, Callable[[Disturbed, ObjectStore, random.Random], None]] = {
    "SIGKILL": _killed,
    "two at once": _two_at_once,
    "two at once, SIGKILL": _killed_beside_another,
    "disk full": _disk_full,
}


def _ending(child: int) -> int:
    """The exit code of a process, or its signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def failing_from(number: int, failure: Callable[[], Reply], server: AnsweringServer, upstream: str) -> None:
    """Let the server pass requests on to another one, and answer with the failure from the request `number` on."""
    server.requests.clear()
    server.kept_bytes = None
    server.answer = lambda request: (
        failure() if len(server.requests) > number else _passed_on(request, urlsplit(upstream).netloc)
    )


def _passed_on(request: Request, to: str) -> Reply:
    connection = http.client.HTTPConnection(to)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        own = {"connection", "date", "server", "transfer-encoding"}
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in own}
        return Reply(answer.status, answer.read(), headers)
    finally:
        connection.close()
