"""The errors of a cluster, each with one sentence for the user."""

from run_config.exit_codes import INTERRUPTED, PASSING_FAULT
from workflows.errors import WorkflowError


class ClusterError(WorkflowError):
    """The cluster refused the request, or something that it should have is missing."""


class NoAccessError(ClusterError):
    """The cluster cannot be accessed: the kubeconfig or the credentials are missing, invalid or expired."""


class ForbiddenError(ClusterError):
    """The caller lacks the permission."""


class NotThereError(ClusterError):
    """An object with the requested name does not exist."""


class NoSuchKindError(NotThereError):
    """The cluster does not know the kind: its definition is not installed."""


class AlreadyThereError(ClusterError):
    """An object of that name already exists."""


class UnreachableError(ClusterError):
    """The cluster is temporarily unreachable. A retry may work."""

    exit_code = PASSING_FAULT


class WatchEndedError(ClusterError):
    """Watching ended before the run. The run continues."""

    exit_code = PASSING_FAULT


class WatchInterruptedError(ClusterError):
    """The user stopped watching. The run continues."""

    exit_code = INTERRUPTED
