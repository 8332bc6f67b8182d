"""Shared fixtures: where the real exports lie, when somebody has them."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CVAT exports named by REAL_DATA."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA is not set: it names a folder with real CVAT exports")
    return Path(folder)
