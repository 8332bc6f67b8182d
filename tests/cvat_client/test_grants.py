"""A grant is good for its subject, for its time, and for whoever has the key."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvat_client.errors import BridgeError, GrantError
from cvat_client.grants import Grant, Purpose, sign, signing_key, verify
from cvat_client.subject import Subject

KEY = b"a key of some length"
SUBJECT = Subject.tasks([8])
GRANT = Grant(SUBJECT, "ann", 1000)


def test_a_signed_grant_comes_back():
    assert verify(sign(GRANT, KEY), SUBJECT, KEY, now=lambda: 999) == GRANT


@pytest.mark.parametrize(
    ("text", "subject", "key", "words"),
    [
        ("", SUBJECT, KEY, "is missing"),
        ("detr1.abc", SUBJECT, KEY, "is missing"),
        ("detr2." + sign(GRANT, KEY).partition(".")[2], SUBJECT, KEY, "is missing or malformed"),
        (sign(GRANT, KEY) + "A", SUBJECT, KEY, "was changed"),
        (sign(GRANT, KEY) + "\udcff", SUBJECT, KEY, "was changed"),
        (sign(GRANT, KEY).replace(".", ".e", 1), SUBJECT, KEY, "was changed"),
        (sign(GRANT, b"another key, as long"), SUBJECT, KEY, "was not signed by this installation"),
        (sign(GRANT, KEY), Subject.tasks([9]), KEY, "is for task:8, not for task:9"),
        (sign(GRANT, KEY), Subject.tasks([8, 9]), KEY, "is for task:8, not for task:8,task:9"),
        (sign(GRANT, KEY), Subject.project(8), KEY, "is for task:8, not for project:8"),
    ],
)
def test_what_is_not_ours_or_for_something_else_is_refused(text: str, subject: Subject, key: bytes, words: str):
    with pytest.raises(GrantError, match=words):
        verify(text, subject, key, accept_expired=True, now=lambda: 999)


@pytest.mark.parametrize(("signed", "asked"), [(Purpose.EXPORT, Purpose.ANNOTATE), (Purpose.ANNOTATE, Purpose.EXPORT)])
def test_a_permission_for_one_thing_is_none_for_the_other(signed: Purpose, asked: Purpose):
    text = sign(replace(GRANT, purpose=signed), KEY)
    assert verify(text, SUBJECT, KEY, purpose=signed, now=lambda: 999).purpose is signed
    with pytest.raises(GrantError, match=f"permits to {signed}, not to {asked}"):
        verify(text, SUBJECT, KEY, purpose=asked, now=lambda: 999)


def test_an_old_one_is_refused_unless_the_installation_takes_it():
    with pytest.raises(GrantError, match=r"expired.*acceptExpired"):
        verify(sign(GRANT, KEY), SUBJECT, KEY, now=lambda: 1001)
    assert verify(sign(GRANT, KEY), SUBJECT, KEY, accept_expired=True, now=lambda: 1001) == GRANT


def test_grants_of_the_release_before_are_read():
    """Made with `hmac` by hand, before a library signed them."""
    payload = "eyJzdWJqZWN0IjoidGFzazo4IiwidXNlciI6ImFubiIsImV4cGlyZXMiOjEwMDAsInB1cnBvc2UiOiJleHBvcnQifQ"
    text = f"detr1.{payload}.CF101OWZzpRZrjgpWGrufc1OlDwfyotC3lc03jkIlrc"
    assert verify(text, SUBJECT, KEY, now=lambda: 999) == GRANT
    assert sign(GRANT, KEY) == text


@given(st.text(max_size=60))
def test_no_text_is_more_than_a_refusal(text: str):
    for candidate in (text, f"detr1.{text}", f"detr1.{text}.{text}"):
        with pytest.raises(GrantError):
            verify(candidate, SUBJECT, KEY)


@pytest.mark.parametrize("text", [None, "", "  ", "short"])
def test_a_key_that_could_be_guessed_is_refused(text: str | None):
    with pytest.raises(BridgeError, match="CVAT_BRIDGE_SIGNING_KEY"):
        signing_key(text)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=100))
def test_a_subject_is_read_back(ids: list[int]):
    for subject in (Subject.tasks(ids), Subject.project(ids[0])):
        assert Subject.parse(str(subject)) == subject


@pytest.mark.parametrize(
    "text", ["", "8", "task:", "task:0", "task:-1", "task:8;task:9", "task:8,project:3", "project:1,project:2", "job:8"]
)
def test_another_form_is_no_subject(text: str):
    with pytest.raises(BridgeError, match="is not of the form"):
        Subject.parse(text)
