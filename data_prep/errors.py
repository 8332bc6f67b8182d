"""What can be wrong with a person's data, as exceptions that carry the contract's exit code."""

from run_config.exit_codes import WRONG_INPUT


class DataPrepError(Exception):
    """Wrong input: the message says what, where, and what to do about it."""

    exit_code = WRONG_INPUT


class SourceError(DataPrepError):
    """A source cannot be read as an export: not there, damaged, dangerous, or another format."""


class AnnotationError(DataPrepError):
    """An annotation file contradicts itself in a way that must not be guessed at."""
