"""Which keys are let through, and that none of them leads out of a folder."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from object_store import InvalidKey, InvalidUrl, open_store
from object_store.keys import check_key, check_prefix, is_leftover, path_below

SEGMENTS = st.sampled_from(["..", ".", "", "a", "...", "..a", "~", "C:", "a b", "%2e%2e", "..\\", "\0", "ü", "-rf"])
KEYS = st.one_of(st.text(max_size=30), st.lists(SEGMENTS, max_size=6).map("/".join))


@given(KEYS)
@example("../" * 5 + "etc/passwd")
@example("a/..")
@example("//etc")
def test_a_key_that_passes_names_one_place_below_the_folder(key: str):
    try:
        check_key(key)
    except InvalidKey:
        return
    folder = "/some/folder"
    path = os.path.normpath(os.path.join(folder, key))  # noqa: PTH118 normpath is the judge here
    assert path == f"{folder}/{key}"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20), min_size=1))
def test_ordinary_keys_pass(parts: list[str]):
    segments = [part.replace("/", "-").replace("\\", "-") for part in parts]
    if any(segment in {".", ".."} for segment in segments):
        return
    key = "/".join(segments)
    if len(key.encode()) <= 1024:
        assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("/a", "starts with a slash"),
        ("a\\b", "backslash"),
        ("a\x7fb", "control character"),
        ("a//b", "empty part"),
        ("a/", "ends with a slash"),
        ("a/../b", "'..'"),
        ("a/.partial-0123456789abcdef", "unfinished file"),
        ("ü" * 513, "longer than 1024 bytes"),
    ],
)
def test_the_reason_of_a_refusal_is_said(key: str, reason: str):
    with pytest.raises(InvalidKey, match=reason):
        check_key(key)


def test_a_prefix_may_be_empty_or_end_with_one_slash():
    assert check_prefix("") == check_prefix("/") == ""
    assert check_prefix("a/b/") == "a/b"
    with pytest.raises(InvalidKey):
        check_prefix("a//")


def test_only_our_own_unfinished_names_are_leftovers():
    assert is_leftover("a/.partial-0123456789abcdef")
    assert not is_leftover("a/.partial-0123456789abcdef/b")
    assert not is_leftover(".partial-x")


def test_path_below_follows_links_that_stay_inside(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert path_below(tmp_path, "link/x") == tmp_path / "link/x"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gs://b/x",
        "http://host/b",
        "s3://",
        "s3:///x",
        "s3://b/x",
        "s3://-bucket",
        "s3://bucket/../x",
        "s3://bucket//x",
        "s3://arn:aws:s3:x/y",
        "file://",
        "file://host/path",
        "file:path://x",
    ],
)
def test_a_url_that_cannot_be_opened_is_said(url: str):
    with pytest.raises(InvalidUrl):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a%20b/ c/", "s3://bucket/a%20b/ c"),
        ("file:///data/x/", "file:///data/x"),
        ("file://localhost/data/a%20b", "file:///data/a%20b"),
        ("/data/a b", "file:///data/a%20b"),
        (Path("/data/x"), "file:///data/x"),
    ],
)
def test_urls_have_one_form(url: str | Path, canonical: str):
    assert open_store(url).url == canonical


def test_a_plain_path_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("runs/store")
    monkeypatch.chdir("/")
    store.put_bytes("x", b"1")
    assert (tmp_path / "runs/store/x").read_bytes() == b"1"
    assert store.url == f"file://{tmp_path}/runs/store"
