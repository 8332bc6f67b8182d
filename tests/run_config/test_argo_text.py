"""What a step hands to Argo has nothing in it that Argo would replace."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_config.argo_text import leave_sentence, leave_value, without_tags
from run_config.errors import ConfigError

HOSTILE = "{{=4241+1}} {{workflow.parameters.store}}.jpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOSTILE, "{ {=4241+1}} { {workflow.parameters.store}}.jpg"),
        ("{{{=1}}}", "{ { {=1}}}"),
        ("{{{{x", "{ { { {x"),
        ("a {b} {", "a {b} {"),
        ("", ""),
    ],
)
def test_double_braces_are_pulled_apart_and_the_rest_stays(text: str, expected: str):
    assert without_tags(text) == expected


@given(st.text(alphabet="{ }=x"))
def test_no_text_keeps_two_opening_braces_side_by_side(text: str):
    assert "{{" not in without_tags(text)
    assert without_tags(text).replace(" ", "") == text.replace(" ", "")


def test_a_sentence_is_left_without_tags(tmp_path: Path):
    leave_sentence(tmp_path, "message", f"label {HOSTILE}: \ud800")
    left = (tmp_path / "outputs" / "message").read_text(encoding="utf-8")
    assert left == "label { {=4241+1}} { {workflow.parameters.store}}.jpg: ?"


def test_an_id_or_a_place_with_a_tag_is_refused_and_not_left(tmp_path: Path):
    leave_value(tmp_path, "dataset", "s3://bucket/a/{b}.zip")
    assert (tmp_path / "outputs" / "dataset").read_text() == "s3://bucket/a/{b}.zip"
    with pytest.raises(ConfigError, match=r"prepared-set: .* contains '\{\{', which Argo would replace .* rename it"):
        leave_value(tmp_path, "prepared-set", f"s3://bucket/{HOSTILE}")
    assert not (tmp_path / "outputs" / "prepared-set").exists()
