"""The errors of workflows."""

from run_config.exit_codes import WRONG_INPUT


class WorkflowError(Exception):
    """A template or a parameter is wrong. The message says where and what to do."""

    exit_code = WRONG_INPUT


class TemplateError(WorkflowError):
    """A template contradicts itself, or uses a feature that the local runner does not support."""


class RunningElsewhereError(WorkflowError):
    """Another process is executing the same run."""


class StepError(WorkflowError):
    """A step failed. `exit_code` is the step's own if it is one of the project's exit codes, else 1."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class InterruptedRunError(WorkflowError):
    """A person or the machine stopped the run. `exit_code` is 130 after Ctrl-C and 143 after SIGTERM."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted; run the same command again to resume")
        self.exit_code = exit_code
