"""What can go wrong between CVAT and the cluster. `exit_code` is the contract with the command lines."""

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT


class BridgeError(Exception):
    """A setting, a parameter or an answer of CVAT is wrong; the message says what to do."""

    exit_code = WRONG_INPUT


class GrantError(BridgeError):
    """A signature that is missing, not ours, too old, or for something else."""


class CvatRefusedError(BridgeError):
    """CVAT does not know what was asked for, or does not let this account have it."""


class CvatTokenError(CvatRefusedError):
    """CVAT does not accept the token or the session: it is wrong, has expired or was revoked."""


class CvatUnavailableError(BridgeError):
    """CVAT cannot be reached or is overloaded; it passes."""

    exit_code = PASSING_FAULT


class CvatAddressError(CvatUnavailableError):
    """CVAT cannot be reached with `cvat.url` and `cvat.caFile` as they are set: waiting does not help."""

    exit_code = WRONG_INPUT


class UnclearError(CvatUnavailableError):
    """CVAT answered, but the answer does not say whether somebody may do something."""


class TooLargeError(CvatUnavailableError):
    """CVAT's answer is longer than what is read."""
