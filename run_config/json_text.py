"""Read JSON from other programs, and refuse what parsers accept silently or cannot handle.

Parsers silently keep the last of duplicate keys, and thousands of nested levels cause a RecursionError. One pass over
the bytes finds both without building objects.
"""

import json
import re
from typing import Any, NoReturn

from run_config.errors import ConfigError

MAX_DEPTH = 100
MAX_KEYS = 1_000_000
"""Limit for one object, since all keys of an object are in memory while it is checked."""

# A key, a string or a bracket; then everything up to the next one, including flat lists of numbers.
_TOKEN = re.compile(
    rb'(?:"((?:[^"\\]++|\\.)*+)(?:"(?:[ \t\r\n]*+(:))?|\Z)|([{\[])|[\]}])(?:[^\[\]{}"]++|\[[^\[\]{}"]*+\])*+', re.DOTALL
)


class JsonError(ValueError):
    """A JSON text is refused. The message does not name the text."""


def check_json(data: bytes) -> None:
    """Check for duplicate keys, too many keys and too deep nesting. Text that is not JSON is left to the parser.

    Raises JsonError: when one of these is found.
    """
    above: list[set[bytes] | None] = []
    keys: set[bytes] | None = None
    for found in _TOKEN.finditer(data):
        match found.lastindex:
            case 2:
                if keys is None:
                    continue
                key = found[1]
                if b"\\" in key:
                    key = _plain(key)
                if key in keys:
                    raise JsonError(f'the key "{_shown(key)}" is given twice')
                keys.add(key)
                if len(keys) > MAX_KEYS:
                    raise JsonError(f"an object has more than {MAX_KEYS:,} keys")
            case 3:
                above.append(keys)
                if len(above) > MAX_DEPTH:
                    raise JsonError(f"it is nested too deeply (more than {MAX_DEPTH} levels)")
                keys = set() if found[3] == b"{" else None
            case None:  # a closing bracket
                keys = above.pop() if above else None


def load_json(text: str | bytes) -> Any:  # noqa: ANN401 - a JSON value
    """Parse JSON. Raises ValueError: when it is not JSON, or `check_json` refuses it (JsonError, a ValueError)."""
    check_json(utf8(text))
    return json.loads(text)


def read_json(content: bytes | str, where: str) -> Any:  # noqa: ANN401 - a JSON value
    """Parse JSON in UTF-8 that a program sent. NaN, Infinity and a byte order mark are refused too.

    Raises ConfigError: beginning with `where`, when the text is refused.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        check_json(text.encode())
        return json.loads(text, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text (byte {error.start})") from error
    except JsonError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error


def _constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not a JSON number")


def utf8(text: str | bytes) -> bytes:
    """Return the JSON text as UTF-8 without a byte order mark. Raises ValueError: when it is not text."""
    if isinstance(text, str):
        return text.encode()
    encoding = json.detect_encoding(text)
    return text if encoding == "utf-8" else text.decode(encoding).encode()


def _plain(key: bytes) -> bytes:
    """Decode the escapes of a key."""
    try:
        return str(json.loads(b'"%b"' % key)).encode("utf-8", "surrogatepass")
    except ValueError:
        return key  # the parser reports the error


def _shown(key: bytes) -> str:
    text = key.decode("utf-8", "backslashreplace")
    return text if len(text) <= 60 else f"{text[:60]}…"
