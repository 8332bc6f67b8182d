"""What a person or a template names as sources, as places that can be opened."""

from collections.abc import Iterable
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.sources.files import printable
from run_config.locations import local_path, resolve
from run_config.parameters import lines


def source_places(texts: Iterable[str], store: str | None = None) -> tuple[str, ...]:
    """The local paths and URLs of sources; a text may hold several, one a line, or none.

    What is neither a URL nor a path on this machine is a key below `store`, where there is one.
    Raises SourceError when nothing is there on this machine, ConfigError for what cannot be a key.
    """
    return tuple(_place(line, store) for text in texts for line in lines(text))


def _place(line: str, store: str | None) -> str:
    if "://" in line and not line.startswith("file://"):
        return line
    try:
        path = local_path(line) or Path(line).expanduser()
        if path.exists():
            return str(path)
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that nobody has
        raise SourceError(f"{printable(line)} cannot be a path ({error}): check the path") from error
    if store is None or line.startswith(("/", ".", "~", "file://")):
        raise SourceError(f"there is no file or folder {printable(line)}: check the path")
    url = resolve(line, store)
    below = local_path(url)
    if below is None:
        return url
    if not below.exists():
        raise SourceError(
            f"there is no file or folder {printable(line)}, neither here nor below the store {store}: check the path"
        )
    return str(below)
