"""What detr_job raises for the person who runs it; anything else that escapes is a bug."""


class JobError(Exception):
    """The input or a parameter is wrong: the message says what, where and what to do."""

    exit_code = 2
