"""JSON from somebody else, read without surprises.

Against Python's json: a key given twice is refused, since the first would be lost without a word; so is text that
is nested deeply, which would end whoever walks through it; NaN and Infinity, which are no JSON; and bytes that are
not UTF-8. Whatever the parser raises becomes one ConfigError.
"""

import json
from typing import Any, NoReturn

from run_config.errors import ConfigError

DEEPEST = 64
"""More levels than any document has that is read here."""


class _RefusedError(ValueError):
    """What is refused although Python's json would take it."""


def read_json(content: bytes | str, where: str) -> Any:  # noqa: ANN401 - a JSON value
    """The one value in `content`. ConfigError, beginning with `where`, when it is not readable JSON."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text (byte {error.start})") from error
    except _RefusedError as error:
        raise ConfigError(f"{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply; {DEEPEST} levels are allowed") from error
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    if _is_deep(tree):
        raise ConfigError(f"{where} is nested too deeply; {DEEPEST} levels are allowed")
    return tree


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {twice[:100]!r} is given twice; keep one of them")
    return found


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON number")


def _is_deep(tree: object) -> bool:
    level = [tree]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _children(one)]
        if not level:
            return False
    return True


def _children(tree: object) -> list[Any]:
    if isinstance(tree, dict):
        return list(tree.values())
    return tree if isinstance(tree, list) else []
