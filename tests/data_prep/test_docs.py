"""The page about preparing names what the code does."""

from pathlib import Path

import pytest

from data_prep.box_form import BoxForm
from data_prep.changes import Reason
from data_prep.checks.box_forms import MOST_OUTLINES
from data_prep.checks.box_parts import LEAST_CASES
from data_prep.findings import FEW_BOXES, FEW_BOXES_PER_CLASS
from run_config.data_limits import DataLimits

PAGE = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text()


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_stands_in_the_table_of_its_action(reason: Reason):
    table = PAGE.split(f"| {reason.action} |")[1].split("\n\n")[0]
    assert f"`{reason.label}`" in table


def test_limits_are_the_codes():
    assert f"below {FEW_BOXES} in all, below {FEW_BOXES_PER_CLASS} of a class" in PAGE
    assert f"needs at least {LEAST_CASES} cases" in PAGE
    assert f"({MOST_OUTLINES:,} per subset are compared)" in PAGE


@pytest.mark.parametrize(("name", "value"), DataLimits().by_name.items())
def test_each_limit_of_data_stands_in_the_table(name: str, value: float):
    assert f"| `{name}` | {value:g} |" in PAGE


@pytest.mark.parametrize("form", [form for form in BoxForm if form is not BoxForm.XYWH])
def test_each_form_of_boxes_is_named(form: BoxForm):
    assert f"`{form}`" in PAGE
