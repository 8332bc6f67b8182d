"""Errors in a prepared set or an image, with their exit code."""

from run_config.exit_codes import WRONG_INPUT


class PreparedSetError(Exception):
    """Invalid input: the message says what is wrong, where, and what to do."""

    exit_code = WRONG_INPUT


class ImageError(PreparedSetError):
    """An image file cannot be decoded."""


class SetError(PreparedSetError):
    """A prepared set is missing, damaged, or was written by a newer version."""
