"""Download one file over HTTP, and continue where an interrupted download stopped.

The bytes are kept beside the target as `<target>.part`, with the server's ETag. httpx reads the usual proxy variables
(`HTTPS_PROXY`, `NO_PROXY`) and `SSL_CERT_FILE`.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from published_weights.errors import DownloadFailed, WeightsError

STALLED_S = 30.0
"""A connection without a byte for this long is broken."""
TRIES = 6
"""Attempts in a row that bring no new byte."""
FIRST_PAUSE_S = 1.0
MOST_BYTES = 4 << 30
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Incomplete(Exception):
    """The attempt failed; another one may help."""


def download(url: str, target: Path, say: Callable[[str], None]) -> None:
    """Write the file at `url` to `target`, which appears when it is complete.

    Raises WeightsError when the server has no such file or refuses it, and DownloadFailed when it is unreachable or
    breaks off too often; the next call continues.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    options: dict[str, Any] = {"timeout": httpx.Timeout(STALLED_S, connect=10.0), "follow_redirects": True}

    def stay_encrypted(request: httpx.Request) -> None:
        if url.lower().startswith("https:") and request.url.scheme != "https":
            raise WeightsError(f"{url}: redirected to {request.url.host} without encryption; nothing was downloaded")

    with part.open("a+b") as file, httpx.Client(**options, event_hooks={"request": [stay_encrypted]}) as client:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadFailed(f"{url}: another process is downloading it to {part}; wait for it") from error
        failed, said = 0, ""
        while True:
            before = _size(file)
            try:
                _attempt(client, url, file, target.with_name(f"{target.name}.etag"), say)
                break
            except (httpx.HTTPError, _Incomplete) as error:
                failed = 1 if _size(file) > before else failed + 1
                if failed >= TRIES:
                    raise DownloadFailed(
                        f"{url}: {_reason(error)}, {TRIES} times in a row; {_size(file):,} bytes are kept. Run the "
                        "same command again to continue, set HTTPS_PROXY or HF_ENDPOINT, or name a mirror or a folder "
                        "with --from; `weights import` stores a file that was fetched elsewhere"
                    ) from error
                message = f"{url}: {_reason(error)}; continuing after {_size(file):,} bytes"
                if message != said:
                    say(message)
                    said = message
                time.sleep(FIRST_PAUSE_S * 2 ** (failed - 1))
            except (httpx.InvalidURL, UnicodeError, ValueError) as error:
                raise WeightsError(f"{url}: not an address that can be downloaded: {error}") from error
        os.fsync(file.fileno())
        part.replace(target)
    target.with_name(f"{target.name}.etag").unlink(missing_ok=True)


def _attempt(client: httpx.Client, url: str, file: BinaryIO, etag: Path, say: Callable[[str], None]) -> None:
    """One request for the bytes that are still missing."""
    known = etag.read_text("utf-8") if etag.exists() else ""
    if not known:
        file.truncate(0)
    start = _size(file)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code in _TRY_AGAIN:
            raise _Incomplete(f"the server answers {answer.status_code}")
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            file.truncate(0)
            raise _Incomplete("the file on the server has another size than before")
        if not answer.is_success:
            raise WeightsError(f"{url}: the server answers {answer.status_code} {answer.reason_phrase}")
        total = _total(answer, start)
        if total is not None and total > MOST_BYTES:
            raise WeightsError(f"{url}: {total:,} bytes are more than a file of weights has; check the address")
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            file.truncate(0)
        tag = answer.headers.get("ETag", "")
        etag.write_text("" if tag.startswith("W/") else tag, "utf-8")
        told = time.monotonic()
        for chunk in answer.iter_raw():  # without a size: it would drop what arrived before the connection broke
            file.write(chunk)
            if file.tell() > MOST_BYTES:
                raise WeightsError(f"{url}: more bytes than a file of weights has; check the address")
            if time.monotonic() - told > 5:
                told = time.monotonic()
                say(f"{url}: {_size(file) / 1e6:,.0f}" + (f" of {total / 1e6:,.0f} MB" if total else " MB"))
        file.flush()
    if total is not None and _size(file) != total:
        raise _Incomplete(f"only {_size(file):,} of {total:,} bytes arrived")


def _total(answer: httpx.Response, start: int) -> int | None:
    """The size of the whole file; None if the server does not say."""
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        span = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != start:
            raise WeightsError(f"{answer.url}: the server sends another part of the file than was asked for")
        return int(span[2])
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _size(file: BinaryIO) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ConnectError) and str(error).startswith("[Errno -"):  # as the resolver numbers its own
        return "the name of the server is not known here, as without internet"
    return " ".join(str(error).split())[:150] or type(error).__name__
