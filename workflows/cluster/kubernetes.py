"""The Kubernetes API with the caller's own rights, its refusals in sentences."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

import httpx2
import msgspec
from lightkube import ApiError, Client
from lightkube.core.exceptions import ConfigError
from lightkube.core.resource import NamespacedResource, Resource
from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource
from lightkube.operators import not_in
from lightkube.resources.core_v1 import ConfigMap, Namespace
from lightkube.types import PatchType

from workflows.cluster.errors import (
    AlreadyThereError,
    ClusterError,
    ForbiddenError,
    NoAccessError,
    NoSuchKindError,
    NotThereError,
    UnreachableError,
)
from workflows.cluster.kubeconfig import Access

Workflow = create_namespaced_resource("argoproj.io", "v1alpha1", "Workflow", "workflows")
WorkflowTemplate = create_namespaced_resource("argoproj.io", "v1alpha1", "WorkflowTemplate", "workflowtemplates")

Kind = TypeVar("Kind", bound=Resource)

GOING_ON = {"workflows.argoproj.io/completed": not_in(["true"])}
"""Selects workflows that go on, and leaves finished ones unread; Argo sets the label a moment after the phase."""

NO_ARGO = "this cluster has no Argo Workflows (its kinds are not defined); install it first, see docs/install.md"


class Kubernetes:
    """One namespace of a cluster."""

    def __init__(self, access: Access, namespace: str | None) -> None:
        self.access = access
        self.namespace = namespace or access.namespace
        with explained(f"reading {access.source}", access.server):
            self.client = Client(config=access.config, namespace=self.namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()

    @property
    def where(self) -> str:
        """Which API this is, for messages."""
        return self.access.server

    def template(self, name: str) -> dict[str, Any]:
        """The WorkflowTemplate `name`."""
        return self._object(WorkflowTemplate, name, f"reading the workflow template {name}")

    def template_names(self) -> list[str]:
        """The templates of the namespace."""
        with explained(f"listing the workflow templates of {self.namespace}", self.where):
            return [item["metadata"]["name"] for item in self.client.list(WorkflowTemplate, namespace=self.namespace)]

    def workflow(self, name: str) -> dict[str, Any]:
        """The Workflow `name`."""
        return self._object(Workflow, name, f"reading the workflow {name}")

    def create(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Workflow and return it as the cluster has it."""
        with explained("creating the workflow", self.where):
            return dict(self.client.create(Workflow(**workflow), namespace=self.namespace))

    def patch(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `change` into the Workflow `name` and return it as the cluster has it."""
        with explained(f"changing the workflow {name}", self.where):
            changed = self.client.patch(
                Workflow, name, dict(change), namespace=self.namespace, patch_type=PatchType.MERGE
            )
            return dict(changed)

    def settings(self, config_map: str) -> Mapping[str, str]:
        """The entries of the installation's ConfigMap."""
        with explained(f"reading the ConfigMap {config_map}", self.where):
            return self.client.get(ConfigMap, config_map, namespace=self.namespace).data or {}

    def has_namespace(self) -> bool | None:
        """Whether the namespace exists; None where the caller may not know."""
        try:
            with explained(f"reading the namespace {self.namespace}", self.where):
                self.client.get(Namespace, self.namespace)
        except NotThereError:
            return False
        except ForbiddenError:
            return None
        return True

    def listed(
        self, kind: type[Kind], *, everywhere: bool = False, labels: Mapping[str, Any] | None = None
    ) -> list[Kind]:
        """All objects of a kind: of the namespace, of the cluster where they belong to none, or `everywhere`."""
        return list(self.each(kind, everywhere=everywhere, labels=labels))

    def each(
        self,
        kind: type[Kind],
        *,
        everywhere: bool = False,
        labels: Mapping[str, Any] | None = None,
        page: int | None = None,
    ) -> Iterator[Kind]:
        """The same one by one, `page` of them read at a time, for those of which not all are to be held at once."""
        client: Any = self.client
        place = {"namespace": "*" if everywhere else self.namespace} if issubclass(kind, NamespacedResource) else {}
        with explained(f"listing {kind.__name__} objects", self.where):
            yield from client.list(kind, labels=labels, chunk_size=page, **place)

    def read(self, kind: type[Kind], name: str) -> Kind:
        """One object."""
        client: Any = self.client
        place = {"namespace": self.namespace} if issubclass(kind, NamespacedResource) else {}
        with explained(f"reading {kind.__name__} {name}", self.where):
            found: Kind = client.get(kind, name, **place)
            return found

    def ask(self, review: Kind) -> Kind:
        """Put a question to the API: an object that is created and not kept."""
        client: Any = self.client
        place = {"namespace": self.namespace} if isinstance(review, NamespacedResource) else {}
        with explained(f"asking by a {type(review).__name__}", self.where):
            answer: Kind = client.create(review, **place)
            return answer

    def _object(self, kind: type[GenericNamespacedResource], name: str, doing: str) -> dict[str, Any]:
        with explained(doing, self.where):
            return dict(self.client.get(kind, name, namespace=self.namespace))


@contextlib.contextmanager
def explained(doing: str, where: str) -> Iterator[None]:
    """Turn what goes wrong inside the block into one of our errors."""
    try:
        yield
    except ApiError as error:
        status = error.status
        raise refusal(status.code or 0, status.message or status.reason or "", doing, where) from error
    except httpx2.HTTPStatusError as error:
        raise refusal(error.response.status_code, error.response.text, doing, where) from error
    except httpx2.HTTPError as error:
        raise unreachable(where, error) from error
    except ConfigError as error:
        raise NoAccessError(f"{doing}: {' '.join(str(error).split())}") from error
    except msgspec.MsgspecError as error:
        raise ClusterError(f"{doing}: {where} answered with something that is not Kubernetes' API ({error})") from error
    except (OSError, ValueError) as error:
        # A certificate that is no certificate, a login program that is not installed or answers nonsense.
        raise NoAccessError(f"the credentials for {where} cannot be used: {' '.join(str(error).split())}") from error


def unreachable(where: str, error: Exception) -> UnreachableError | NoAccessError:
    """Nobody answered; a certificate that does not fit will not fit later either."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return NoAccessError(f"{where} has a certificate that is not trusted here ({reason}); name its CA")
    return UnreachableError(f"{where} cannot be reached: {reason}; is the address right, and is it up?")


def refusal(code: int, message: str, doing: str, where: str) -> ClusterError:
    """The error for an answer with an HTTP status of 400 and more."""
    message = " ".join(message.split())[:500]
    if code == 401:
        return NoAccessError(f"{where} does not accept the credentials; they are wrong or expired: log in again")
    if code == 404 and ("could not find the requested resource" in message or "page not found" in message):
        return NoSuchKindError(f"{doing}: {NO_ARGO}" if "workflow" in doing else f"{doing}: {message}")
    if code == 429 or code >= 500:
        return UnreachableError(f"{doing}: {where} says {code} {message}; try again in a while")
    if code in (404, 409):
        return (NotThereError if code == 404 else AlreadyThereError)(f"{doing}: {message}")
    return (ForbiddenError if code == 403 else ClusterError)(f"{doing} was refused: {message}")
