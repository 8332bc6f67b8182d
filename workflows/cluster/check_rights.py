"""Preflight: what the caller may do, what the pods may do, and the secrets that they read."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightkube.models.authorization_v1 import (
    ResourceAttributes,
    SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.authorization_v1 import LocalSubjectAccessReview, SelfSubjectAccessReview
from lightkube.resources.core_v1 import Secret, ServiceAccount
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

from workflows.cluster.errors import ForbiddenError, NotThereError
from workflows.cluster.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.scene import Scene

ARGO = "argoproj.io"
OPTIONAL_KEYS = ("session-token", "url")
"""Keys that a working installation may lack."""

_CLIENT_ROLE = "ask for the chart's role for clients (value rbac.clientSubjects)"
_WORKFLOW_ROLE = "let the chart create its roles (rbac.create), or bind one with workflowtaskresults: create, patch"


def caller(scene: Scene) -> Iterator[Finding]:
    """What submitting and watching need."""
    wanted = [
        (ARGO, "workflowtemplates", "get", ""),
        (ARGO, "workflows", "create", ""),
        (ARGO, "workflows", "get", ""),
        ("", "configmaps", "get", scene.config_map),
    ]
    lacking = [
        f"{verb} {resource}" for group, resource, verb, name in wanted if not _may(scene, group, resource, verb, name)
    ]
    if lacking:
        yield fail("your rights", f"you may not {', '.join(lacking)} in {scene.namespace}", _CLIENT_ROLE)
    else:
        yield ok("your rights", f"you may submit and watch runs in {scene.namespace}")


def _may(scene: Scene, group: str, resource: str, verb: str, name: str) -> bool:
    attributes = ResourceAttributes(
        group=group, resource=resource, verb=verb, name=name or None, namespace=scene.namespace
    )
    review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=attributes))
    answer = scene.cluster.ask(review)
    return bool(answer.status and answer.status.allowed)


def service_accounts(scene: Scene) -> Iterator[Finding]:
    """The account that the pods run as: there, allowed to report, and to nothing else that matters."""
    for name in sorted({needs.service_account for needs in scene.needs.values()}):
        subject = f"service account {name}"
        try:
            scene.cluster.read(ServiceAccount, name)
        except NotThereError:
            yield fail(subject, f"is not in {scene.namespace}", "let the chart create it (workflow.serviceAccount)")
            continue
        except ForbiddenError:
            pass  # the roles may still be seen
        results = ((ARGO, "workflowtaskresults", "create"), (ARGO, "workflowtaskresults", "patch"))
        answers = [_account_may(scene, name, *one) for one in results]
        if None in answers:
            yield unknown(
                subject, "you may neither ask for its rights nor read roles", "`helm test` shows whether they suffice"
            )
        elif not all(answers):
            yield fail(subject, "may not report what a step left", _WORKFLOW_ROLE)
        elif _account_may(scene, name, "", "secrets", "list"):
            yield warn(subject, "may list secrets, which no run needs", "take that right from its roles")
        else:
            yield ok(subject, "may report what a step left")


def _account_may(scene: Scene, account: str, group: str, resource: str, verb: str) -> bool | None:
    """What the API says, else what the roles say; None where neither is to be seen."""
    attributes = ResourceAttributes(group=group, resource=resource, verb=verb, namespace=scene.namespace)
    review = LocalSubjectAccessReview(
        metadata=ObjectMeta(namespace=scene.namespace),
        spec=SubjectAccessReviewSpec(
            user=f"system:serviceaccount:{scene.namespace}:{account}",
            groups=["system:serviceaccounts", f"system:serviceaccounts:{scene.namespace}", "system:authenticated"],
            resourceAttributes=attributes,
        ),
    )
    try:
        answer = scene.cluster.ask(review)
    except ForbiddenError:
        return _by_roles(scene, account, group, resource, verb)
    return bool(answer.status and answer.status.allowed)


def _by_roles(scene: Scene, account: str, group: str, resource: str, verb: str) -> bool | None:
    try:
        bindings: list[Any] = list(scene.cluster.listed(RoleBinding))
        rules = {("Role", _name(one)): one.rules for one in scene.cluster.listed(Role)}
    except ForbiddenError:
        return None
    whole = True
    try:
        bindings += scene.cluster.listed(ClusterRoleBinding)
        rules |= {("ClusterRole", _name(one)): one.rules for one in scene.cluster.listed(ClusterRole)}
    except ForbiddenError:
        whole = False
    for binding in bindings:
        if not any(_is_account(subject, account, scene.namespace) for subject in binding.subjects or ()):
            continue
        for rule in rules.get((binding.roleRef.kind, binding.roleRef.name)) or ():
            if not rule.resourceNames and all(
                _matches(wanted, have)
                for wanted, have in ((group, rule.apiGroups), (resource, rule.resources), (verb, rule.verbs))
            ):
                return True
    # A role of the whole cluster may still give it.
    return False if whole else None


def _is_account(subject: Any, account: str, namespace: str) -> bool:  # noqa: ANN401 - of two kinds of bindings
    if subject.kind == "ServiceAccount":
        return subject.name == account and (subject.namespace or namespace) == namespace
    return subject.kind == "Group" and subject.name in (
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    )


def _matches(wanted: str, have: Sequence[str] | None) -> bool:
    return wanted in (have or ()) or "*" in (have or ())


def _name(role: Role | ClusterRole) -> str:
    return (role.metadata.name if role.metadata else None) or ""


def secrets(scene: Scene) -> Iterator[Finding]:
    """The secrets by name and key. Their values are not looked at, beyond whether there is one."""
    wanted: dict[str, set[str]] = {}
    for needs in scene.needs.values():
        for secret in needs.secrets:
            wanted.setdefault(secret.name, set()).update(secret.keys)
    store = scene.installation.store_secret if scene.installation else None
    for name, keys in sorted(wanted.items()):
        required = sorted(key for key in keys if key not in OPTIONAL_KEYS)
        if not required:
            continue  # a webhook, which an installation has or has not
        subject = f"secret {name}"
        if store == "":
            yield ok(subject, "is not used: credentials come from the service account or the node")
            continue
        try:
            data = scene.cluster.read(Secret, name).data or {}
        except NotThereError:
            yield fail(
                subject,
                f"is not in {scene.namespace}",
                f"kubectl -n {scene.namespace} create secret generic {name} {_literals(required)}",
            )
        except ForbiddenError:
            yield unknown(subject, "you may not read it", "the step check says within a minute when it is missing")
        else:
            empty = [key for key in required if not data.get(key)]
            if empty:
                yield fail(subject, f"has nothing under {', '.join(empty)}", "put the store's keys in")
            else:
                yield ok(subject, f"has {', '.join(required)}")


def _literals(keys: Iterable[str]) -> str:
    return " ".join(f"--from-literal={key}=…" for key in keys)
