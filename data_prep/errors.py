"""Errors in a person's data, with their exit code."""

from run_config.exit_codes import WRONG_INPUT


class DataPrepError(Exception):
    """Invalid input: the message says what is wrong, where, and what to do."""

    exit_code = WRONG_INPUT


class SourceError(DataPrepError):
    """A source cannot be read as an export: it is missing, damaged, unsafe or in another format."""


class AnnotationError(DataPrepError):
    """An annotation file contradicts itself, so that its meaning would have to be guessed."""
