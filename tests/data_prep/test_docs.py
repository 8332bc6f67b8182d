"""The page about preparing names what the code does."""

from pathlib import Path

import pytest

from data_prep.changes import Reason
from data_prep.findings import FEW_BOXES, FEW_BOXES_PER_CLASS

PAGE = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text()


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_stands_in_the_table_of_its_action(reason: Reason):
    table = PAGE.split(f"| {reason.action} |")[1].split("\n\n")[0]
    assert f"`{reason.label}`" in table


def test_limits_are_the_codes():
    assert f"below {FEW_BOXES} in all, below {FEW_BOXES_PER_CLASS} of a class" in PAGE
