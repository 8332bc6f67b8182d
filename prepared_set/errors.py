"""What can be wrong with a prepared set or an image, as exceptions that carry the contract's exit code."""

from run_config.exit_codes import WRONG_INPUT


class PreparedSetError(Exception):
    """Wrong input: the message says what, where, and what to do about it."""

    exit_code = WRONG_INPUT


class ImageError(PreparedSetError):
    """An image file cannot be decoded."""


class SetError(PreparedSetError):
    """A prepared set is not there, is damaged, or was written by a newer version."""
