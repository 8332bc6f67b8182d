"""Places have one spelling, and none leads out of the prefix that its text begins with."""

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from run_config.errors import ConfigError
from run_config.installation import Installation, parse_installation
from run_config.locations import key_below_store, resolve, store_url

PATHS = ["a/../b", "a/./b", "a//b", "../a", "a/..", "a/%2e%2e/b", "a/%2E./b", "a/.%2e", "a/%2e/b", "a/b%2f..%2fc"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("root", ["s3://bucket/", "file:///store/", ""])
def test_a_path_that_leads_elsewhere_is_refused(root: str, path: str):
    with pytest.raises(ConfigError, match=r"without empty parts, '.' or '..'|must not have a part '..' or '.'"):
        resolve(f"{root}{path}", "file:///store")


@pytest.mark.parametrize("path", PATHS)
def test_no_prefix_of_an_installation_leads_elsewhere(path: str):
    for line in (f"store: s3://bucket/{path}", f"store: s3://b\nreadable: [s3://b/{path}]", f"writable: ['{path}']"):
        text = line if line.startswith("store") else f"store: s3://b\n{line}"
        with pytest.raises(ConfigError, match=r"settings\.yaml: (store|readable\.0|writable\.0): '"):
            parse_installation(text, "settings.yaml")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("file:///a%20b/%63/", "file:///a%20b/c"),
        ("file:///a b", "file:///a%20b"),
        ("/a/../b//c/.", "file:///b/c"),
        ("//a", "file:///a"),
        ("file:///", "file:///"),
        ("s3://bucket/a b/", "s3://bucket/a b"),
        ("a...b/..c", "file:///store/a...b/..c"),
    ],
)
def test_a_place_has_one_spelling(text: str, url: str):
    assert resolve(text, "file:///store") == url


@pytest.mark.parametrize("text", ["/store/../etc/passwd", "file:///store/../etc", "file:///store/%2e%2e/etc", "../etc"])
def test_a_place_outside_the_store_is_not_read(text: str):
    with pytest.raises(ConfigError):
        Installation(store="file:///store").require_readable("cvat-test-path", text)


PART = st.text(alphabet="ab.%2eEfF/", max_size=12)


@given(st.lists(PART, max_size=4).map("/".join), st.sampled_from(["file:///store/", "/store/", ""]))
@example("%2e%2e/etc", "file:///store/")
@example("%2F", "file:///store/")
@example("a%2f%2Fb", "file:///store/")
def test_what_is_allowed_lies_below_the_store_for_whoever_opens_it(path: str, root: str):
    try:
        url = Installation(store="file:///store").require_readable("x", root + path)
    except ConfigError:
        return
    opened = posixpath.normpath(unquote(url.removeprefix("file://")))
    assert opened == "/store" or opened.startswith("/store/")
    assert store_url(url) == url


def test_a_key_may_end_with_a_slash_and_be_nothing_else_odd():
    assert key_below_store("runs/a/") == "runs/a"
    for text in ("", "/", "/runs", "s3://b/a"):
        with pytest.raises(ConfigError, match="must be a key below the store"):
            key_below_store(text)
