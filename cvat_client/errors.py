"""Errors between CVAT and the cluster. The command line exits with an error's `exit_code`."""

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT


class BridgeError(Exception):
    """A setting, a parameter or a response of CVAT is invalid. The message says what to do."""

    exit_code = WRONG_INPUT


class GrantError(BridgeError):
    """A grant is missing, expired, signed with another key, or made for another subject or purpose."""


class CvatRefusedError(BridgeError):
    """The requested object does not exist in CVAT, or this account has no permission for it."""


class CvatTokenError(CvatRefusedError):
    """CVAT rejects the token or session: it is wrong, expired or revoked."""


class CvatUnavailableError(BridgeError):
    """CVAT is unreachable or overloaded. A retry may succeed."""

    exit_code = PASSING_FAULT


class CvatAddressError(CvatUnavailableError):
    """CVAT is unreachable because of the settings `cvat.url` or `cvat.caFile`. A retry does not help."""

    exit_code = WRONG_INPUT


class UnclearError(CvatUnavailableError):
    """CVAT responded, but the response does not say whether the user has the permission."""


class TooLargeError(CvatUnavailableError):
    """CVAT's response exceeds the size limit."""
