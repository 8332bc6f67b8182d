"""The rendered settings as the steps read them."""

from collections.abc import Callable

import pytest

from run_config.installation import Installation, parse_installation
from tests.charts.chart import Release


@pytest.fixture
def installation() -> Callable[[Release], Installation]:
    return lambda release: parse_installation(release.config["settings.yaml"], "settings.yaml")
