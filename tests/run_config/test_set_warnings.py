"""`warnings.json` of a prepared set: five short sentences at most, whatever the data is."""

import pytest

from run_config.set_warnings import MAX_BYTES, MOST_CHARACTERS, SetWarnings, decode, encode, key_of


def test_the_first_five_are_kept_in_their_order_with_the_number_of_all():
    texts = [f"warning {number}" for number in range(8)]
    assert decode(encode(texts)) == SetWarnings(tuple(texts[:5]), 8)
    assert decode(encode([])) == SetWarnings((), 0)


def test_hostile_names_make_no_large_file():
    content = encode(["\U0001f600\n" * 100_000] * 100_000)
    assert len(content) < MAX_BYTES
    read = decode(content)
    assert read is not None
    assert (len(read.first), read.total) == (5, 100_000)
    assert all(len(one) <= MOST_CHARACTERS and "\n" not in one for one in read.first)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"format": 2}',
        b'{"format": 1}',
        b'{"format": 1, "warnings": "x", "total": 1}',
    ],
)
def test_a_damaged_file_is_no_warning(content: bytes):
    assert decode(content) is None


@pytest.mark.parametrize("name", ["", "../x", "0123456789abcdef/../x", "0123456789ABCDEF", "0" * 17])
def test_only_ids_of_sets_have_a_key(name: str):
    assert key_of(name) == ""
    assert key_of("0123456789abcdef") == "datasets/0123456789abcdef/warnings.json"
