"""JSON of others: what its parsers would take without a word is refused, and nothing makes the check itself slow."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_config.errors import ConfigError
from run_config.json_text import MAX_DEPTH, JsonError, check_json, load_json, read_json, utf8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": 1, "a": 2}', 'the key "a" is given twice'),
        ('[0, {"b": {"c": 1, "d": [1, 2], "c": "x"}}]', 'the key "c" is given twice'),
        ('{"id": 1, "\\u0069d": 2}', 'the key "id" is given twice'),
        ('{"é": 1, "\\u00e9" : 2}', 'the key "é" is given twice'),
        ("[" * 1000 + "]" * 1000, "nested too deeply"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "nested too deeply"),
    ],
)
def test_keys_given_twice_and_deep_nesting_are_refused(text: str, sentence: str):
    with pytest.raises(JsonError, match=sentence):
        check_json(text.encode())
    with pytest.raises(ValueError, match=sentence):
        load_json(text)


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"a": 2}]',
        '{"a": {"a": 1}, "b": "a:", "c": "{\\"a\\": 1", "d": ["a", "a"]}',
        '{"a\\\\": 1, "a": 2}',
        '{"bbox": [1, 2, 3, 4], "area": 1}',
        "[" * 100 + "]" * 100,
    ],
)
def test_what_only_looks_like_it_is_taken(text: str):
    assert load_json(text) == json.loads(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_any_value_is_read_as_python_reads_it(value: object, ascii_only: bool, indent: int | None):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert load_json(text) == value


@given(st.lists(st.tuples(st.text(max_size=3), VALUES), min_size=1, max_size=5))
def test_a_repeated_key_is_found_wherever_it_stands(members: list[tuple[str, object]]):
    text = "{" + ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in members) + "}"
    repeated = len({key for key, _ in members}) < len(members)
    try:
        check_json(text.encode())
    except JsonError:
        assert repeated
    else:
        assert not repeated


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 5_000_000, b'{"a' * 2_000_000, b"[" * 99 + b'"' * 5_000_001])
def test_no_text_makes_the_check_slow(text: bytes):
    """A check that goes back for every character would need hours, and the suite's time limit would end it."""
    with contextlib.suppress(JsonError):
        check_json(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_in_any_encoding_of_unicode_is_read(encoding: str):
    assert utf8('{"a": "é"}'.encode(encoding)) == '{"a": "é"}'.encode()


def test_json_of_a_program_is_read() -> None:
    assert read_json(b'{"a": [1, 2.5, "\xc3\xa9", null, true], "b": {}}', "it") == {
        "a": [1, 2.5, "é", None, True],
        "b": {},
    }
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "it")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', 'it: the key "c" is given twice'),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), r"it: it is nested too deeply \(more than 100 levels\)"),
        (b"[" * 100_000 + b"]" * 100_000, r"it: it is nested too deeply \(more than 100 levels\)"),
        (b'{"a":' * 100_000, r"it: it is nested too deeply \(more than 100 levels\)"),
        (b'{"a": NaN}', "it: NaN is not a JSON number"),
        (b"[-Infinity]", "it: -Infinity is not a JSON number"),
        (b'{"a": "\xff"}', r"it is not UTF-8 text \(byte 7\)"),
        ("[1]".encode("utf-16"), r"it is not UTF-8 text \(byte 0\)"),
        (b"[" + b"9" * 5_000 + b"]", "it is not JSON: Exceeds the limit"),
        (b"", "it is not JSON: Expecting value"),
        (b'{"a": 1} x', "it is not JSON: Extra data"),
        (b"\xef\xbb\xbf{}", "it is not JSON: Unexpected UTF-8 BOM"),
    ],
)
def test_what_is_wrong_with_json_of_a_program_is_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        read_json(content, "it")
