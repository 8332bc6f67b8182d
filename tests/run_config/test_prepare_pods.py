"""How many pods prepare the data."""

import pytest

from run_config.prepare_pods import pods_for

GB = 10**9


@pytest.mark.parametrize(
    ("choice", "size_bytes", "pods"),
    [
        ("auto", 0, 1),
        ("auto", 10 * GB - 1, 1),
        ("auto", 10 * GB, 2),
        ("auto", 10 * GB + 1, 3),
        ("auto", 80 * GB, 16),
        ("auto", 900 * GB, 16),
        ("1", 900 * GB, 1),
        ("4", 0, 4),
    ],
)
def test_the_number_of_pods(choice: str, size_bytes: int, pods: int):
    assert pods_for(choice, size_bytes) == pods
