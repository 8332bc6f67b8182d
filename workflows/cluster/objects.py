"""The fields of Kubernetes objects that this package uses.

The official client needs 7 ms to build a whole pod object, so a cluster of a thousand pods would keep a core busy.
These records are decoded from the same responses in a hundredth of that time.
"""

from datetime import datetime

import msgspec


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Fields have the API's names in snake case. None: the API leaves empty fields out, or writes null."""


class Metadata(_Part, frozen=True):
    """The metadata of every object."""

    name: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Taint(_Part, frozen=True):
    """A taint keeps pods away from a node."""

    key: str
    effect: str
    value: str | None = None


class Condition(_Part, frozen=True):
    """One of a node's conditions, such as Ready."""

    type: str
    status: str


class NodeSpec(_Part, frozen=True):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class NodeStatus(_Part, frozen=True):
    conditions: list[Condition] | None = None
    allocatable: dict[str, str] | None = None


class Node(_Part, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Resources(_Part, frozen=True):
    limits: dict[str, str] | None = None


class Container(_Part, frozen=True):
    resources: Resources = Resources()


class PodSpec(_Part, frozen=True):
    node_name: str | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class Waiting(_Part, frozen=True):
    reason: str | None = None


class Running(_Part, frozen=True):
    started_at: datetime | None = None


class ContainerState(_Part, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None


class ContainerStatus(_Part, frozen=True):
    name: str = ""
    image: str = ""
    state: ContainerState = ContainerState()


class PodStatus(_Part, frozen=True):
    phase: str | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(_Part, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class QuotaSpec(_Part, frozen=True):
    hard: dict[str, str] | None = None
    scopes: list[str] | None = None
    scope_selector: dict[str, object] | None = None


class QuotaStatus(_Part, frozen=True):
    hard: dict[str, str] | None = None
    used: dict[str, str] | None = None


class ResourceQuota(_Part, frozen=True):
    metadata: Metadata
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class LimitRangeItem(_Part, frozen=True):
    type: str
    max: dict[str, str] | None = None
    min: dict[str, str] | None = None


class LimitRangeSpec(_Part, frozen=True):
    limits: list[LimitRangeItem] | None = None


class LimitRange(_Part, frozen=True):
    metadata: Metadata
    spec: LimitRangeSpec = LimitRangeSpec()


class Secret(_Part, frozen=True):
    metadata: Metadata
    type: str | None = None
    data: dict[str, str] | None = None


class ConfigMap(_Part, frozen=True):
    metadata: Metadata
    data: dict[str, str] | None = None


class Reference(_Part, frozen=True):
    """A reference to another object by name."""

    name: str = ""


class ServiceAccount(_Part, frozen=True):
    metadata: Metadata
    image_pull_secrets: list[Reference] | None = None


class Namespace(_Part, frozen=True):
    metadata: Metadata


class Rule(_Part, frozen=True):
    """The permissions that a role grants."""

    verbs: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None


class Role(_Part, frozen=True):
    """A Role or a ClusterRole."""

    metadata: Metadata
    rules: list[Rule] | None = None


class RoleReference(_Part, frozen=True):
    kind: str
    name: str


class RbacSubject(_Part, frozen=True):
    """The user, group or service account that gets a role."""

    kind: str
    name: str
    namespace: str | None = None


class RoleBinding(_Part, frozen=True):
    """A RoleBinding or a ClusterRoleBinding."""

    metadata: Metadata
    role_ref: RoleReference
    subjects: list[RbacSubject] | None = None


class ReviewStatus(_Part, frozen=True):
    allowed: bool = False


class Review(_Part, frozen=True):
    """The response to a question about permissions."""

    status: ReviewStatus = ReviewStatus()
