"""A publisher of weights for each test."""

from collections.abc import Iterator

import pytest

from tests.published_weights.publisher import Publisher, publishing


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("published_weights.download.FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with publishing() as found:
        yield found
