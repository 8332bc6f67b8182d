"""A client for the Kubernetes API with the caller's own permissions, whose errors are sentences."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

import msgspec
from kubernetes import client
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from workflows.cluster.errors import (
    AlreadyThereError,
    ClusterError,
    ForbiddenError,
    NoAccessError,
    NoSuchKindError,
    NotThereError,
    UnreachableError,
)
from workflows.cluster.kubeconfig import ClusterAccess
from workflows.cluster.objects import (
    ConfigMap,
    LimitRange,
    Namespace,
    Node,
    Pod,
    ResourceQuota,
    Review,
    Role,
    RoleBinding,
    Secret,
    ServiceAccount,
)

ARGO = ("argoproj.io", "v1alpha1")
TIMEOUT_S = (5, 30)
"""The timeouts to connect, and to wait for the next bytes."""

UNFINISHED = "workflows.argoproj.io/completed notin (true)"
"""Label selector of unfinished workflows. Argo sets the label a moment after it sets the phase."""

NO_ARGO = "this cluster has no Argo Workflows (its kinds are not defined); install it first, see docs/install.md"

PAGE = 500
"""Number of objects in one page of a list."""

Tree = dict[str, Any]
Right = Mapping[str, str]
"""group, resource and verb, and the name of one object."""
ApiCall = Callable[..., Any]
Kind = TypeVar("Kind")


class _PageEnd(msgspec.Struct, frozen=True):
    more: str | None = msgspec.field(name="continue", default=None)


class _Page(msgspec.Struct, Generic[Kind], frozen=True):
    metadata: _PageEnd
    items: list[Kind] | None = None


class Kubernetes:
    """The objects of one namespace and of the whole cluster."""

    def __init__(self, access: ClusterAccess, namespace: str | None) -> None:
        self.access = access
        self.namespace = namespace or access.namespace
        with explained(f"reading {access.source}", access.server):
            self._api: Any = client.ApiClient(access.configuration)  # the stubs lack `close`
        self._core = client.CoreV1Api(self._api)
        self._roles = client.RbacAuthorizationV1Api(self._api)
        self._rights = client.AuthorizationV1Api(self._api)
        self._custom: Any = client.CustomObjectsApi(self._api)  # the stubs say that its calls return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._api.close()

    @property
    def where(self) -> str:
        """The address of the API, for messages."""
        return self.access.server

    # Argo's objects ---------------------------------------------------------------------------------

    def template(self, name: str) -> Tree:
        """The WorkflowTemplate `name`."""
        with explained(f"reading the workflow template {name}", self.where):
            return self._argo_object("workflowtemplates", name)

    def templates(self, labels: Mapping[str, str] | None = None) -> list[Tree]:
        """The WorkflowTemplates of the namespace, optionally only those with these labels."""
        with explained(f"listing the workflow templates of {self.namespace}", self.where):
            return list(self._argo_objects("workflowtemplates", _selector(labels)))

    def template_names(self) -> list[str]:
        """The names of the WorkflowTemplates in the namespace."""
        return [str(tree["metadata"]["name"]) for tree in self.templates()]

    def workflow(self, name: str) -> Tree:
        """The Workflow `name`."""
        with explained(f"reading the workflow {name}", self.where):
            return self._argo_object("workflows", name)

    def workflows(
        self, labels: Mapping[str, str] | None = None, *, unfinished: bool = False, page: int = PAGE
    ) -> Iterator[Tree]:
        """The Workflows of the namespace, optionally only those with these labels, read in pages of `page`."""
        with explained("listing the workflows", self.where):
            yield from self._argo_objects("workflows", _selector(labels, *([UNFINISHED] if unfinished else [])), page)

    def create(self, workflow: Mapping[str, Any]) -> Tree:
        """Create a Workflow and return it as the cluster stored it."""
        place = (*ARGO, self.namespace, "workflows")
        with explained("creating the workflow", self.where):
            return _asked(Tree, self._custom.create_namespaced_custom_object, *place, dict(workflow))

    def patch(self, name: str, change: Mapping[str, Any]) -> Tree:
        """Merge `change` into the Workflow `name`, and return it as the cluster stored it."""
        place = (*ARGO, self.namespace, "workflows", name)
        with explained(f"changing the workflow {name}", self.where):
            return _asked(Tree, self._custom.patch_namespaced_custom_object, *place, dict(change))

    def _argo_object(self, plural: str, name: str) -> Tree:
        return _asked(Tree, self._custom.get_namespaced_custom_object, *ARGO, self.namespace, plural, name)

    def _argo_objects(self, plural: str, selector: str, page: int = PAGE) -> Iterator[Tree]:
        listing = self._custom.list_namespaced_custom_object
        return _listed(Tree, listing, *ARGO, self.namespace, plural, label_selector=selector, page=page)

    # Objects of the namespace -----------------------------------------------------------------------

    def settings(self, config_map: str) -> Mapping[str, str]:
        """The entries of the installation's ConfigMap."""
        return self._read(ConfigMap, self._core.read_namespaced_config_map, config_map).data or {}

    def secret(self, name: str) -> Secret:
        """The Secret `name`."""
        return self._read(Secret, self._core.read_namespaced_secret, name)

    def service_json(self, service: str, port: int, path: str) -> Tree:
        """The JSON object at `path` of a service of the namespace, fetched through the API server."""
        call = self._core.connect_get_namespaced_service_proxy_with_path
        with explained(f"asking the service {service}", self.where):
            return _asked(Tree, call, f"{service}:{port}", self.namespace, path)

    def service_account(self, name: str) -> ServiceAccount:
        """The ServiceAccount `name`."""
        return self._read(ServiceAccount, self._core.read_namespaced_service_account, name)

    def pods(self, labels: Mapping[str, str] | None = None) -> list[Pod]:
        """The pods of the namespace, optionally only those with these labels."""
        return self._listed(Pod, self._core.list_namespaced_pod, self.namespace, label_selector=_selector(labels))

    def resource_quotas(self) -> list[ResourceQuota]:
        """The resource quotas of the namespace."""
        return self._listed(ResourceQuota, self._core.list_namespaced_resource_quota, self.namespace)

    def limit_ranges(self) -> list[LimitRange]:
        """The limit ranges of the namespace."""
        return self._listed(LimitRange, self._core.list_namespaced_limit_range, self.namespace)

    def roles(self) -> list[Role]:
        """The roles of the namespace."""
        return self._listed(Role, self._roles.list_namespaced_role, self.namespace)

    def role_bindings(self) -> list[RoleBinding]:
        """The role bindings of the namespace."""
        return self._listed(RoleBinding, self._roles.list_namespaced_role_binding, self.namespace)

    # Objects of the whole cluster -------------------------------------------------------------------

    def namespace_labels(self) -> Mapping[str, str]:
        """The labels of the namespace itself."""
        with explained(f"reading the namespace {self.namespace}", self.where):
            return _asked(Namespace, self._core.read_namespace, self.namespace).metadata.labels or {}

    def has_namespace(self) -> bool | None:
        """Whether the namespace exists. None: the caller may not read it."""
        try:
            self.namespace_labels()
        except NotThereError:
            return False
        except ForbiddenError:
            return None
        return True

    def nodes(self) -> list[Node]:
        """The nodes of the cluster."""
        return self._listed(Node, self._core.list_node)

    def pods_everywhere(self) -> list[Pod]:
        """The pods of all namespaces."""
        return self._listed(Pod, self._core.list_pod_for_all_namespaces)

    def cluster_roles(self) -> list[Role]:
        """The roles of the whole cluster."""
        return self._listed(Role, self._roles.list_cluster_role)

    def cluster_role_bindings(self) -> list[RoleBinding]:
        """The role bindings of the whole cluster."""
        return self._listed(RoleBinding, self._roles.list_cluster_role_binding)

    def _read(self, kind: type[Kind], read: ApiCall, name: str) -> Kind:
        with explained(f"reading the {kind.__name__} {name}", self.where):
            return _asked(kind, read, name, self.namespace)

    def _listed(self, kind: type[Kind], read: ApiCall, *place: str, label_selector: str = "") -> list[Kind]:
        with explained(f"listing the {kind.__name__} objects", self.where):
            return list(_listed(kind, read, *place, label_selector=label_selector))

    # Rights -----------------------------------------------------------------------------------------

    def may(self, what: Right) -> bool:
        """Whether the caller has this permission in the namespace."""
        review = {"spec": {"resourceAttributes": {**what, "namespace": self.namespace}}}
        with explained("asking for the caller's rights", self.where):
            return _asked(Review, self._rights.create_self_subject_access_review, review).status.allowed

    def service_account_may(self, account: str, what: Right) -> bool:
        """Whether a service account of the namespace has this permission in it."""
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]
        review = {
            "metadata": {"namespace": self.namespace},
            "spec": {
                "user": f"system:serviceaccount:{self.namespace}:{account}",
                "groups": groups,
                "resourceAttributes": {**what, "namespace": self.namespace},
            },
        }
        ask = self._rights.create_namespaced_local_subject_access_review
        with explained(f"asking for the rights of the service account {account}", self.where):
            return _asked(Review, ask, self.namespace, review).status.allowed


def _asked(kind: type[Kind], call: ApiCall, *what: object, **chosen: object) -> Kind:
    """Call the client and decode the bytes of its response."""
    answer = call(*what, **chosen, _preload_content=False, _request_timeout=TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=kind)


def _listed(kind: type[Kind], read: ApiCall, *place: str, label_selector: str, page: int = PAGE) -> Iterator[Kind]:
    """Yield all objects that a call of the client lists, read in pages of `page`."""
    more: str | None = None
    while more != "":
        answer: _Page[Kind] = _asked(
            _Page[kind],  # type: ignore[valid-type]  # the kind is known when this runs
            read,
            *place,
            limit=page,
            _continue=more,
            label_selector=label_selector,
        )
        yield from answer.items or ()
        more = answer.metadata.more or ""


def _selector(labels: Mapping[str, str] | None, *more: str) -> str:
    return ",".join([*(f"{key}={value}" for key, value in (labels or {}).items()), *more])


@contextlib.contextmanager
def explained(doing: str, where: str) -> Iterator[None]:
    """Turn exceptions inside the block into our errors."""
    try:
        yield
    except ApiException as error:
        raise refusal(error.status or 0, _message(error), doing, where) from error
    except HTTPError as error:
        raise unreachable(where, error) from error
    except ConfigException as error:
        raise NoAccessError(f"{doing}: {' '.join(str(error).split())}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterError(f"{doing}: {where} answered with something that is not Kubernetes' API ({error})") from error
    except (OSError, ValueError) as error:
        # A certificate or key that is missing or malformed, or a token that no HTTP header can hold.
        raise NoAccessError(f"the credentials for {where} cannot be used: {' '.join(str(error).split())}") from error


def _message(error: ApiException) -> str:
    """The message of the API from its JSON Status, or the text of a proxy in front of it."""
    body: Any = error.body
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        status = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        status = None
    said = status.get("message") or status.get("reason") if isinstance(status, dict) else body
    return str(said or error.reason or "")


def unreachable(where: str, error: Exception) -> UnreachableError | NoAccessError:
    """The error for a failed connection. An untrusted certificate is permanent, so it is a NoAccessError."""
    cause = getattr(error, "reason", None) or error  # urllib3's reason, without the number of attempts
    reason = re.sub(r"^\w+\([^)]*\): ", "", " ".join(str(cause).split())) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return NoAccessError(
            f"{where} has a certificate that is not trusted ({reason}); give its certificate authority"
        )
    return UnreachableError(f"{where} cannot be reached: {reason}; check the address, and that the server runs")


def refusal(code: int, message: str, doing: str, where: str) -> ClusterError:
    """The error for a response with HTTP status 400 or above."""
    message = " ".join(message.split())[:500]
    if code == 401:
        return NoAccessError(f"{where} does not accept the credentials; they are wrong or expired: log in again")
    if code == 404 and ("could not find the requested resource" in message or "page not found" in message):
        return NoSuchKindError(f"{doing}: {NO_ARGO}" if "workflow" in doing else f"{doing}: {message}")
    if code == 429 or code >= 500:
        return UnreachableError(f"{doing}: {where} answered {code} {message}; try again later")
    if code in (404, 409):
        return (NotThereError if code == 404 else AlreadyThereError)(f"{doing}: {message}")
    return (ForbiddenError if code == 403 else ClusterError)(f"{doing} was refused: {message}")
