"""Bring the weights of the catalogue into a store: from their publisher, a mirror, or a file."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from object_store import NoSuchKey, ObjectStore, open_store
from published_weights.errors import WeightsError, joined
from published_weights.stored import Card, new_card, write
from run_config.weights.catalogue import HUGGING_FACE, PublishedFile, PublishedWeights

ENDPOINT = "HF_ENDPOINT"
"""Environment variable with the address of a mirror of Hugging Face, which is then asked first."""


def pull(store: ObjectStore, entry: PublishedWeights, mirror: str, cache: Path, say: Callable[[str], None]) -> Card:
    """Fetch, check and store an entry of the catalogue.

    mirror: a URL or folder that holds the published paths; empty: the publishers. cache: folder for downloads, in which
    an interrupted one is continued.

    Raises WeightsError when no place has the right file, and DownloadFailed when one of them may have it later.
    """
    failures: list[WeightsError] = []
    for url, file in _places(entry, mirror, os.environ):
        try:
            say(f"{entry.name}: {url}")
            return _from_url(store, entry, url, file, cache, say)
        except WeightsError as error:
            failures.append(error)
    raise joined(failures)


def _places(
    entry: PublishedWeights, mirror: str, environment: Mapping[str, str]
) -> Iterator[tuple[str, PublishedFile]]:
    endpoint = environment.get(ENDPOINT, "")
    files = entry.files
    if endpoint and not mirror:
        files = tuple(sorted(files, key=lambda file: file.host != HUGGING_FACE))
    for file in files:
        host = mirror or (endpoint if file.host == HUGGING_FACE and endpoint else file.host)
        yield f"{host.rstrip('/')}/{file.path}", file


def _from_url(
    store: ObjectStore, entry: PublishedWeights, url: str, file: PublishedFile, cache: Path, say: Callable[[str], None]
) -> Card:
    # The name tells files of one path on different hosts apart.
    local = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{Path(file.path).name}"
    try:
        if url.startswith(("http://", "https://")):
            from published_weights.download import download

            download(url, local, say)
        else:
            _copy(url, local)
        return keep(store, entry, local, source=url, published=file)
    finally:
        local.unlink(missing_ok=True)


def keep(
    store: ObjectStore, entry: PublishedWeights, path: Path, *, source: str, published: PublishedFile | None = None
) -> Card:
    """Check a file and store its tensors. Raises WeightsError, before it stores anything, for another file.

    published: the file that it should be, with the authors' checksums.
    """
    from published_weights.arrays import read_arrays
    from published_weights.layout import fitted

    try:
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            content.seek(0)
            md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    wanted = (("MD5", md5, published.md5), ("SHA-256", sha256, published.sha256)) if published else ()
    for kind, own, authors in wanted:
        if not own.startswith(authors):
            raise WeightsError(
                f"{source}: its {kind} is {own}, the authors publish {authors}: it is damaged or another file; "
                "nothing was stored"
            )
    tensors = fitted(read_arrays(path, source), entry.preset, len(entry.classes), source)
    return write(store, tensors, new_card(entry, source, sha256=sha256, md5=md5, published=published))


def import_file(store: ObjectStore, entry: PublishedWeights, place: str) -> Card:
    """Store the weights of a file that somebody brought: a local path, or a URL of a store.

    The file may be any of the entry's. Its checksum decides whether it is the authors'. Raises WeightsError.
    """
    if "://" not in place:
        path = Path(place).expanduser()
        return keep(store, entry, path, source=str(path.absolute()), published=_known(path, entry))
    with tempfile.TemporaryDirectory() as local:
        path = Path(local) / place.rpartition("/")[2]
        _copy(place, path)
        return keep(store, entry, path, source=place, published=_known(path, entry))


def _copy(url: str, path: Path) -> None:
    """Copy a file from a store. Raises WeightsError when it is not there."""
    folder, _, name = url.rpartition("/")
    try:
        open_store(folder).get_file(name, path)
    except NoSuchKey as error:
        raise WeightsError(f"{url}: there is no such file") from error


def _known(path: Path, entry: PublishedWeights) -> PublishedFile | None:
    """The published file of the same form."""
    return next((file for file in entry.files if Path(file.path).suffix == path.suffix), None)
