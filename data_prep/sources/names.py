"""Turn the sources that a person or a template names into places that can be opened."""

from collections.abc import Iterable
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.sources.files import printable
from run_config.locations import local_path, resolve
from run_config.parameters import lines


def source_places(texts: Iterable[str], store: str | None = None) -> tuple[str, ...]:
    """The local paths and URLs of sources. A text may hold several, one per line, or none.

    A line that is neither a URL nor an existing local path is a key below `store`, if that is given. Raises
    SourceError when the path does not exist, ConfigError when the line cannot be a key.
    """
    return tuple(_place(line, store) for text in texts for line in lines(text))


def _place(line: str, store: str | None) -> str:
    if "://" in line and not line.startswith("file://"):
        return line
    try:
        path = local_path(line) or Path(line).expanduser()
        if path.exists():
            return str(path)
    except (OSError, RuntimeError, ValueError) as error:  # the name is too long, or the home folder is unknown
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
