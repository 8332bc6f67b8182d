"""What detr_job raises for the person who runs it; anything else that escapes is a bug."""

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT


class JobError(Exception):
    """The input or a parameter is wrong: the message says what, where and what to do."""

    exit_code = WRONG_INPUT


class NotFinite(JobError):
    """The loss or its gradient is not a number any more."""


class Interrupted(JobError):
    """The process was asked to stop; what it did is saved, and a restart goes on from there."""

    exit_code = PASSING_FAULT


class StoreLeftBehind(JobError):
    """Training ended, but the store could not be reached to take the rest."""

    exit_code = PASSING_FAULT


class StoreRefused(StoreLeftBehind):
    """Training ended, but the store refuses the rest: waiting does not help."""

    exit_code = WRONG_INPUT


class WorkersLost(JobError):
    """A process that prepares batches was killed, crashed or hangs; the weights are whole, and a restart goes on."""

    exit_code = PASSING_FAULT


class OutOfMemory(JobError):
    """The device or this machine has too little memory for the settings; the same would fail again."""
