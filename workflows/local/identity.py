"""The identity of a local run: its name, its uid, and a lock while it is running."""

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from run_config.locations import local_path, resolve
from run_config.parameters import BY_NAME, Role, Type, lines
from run_config.weights.automatic import AUTO
from workflows.errors import RunningElsewhereError, WorkflowError

ADDED_LATER = frozenset({"annotation-format", "automatic-boxes", "class-map", "classes", "prepare-pods"})


def run_name(template: str, values: Mapping[str, str]) -> str:
    """A name such as `detr-train-0f3a…`: equal parameters and equal local inputs give equal names.

    Local files are compared by size and modification time: a new export at the same path is another run. `auto` of
    `cvat-finetune-checkpoint` counts as empty, which means the same and was the default of earlier releases. Parameters
    that earlier releases did not have count only with another value than their default.
    """
    values = {
        name: "" if _is_automatic_start(name, text) else text
        for name, text in values.items()
        if name not in ADDED_LATER or text != BY_NAME[name].default
    }
    stamps = {name: _stamps(name, text, values.get("store", "")) for name, text in values.items()}
    content = json.dumps([template, dict(values), stamps], sort_keys=True)
    return f"{template}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def run_uid(run_url: str) -> str:
    """The uid of the run at this URL. It stays the same when a run is resumed."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, run_url))


@contextlib.contextmanager
def only_one(folder: Path, name: str) -> Iterator[int]:
    """Hold the lock of a run inside the block, and yield its file descriptor. Processes that inherit it keep the lock.

    Raises RunningElsewhereError: when another process, or a step that it left running, holds the lock.
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            owner = path.read_text()
        raise RunningElsewhereError(
            f"{name} is already running (process {owner or 'unknown'}): wait for it, or stop it with Ctrl-C there"
        ) from None
    except OSError as error:
        raise WorkflowError(f"cannot write below {folder}: {error.strerror}; choose another --scratch") from error
    try:
        show_owner(descriptor, os.getpid())
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def show_owner(lock: int, process: int) -> None:
    """Write the process id that is shown to those who find the lock held. `lock`: its file descriptor."""
    os.truncate(lock, 0)
    os.pwrite(lock, str(process).encode(), 0)


def _open_locked(path: Path) -> int:
    """Open and lock the file that has this name now: the previous owner may just have removed its file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_automatic_start(name: str, text: str) -> bool:
    return name in BY_NAME and BY_NAME[name].role is Role.FINETUNE_CHECKPOINT and text == AUTO


def _stamps(name: str, text: str, store: str) -> list[str]:
    """Sizes and modification times of the local inputs that a parameter names."""
    parameter = BY_NAME.get(name)
    if parameter is None or parameter.role is Role.STORE or not text:
        return []
    if parameter.type in (Type.LOCATION, Type.LOCATIONS):
        paths = [local_path(resolve(line, store)) for line in lines(text)]
    elif parameter.file_suffixes and text.endswith(parameter.file_suffixes):
        paths = [Path(text)]
    else:
        return []
    return [_stamp(path) for path in paths if path is not None]


def _stamp(path: Path) -> str:
    files = [path]
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    count, size_bytes, newest_ns = 0, 0, 0
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            count, size_bytes = count + 1, size_bytes + status.st_size
            newest_ns = max(newest_ns, status.st_mtime_ns)
    return f"{count} files, {size_bytes} bytes, {newest_ns}"
