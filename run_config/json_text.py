"""JSON that others wrote: what parsers take without a word, or choke on, is refused before they see it.

A key given twice would be lost without a word (parsers keep the last), and thousands of levels end in a
RecursionError. One pass over the bytes finds both, and builds nothing.
"""

import json
import re
from typing import Any, NoReturn

from run_config.errors import ConfigError

MAX_DEPTH = 100
MAX_KEYS = 1_000_000
"""Of one object: all keys of an object are in memory while it is checked."""

# A key, a string, or a bracket; then everything up to the next of them, flat lists of numbers included.
_TOKEN = re.compile(
    rb'(?:"((?:[^"\\]++|\\.)*+)(?:"(?:[ \t\r\n]*+(:))?|\Z)|([{\[])|[\]}])(?:[^\[\]{}"]++|\[[^\[\]{}"]*+\])*+', re.DOTALL
)


class JsonError(ValueError):
    """What is wrong with a JSON text, without its name."""


def check_json(data: bytes) -> None:
    """JsonError: an object has a key twice or too many keys, or values are nested too deeply.

    What is no JSON at all is left to the parser.
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
    """The value. ValueError (JsonError is one): it is no JSON, or `check_json` refuses it."""
    check_json(utf8(text))
    return json.loads(text)


def read_json(content: bytes | str, where: str) -> Any:  # noqa: ANN401 - a JSON value
    """The value of JSON in UTF-8, as programs send it: NaN, Infinity and a byte order mark are refused too.

    Raises ConfigError, beginning with `where`.
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
    """The same in UTF-8, without a byte order mark. ValueError: it is no text."""
    if isinstance(text, str):
        return text.encode()
    encoding = json.detect_encoding(text)
    return text if encoding == "utf-8" else text.decode(encoding).encode()


def _plain(key: bytes) -> bytes:
    """A key as its reader will see it, without escapes."""
    try:
        return str(json.loads(b'"%b"' % key)).encode("utf-8", "surrogatepass")
    except ValueError:
        return key  # the parser will say what is wrong


def _shown(key: bytes) -> str:
    text = key.decode("utf-8", "backslashreplace")
    return text if len(text) <= 60 else f"{text[:60]}…"
