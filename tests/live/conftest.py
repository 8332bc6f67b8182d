"""Tests against a running CVAT. They make one task there, annotate and export it, and delete it in the end.

    CVAT_LIVE_URL=https://cvat.example.org CVAT_LIVE_TOKEN=… .venv/bin/python -m pytest -m live tests/live -n 0

CVAT_LIVE_TOKEN: a personal access token that is not read-only (CVAT 2.48 or newer), of an account that may make
tasks. Optional are
- CVAT_LIVE_SESSION: the cookie `sessionid` of a browser in which that same account, or an administrator, is logged
  in: who may see what, the form, and a click up to the workflow;
- CVAT_LIVE_CALLBACK: an address of this machine that CVAT's webhooks reach, http://host:port (CVAT's SMOKESCREEN_OPTS
  must allow it): the form and the signature of a webhook, with a project of its own that is deleted in the end;
- CVAT_LIVE_ORGANIZATION: the slug of the organization to work in.
Without the first two everything here is skipped. Exports are downloaded: no bucket is needed.

All tests but the one of *Finish the job* passed with CVAT 2.73.0. All but the webhook also run against
`python -m tests.cvat_double`, from another process, with the address and tokens that it prints. There the task is made
by the double's control route instead of the SDK's upload, and is not removed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.live_cvat import ASKED, NO_SESSION, LiveCvat, LiveTask
from tests.object_store.conftest import bucket, no_aws, s3, s3_client, s3_server

__all__ = ["bucket", "no_aws", "s3", "s3_client", "s3_server"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def live() -> LiveCvat:
    """The CVAT of the environment."""
    names = ("URL", "TOKEN", "SESSION", "CALLBACK", "ORGANIZATION")
    url, token, *rest = (os.environ.get(f"CVAT_LIVE_{name}", "").strip() for name in names)
    if not url or not token:
        pytest.skip(ASKED)
    return LiveCvat(url.rstrip("/"), token, *rest)


@pytest.fixture(scope="session")
def live_task(live: LiveCvat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTask]:
    """One task for all tests here."""
    with live.task(tmp_path_factory.mktemp("live")) as task:
        yield task


@pytest.fixture
def session(live: LiveCvat) -> str:
    """Somebody's session in a browser."""
    if not live.session:
        pytest.skip(NO_SESSION)
    return live.session
