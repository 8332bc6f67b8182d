"""The exceptions of this package. Each message is one sentence for the user."""

from run_config.exit_codes import WRONG_INPUT


class EvaluationError(Exception):
    """An input of the evaluation is wrong; the message says what, where and how to correct it."""

    exit_code = WRONG_INPUT


class GroundTruthError(EvaluationError):
    """The annotations cannot be used for evaluation."""


class PredictionsError(EvaluationError):
    """The predictions do not fit the file format or their prepared set."""


class RunError(EvaluationError):
    """The run in the store lacks files that the report needs."""
