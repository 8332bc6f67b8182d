"""Why a cluster did not do what was asked, each as one sentence for the person who called."""

from run_config.exit_codes import INTERRUPTED, PASSING_FAULT
from workflows.errors import WorkflowError


class ClusterError(WorkflowError):
    """The cluster refused, or something that it should have is not there."""


class NoAccessError(ClusterError):
    """No way to the cluster: no kubeconfig, a broken one, no credentials, or expired ones."""


class ForbiddenError(ClusterError):
    """The caller may not do that."""


class NotThereError(ClusterError):
    """An object that was asked for by name is not there."""


class NoSuchKindError(NotThereError):
    """The cluster does not know the kind: what defines it is not installed."""


class AlreadyThereError(ClusterError):
    """An object of that name exists."""


class UnreachableError(ClusterError):
    """Nobody answered, or not for now: asking again later may work."""

    exit_code = PASSING_FAULT


class WatchEndedError(ClusterError):
    """Watching ended before the run did. The run goes on."""

    exit_code = PASSING_FAULT


class WatchInterruptedError(ClusterError):
    """The person ended the watching. The run goes on."""

    exit_code = INTERRUPTED
