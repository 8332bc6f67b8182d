"""Check the rights of CVAT's service account, with which runs export tasks and write boxes."""

from collections.abc import Mapping
from typing import Any

from cvat_client.connection import Token
from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError
from cvat_client.questions import CvatQuestions

OK = "ok"
UNKNOWN = "not known"
"""CVAT is unreachable, or its response is unclear."""

_ROLES = ("owner", "maintainer")
"""Roles in an organization that may export and change every task of it."""


async def account_problem(cvat: CvatQuestions, token: Token | None) -> str:
    """OK, UNKNOWN, or a sentence that says what the account lacks."""
    if token is None:
        return "CVAT_ACCESS_TOKEN is not set: exports will fail"
    try:
        user = await cvat.get("users/self", token)
        if await _is_read_only(cvat, token):
            return "the access token of the service account is read-only: exports to a bucket and annotating will fail"
        return await _rights_problem(cvat, token, user)
    except CvatTokenError:
        return "CVAT does not accept the access token of the service account: exports will fail"
    except CvatRefusedError as error:
        return f"the service account lacks rights: {error}"
    except BridgeError:
        return UNKNOWN


async def _is_read_only(cvat: CvatQuestions, token: Token) -> bool:
    try:
        return (await cvat.get("auth/access_tokens/self", token)).get("read_only") is True
    except CvatTokenError:
        raise
    except CvatRefusedError:
        return False  # not an access token, but one of CVAT's older keys, which can do everything


async def _rights_problem(cvat: CvatQuestions, token: Token, user: Mapping[str, Any]) -> str:
    name = str(user.get("username") or "")[:100]
    groups = user.get("groups")
    if user.get("is_superuser") is True or (isinstance(groups, list) and "admin" in groups):
        return OK
    if not token.organization:
        return (
            f"the service account {name!r} is not an administrator of CVAT, and cvatBridge.cvat.organization is not "
            "set: it can export only its own tasks"
        )
    members, _ = await cvat.listed("memberships", token, {"user": name, "org": token.organization}, most=100)
    roles = {str(one.get("role")) for one in members if (one.get("user") or {}).get("username") == name}
    if roles & set(_ROLES):
        return OK
    role = f"has the role {min(roles)[:40]!r}" if roles else "is not a member"
    return (
        f"the service account {name!r} {role} in the organization {token.organization!r}: exports of other users' "
        "tasks will fail; it must be a maintainer"
    )
