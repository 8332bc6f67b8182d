"""Whether boxes that a model drew, and that nobody has changed since, are used for training and measuring."""

from enum import StrEnum


class AutomaticBoxes(StrEnum):
    """The choices of the parameter `automatic-boxes`."""

    LEAVE_OUT = "leave-out"
    KEEP = "keep"
