"""JSON of others is read strictly, and what is wrong with it is one sentence."""

import pytest

from run_config.errors import ConfigError
from run_config.json_text import DEEPEST, read_json


def test_what_is_right_is_read() -> None:
    assert read_json(b'{"a": [1, 2.5, "\xc3\xa9", null, true], "b": {}}', "it") == {
        "a": [1, 2.5, "é", None, True],
        "b": {},
    }
    assert read_json("[" * DEEPEST + "]" * DEEPEST, "it")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "it: the key 'c' is given twice; keep one of them"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "it is nested too deeply; 64 levels are allowed"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply; 64 levels are allowed"),
        (b'{"a":' * 100_000, "it is nested too deeply; 64 levels are allowed"),
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
def test_what_is_wrong_is_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        read_json(content, "it")
