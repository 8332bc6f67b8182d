"""What a check finds wrong, as an exception that carries the contract's exit code."""

from run_config.exit_codes import WRONG_INPUT


class CheckError(Exception):
    """What a run was told is wrong, or cannot be used: one sentence a line."""

    exit_code = WRONG_INPUT
