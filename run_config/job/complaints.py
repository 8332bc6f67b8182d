"""Turn pydantic's validation errors into sentences that name the key and the value, in words of this project."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from run_config.job.keys import Key, keys, shown

SHOWN_CHARACTERS = 60

# The end of the sentence "<key> must be …", by pydantic's type of error.
_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list, such as [1, 2]",
    "model_type": "a group of keys",
    "dict_type": "a group of keys",
    "greater_than": "above {gt:.10g}",
    "greater_than_equal": "at least {ge:.10g}",
    "less_than": "below {lt:.10g}",
    "less_than_equal": "at most {le:.10g}",
    "literal_error": "{expected}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length}",
}


def sentences(error: ValidationError, family: str) -> Iterator[str]:
    """Yield one sentence for each wrong key. `family` is the model family of the configuration."""
    known = keys()
    by_key: dict[str, list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        by_key.setdefault(_name(item, known), []).append(item)
    for name, items in by_key.items():
        first = items[0]
        if first["type"] == "extra_forbidden":
            yield _unknown(name, family, known)
            continue
        if first["type"] == "missing":  # a list of fixed length; all keys have defaults
            yield f"{name} has too few items: {_short(first['input'])}"
            continue
        wanted = [_WANTED[item["type"]].format(**item.get("ctx", {})) for item in items if item["type"] in _WANTED]
        given = _short(first["input"])
        if wanted:
            yield f"{name or 'the file'} must be {' or '.join(dict.fromkeys(wanted))}, not {given}"
        else:
            message = first["msg"].removeprefix("Value error, ")
            yield f"{name}: {message}" if name else message


def _name(item: ErrorDetails, known: tuple[Key, ...]) -> str:
    """The dotted key, without pydantic's suffixes for list items and union members."""
    names = {key.name for key in known}
    parts: list[str] = []
    for part in item["loc"]:
        if ".".join(parts) in names:
            break
        parts.append(str(part))
    return ".".join(parts)


def _unknown(name: str, family: str, known: tuple[Key, ...]) -> str:
    own = [key.name for key in known if key.family in ("", family)]
    other = next((key.family for key in known if key.name == name and key.name not in own), "")
    if other:
        return f"{name} belongs to models of the family {other}, and this one is {family}"
    if name in own:
        section, _, key = name.partition(".")
        return f"{name} is one word: in a file write `{section}: {{{key}: …}}`"
    last = name.rpartition(".")[2]
    same_last = [each for each in own if each.rpartition(".")[2] == last]
    by_last = {each.rpartition(".")[2]: each for each in own}
    sections = {key.partition(".")[0] for key in own} if "." not in name else ()
    near = (
        same_last
        or difflib.get_close_matches(name, sections, 1, cutoff=0.7)
        or difflib.get_close_matches(name, own, 1, cutoff=0.7)
        or [by_last[each] for each in difflib.get_close_matches(last, by_last, 1, cutoff=0.6)]
    )
    return f"unknown key {name}" + (f"; did you mean {near[0]}?" if near else "; see docs/configuration.md")


def _short(value: Any) -> str:  # noqa: ANN401 - any value of the file
    text = shown(value) if isinstance(value, bool) or value is None else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
