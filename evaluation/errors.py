"""The exceptions of this package: each is one sentence for the person who called."""

from run_config.exit_codes import WRONG_INPUT


class EvaluationError(Exception):
    """Something handed to the evaluation is wrong; the message says what, where and how to mend it."""

    exit_code = WRONG_INPUT


class GroundTruthError(EvaluationError):
    """The annotations cannot be evaluated against."""


class PredictionsError(EvaluationError):
    """The predictions do not fit the file format or the set they claim to belong to."""


class RunError(EvaluationError):
    """The run in the store lacks what a report needs."""
