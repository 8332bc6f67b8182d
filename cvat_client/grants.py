"""Signed permissions (grants): a user with access to a subject in CVAT may export or annotate it for an hour.

Form: `detr1.<payload>.<HMAC-SHA256>`. Both parts are base64url without padding. The payload is JSON with the subject,
the user, the purpose and the expiry time. A grant to export does not permit annotating. The bridge signs grants. The
steps that call CVAT with the service account's token verify them with the same key. Without a grant, permission to
submit workflows gives no access to CVAT's data.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from itsdangerous import BadSignature, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from cvat_client.errors import BridgeError, GrantError
from cvat_client.subject import Subject

VERSION = "detr1"
LEAST_KEY_BYTES = 16
_ASK_AGAIN = "start the run from CVAT again"


class Purpose(StrEnum):
    """The action that a grant permits."""

    EXPORT = "export"
    ANNOTATE = "annotate"


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission for one user. `expires`: Unix time in seconds."""

    subject: Subject
    user: str
    expires: int
    purpose: Purpose = Purpose.EXPORT


def sign(grant: Grant, key: bytes) -> str:
    """Return the signed text that a workflow parameter carries."""
    content = {"subject": str(grant.subject), "user": grant.user, "expires": grant.expires, "purpose": grant.purpose}
    payload = base64_encode(json.dumps(content, separators=(",", ":"))).decode()
    return _signer(key).sign(f"{VERSION}.{payload}").decode()


def verify(
    text: str,
    subject: Subject,
    key: bytes,
    *,
    purpose: Purpose = Purpose.EXPORT,
    accept_expired: bool = False,
    now: Callable[[], float] = time.time,
) -> Grant:
    """Return the grant if its signature, subject, purpose and expiry time are valid.

    Raises GrantError, which says what is invalid.
    """
    version, _, rest = text.partition(".")
    payload, _, mac = rest.partition(".")
    if version != VERSION or not payload or not mac:
        raise GrantError(f"cvat-grant is missing or malformed: {_ASK_AGAIN}; the CVAT form creates it")
    try:
        _signer(key).unsign(text)
    except (BadSignature, ValueError) as error:  # ValueError: the text cannot be encoded
        raise GrantError(f"cvat-grant was not signed by this installation, or was changed: {_ASK_AGAIN}") from error
    content = json.loads(base64_decode(payload))
    signed_for = Purpose(content["purpose"])
    grant = Grant(Subject.parse(content["subject"]), content["user"], content["expires"], signed_for)
    if grant.purpose is not purpose:
        raise GrantError(f"cvat-grant permits to {grant.purpose}, not to {purpose}: {_ASK_AGAIN}")
    if grant.subject != subject:
        raise GrantError(f"cvat-grant is for {grant.subject}, not for {subject}: {_ASK_AGAIN}")
    if grant.expires < now() and not accept_expired:
        raise GrantError(
            f"cvat-grant has expired: {_ASK_AGAIN}, or let whoever runs this installation accept older ones "
            "(cvatBridge.grants.acceptExpired)"
        )
    return grant


def signing_key(text: str | None) -> bytes:
    """Return the signing key from its Secret. BridgeError: it is missing or too short."""
    key = (text or "").strip().encode()
    if len(key) < LEAST_KEY_BYTES:
        raise BridgeError(
            f"CVAT_BRIDGE_SIGNING_KEY must have {LEAST_KEY_BYTES} characters or more: the secret of the bridge is "
            "missing or its key signing-key is too short"
        )
    return key


def _signer(key: bytes) -> Signer:
    return Signer(key, key_derivation="none", digest_method=hashlib.sha256)
