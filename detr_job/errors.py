"""Errors that detr_job raises for its user. Any other exception that escapes is a bug."""

from run_config.exit_codes import PARTLY_DONE, PASSING_FAULT, WRONG_INPUT


class JobError(Exception):
    """The input or a parameter is invalid: the message says what is wrong, where, and what to do."""

    exit_code = WRONG_INPUT


class PartlyDone(JobError):
    """Some of the inputs cannot be used. The results of the others are complete."""

    exit_code = PARTLY_DONE


class NotFinite(JobError):
    """The loss or its gradient is not finite."""


class Interrupted(JobError):
    """The process was asked to stop. Its progress is saved, and a restart resumes from there."""

    exit_code = PASSING_FAULT


class StoreLeftBehind(JobError):
    """Training ended, but the store was unreachable for the last uploads."""

    exit_code = PASSING_FAULT


class StoreRefused(StoreLeftBehind):
    """Training ended, but the store refuses the last uploads, so waiting does not help."""

    exit_code = WRONG_INPUT


class WorkersLost(JobError):
    """A batch worker was killed, crashed or hangs. The weights are intact, and a restart resumes."""

    exit_code = PASSING_FAULT


class OutOfMemory(JobError):
    """The device or this machine has too little memory for the settings; a retry would fail again."""
