"""Mutated exports in every format: prepared or refused, never with a traceback, a stray file or a silent change."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.fuzz import mutated_case

PARTS, CASES = 10, 30
"""The seeds are fixed: `make bench` tries new ones."""


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damage that it reads past
@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutated_export_changes_only_as_the_report_says(part: int):
    @seed(part)
    @settings(max_examples=CASES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False), st.integers(0, 7))
    def check(rng: random.Random, number: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            mutated_case(rng).check(Path(scratch).resolve() / "case", is_stored=number == 0)

    check()


def test_many_mutated_exports_are_accepted(tmp_path: Path):
    """Otherwise the comparison with the report would compare nothing."""
    accepted = sum(
        mutated_case(random.Random(number)).check(tmp_path / str(number), is_stored=False) for number in range(40)
    )
    assert accepted >= 10
