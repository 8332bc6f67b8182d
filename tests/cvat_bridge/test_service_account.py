"""`/readyz` says what CVAT's service account lacks, before an export fails for it."""

import asyncio

import pytest

from cvat_bridge.service_account import OK, UNKNOWN, account_problem
from cvat_client.connection import Token
from cvat_client.questions import CvatQuestions
from cvat_client.settings import Cvat
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.world import MAINTAINER, OWNER, WORKER


def problem(cvat: CvatDouble, token: str | None, organization: str = "") -> str:
    settings = Cvat.model_validate({"url": cvat.url, "publicOrigin": "https://cvat.example.org"})

    async def ask() -> str:
        async with CvatQuestions(settings, lambda _: None) as questions:
            return await account_problem(questions, None if token is None else Token(token, organization))

    return asyncio.run(ask())


def test_an_administrator_has_every_right(cvat: CvatDouble) -> None:
    assert problem(cvat, cvat.service.token) == OK
    assert problem(cvat, cvat.service.token, "7") == OK


@pytest.mark.parametrize("role", [OWNER, MAINTAINER])
def test_a_maintainer_of_the_organization_has_every_right(cvat: CvatDouble, role: str) -> None:
    cvat.add_member(cvat.ann, 7, role)
    assert problem(cvat, cvat.ann.token, "7") == OK


def test_a_worker_or_a_stranger_cannot_export_the_tasks_of_others(cvat: CvatDouble) -> None:
    cvat.add_member(cvat.ann, 7, WORKER)
    cvat.add_member(cvat.bob, 8, MAINTAINER)
    said = problem(cvat, cvat.ann.token, "7")
    assert "has the role 'worker' in the organization '7'" in said
    assert "it must be a maintainer" in said
    assert "'bob' is not a member in the organization '7'" in problem(cvat, cvat.bob.token, "7")


def test_without_an_organization_only_an_administrator_exports_everything(cvat: CvatDouble) -> None:
    said = problem(cvat, cvat.bob.token)
    assert "'bob' is not an administrator of CVAT" in said
    assert "cvatBridge.cvat.organization is not set" in said


def test_a_read_only_token_is_found(cvat: CvatDouble) -> None:
    assert "read-only" in problem(cvat, cvat.service.read_only_token)


def test_a_missing_a_revoked_and_an_unreachable_account(cvat: CvatDouble) -> None:
    assert "CVAT_ACCESS_TOKEN is not set" in problem(cvat, None)
    cvat.revoke(cvat.service)
    assert "does not accept the access token" in problem(cvat, cvat.service.token)
    cvat.stop()
    assert problem(cvat, cvat.service.token) == UNKNOWN
