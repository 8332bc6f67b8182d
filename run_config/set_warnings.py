"""`warnings.json` of a prepared set: the most important warnings about its data, small enough for a page to read.

The service for CVAT reads this file, because it must not import `prepared_set`. The manifest has all warnings, and may
be large.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from run_config.errors import ConfigError
from run_config.json_text import read_json
from run_config.wording import cut

FORMAT = 1
KEY = "warnings.json"
MOST = 5
MOST_CHARACTERS = 500
MAX_BYTES = 64 << 10

_SET_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class SetWarnings:
    """The first warnings, most important first, and the number of all."""

    first: tuple[str, ...]
    total: int


def key_of(set_id: str) -> str:
    """The key below the store. Empty: this is not the id of a set."""
    return f"datasets/{set_id}/{KEY}" if _SET_ID.fullmatch(set_id) else ""


def encode(warnings: Sequence[str]) -> bytes:
    """The content of the file. warnings: all of them, most important first."""
    first = [cut(one, MOST_CHARACTERS) for one in warnings[:MOST]]
    return json.dumps({"format": FORMAT, "total": len(warnings), "warnings": first}, ensure_ascii=False).encode()


def decode(data: bytes) -> SetWarnings | None:
    """Read the file. None: it is damaged or of a newer release."""
    try:
        tree = read_json(data, KEY)
    except ConfigError:
        return None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        return None
    first, total = tree.get("warnings"), tree.get("total")
    if not isinstance(first, list) or not isinstance(total, int):
        return None
    texts = tuple(cut(str(one), MOST_CHARACTERS) for one in first[:MOST])
    return SetWarnings(texts, max(total, len(texts)))
