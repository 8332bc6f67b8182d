"""The errors of published weights."""

from collections.abc import Sequence

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT


class WeightsError(Exception):
    """The weights are missing, damaged or not the expected ones. The message says where and what to do."""

    exit_code = WRONG_INPUT


class DownloadFailed(WeightsError):
    """The server is unreachable or failed too often. The same command resumes the download."""

    exit_code = PASSING_FAULT


def joined(errors: Sequence[WeightsError]) -> WeightsError:
    """One error with all messages. It is a DownloadFailed, which a retry may help, when one of them is."""
    kind = DownloadFailed if any(isinstance(error, DownloadFailed) for error in errors) else WeightsError
    sentences = [str(error) for error in errors]
    if len(sentences) > 1:  # the command line prints them in one line
        sentences = [f"{one.removesuffix('.')}." for one in sentences]
    return kind("\n".join(sentences))
