"""The error of a failed check, with its exit code."""

from run_config.exit_codes import WRONG_INPUT


class CheckError(Exception):
    """The parameters of a run are wrong or cannot be used. The message has one sentence per line."""

    exit_code = WRONG_INPUT
