"""Preflight: the permissions of the caller and of the pods, and the secrets that the pods read."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from workflows.cluster.artifact_repository import read_repository, repository_reference
from workflows.cluster.errors import ForbiddenError, NotThereError
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot

ARGO = "argoproj.io"

_CLIENT_ROLE = "ask for the chart's role for clients (value rbac.clientSubjects)"
_WORKFLOW_ROLE = "let the chart create its roles (rbac.create), or bind one with workflowtaskresults: create, patch"


def caller(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the permissions to submit and watch runs."""
    wanted = [
        (ARGO, "workflowtemplates", "get", ""),
        (ARGO, "workflows", "create", ""),
        (ARGO, "workflows", "get", ""),
    ]
    lacking = [
        f"{verb} {resource}"
        for group, resource, verb, name in wanted
        if not _may(snapshot, group, resource, verb, name)
    ]
    if lacking:
        yield fail("your rights", f"you may not {', '.join(lacking)} in {snapshot.namespace}", _CLIENT_ROLE)
    else:
        yield ok("your rights", f"you may submit and watch runs in {snapshot.namespace}")
    if not _may(snapshot, "", "configmaps", "get", snapshot.config_map):
        what = "you may not read it, so wrong pools and locations are rejected by the run's first step, not by `submit`"
        yield warn(f"ConfigMap {snapshot.config_map} for you", what, _CLIENT_ROLE)


def _may(snapshot: Snapshot, group: str, resource: str, verb: str, name: str) -> bool:
    return snapshot.cluster.may({"group": group, "resource": resource, "verb": verb, "name": name})


def service_accounts(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the service account of the pods: it exists, may report results, and may not list secrets."""
    for name in sorted({needs.service_account for needs in snapshot.needs.values()}):
        subject = f"service account {name}"
        try:
            snapshot.cluster.service_account(name)
        except NotThereError:
            yield fail(
                subject, f"is not in {snapshot.namespace}", "let the chart create it (serviceAccounts.workflow.create)"
            )
            continue
        except ForbiddenError:
            pass  # its roles may still be readable
        results = ((ARGO, "workflowtaskresults", "create"), (ARGO, "workflowtaskresults", "patch"))
        answers = [_account_may(snapshot, name, *one) for one in results]
        if None in answers:
            yield unknown(
                subject,
                "you may neither check its permissions nor read roles",
                "`helm test` shows whether they suffice",
            )
        elif not all(answers):
            yield fail(subject, "may not report the outputs of a step", _WORKFLOW_ROLE)
        elif _account_may(snapshot, name, "", "secrets", "list"):
            yield warn(subject, "may list secrets, which no run needs", "remove that permission from its roles")
        else:
            yield ok(subject, "may report the outputs of a step")


def _account_may(snapshot: Snapshot, account: str, group: str, resource: str, verb: str) -> bool | None:
    """Ask the API, or else read the roles. None: the caller may do neither."""
    try:
        return snapshot.cluster.service_account_may(account, {"group": group, "resource": resource, "verb": verb})
    except ForbiddenError:
        return _by_roles(snapshot, account, group, resource, verb)


def _by_roles(snapshot: Snapshot, account: str, group: str, resource: str, verb: str) -> bool | None:
    try:
        bindings: list[Any] = list(snapshot.cluster.role_bindings())
        rules = {("Role", one.metadata.name): one.rules for one in snapshot.cluster.roles()}
    except ForbiddenError:
        return None
    whole = True
    try:
        bindings += snapshot.cluster.cluster_role_bindings()
        rules |= {("ClusterRole", one.metadata.name): one.rules for one in snapshot.cluster.cluster_roles()}
    except ForbiddenError:
        whole = False
    for binding in bindings:
        if not any(_is_account(subject, account, snapshot.namespace) for subject in binding.subjects or ()):
            continue
        for rule in rules.get((binding.role_ref.kind, binding.role_ref.name)) or ():
            if not rule.resource_names and all(
                _matches(wanted, have)
                for wanted, have in ((group, rule.api_groups), (resource, rule.resources), (verb, rule.verbs))
            ):
                return True
    # A cluster role that the caller cannot see may still grant it.
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


def secrets(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the names and keys of the secrets. Of their values, only the presence is checked."""
    by_steps: dict[str, set[str]] = {}
    for_cvat: dict[str, set[str]] = {}
    for needs in snapshot.needs.values():
        for secret in needs.secrets:
            by_steps.setdefault(secret.name, set()).update(secret.keys)
            for_cvat.setdefault(secret.name, set()).update(secret.cvat_keys)
    by_argo, always = _of_artifacts(snapshot)
    store = snapshot.installation.store_secret if snapshot.installation else None
    for name in sorted(by_steps.keys() | by_argo.keys()):
        read = by_steps.get(name, set())
        mounted = by_argo.get(name, set())
        cvat = for_cvat.get(name, set())
        if store == "":
            if read and not mounted | cvat:
                yield ok(f"secret {name}", "is not used: credentials come from the service account or the node")
            read = cvat
        # The step check reports a missing key of the secrets that it reads, if its own pod can start without secrets.
        silent = mounted if always else mounted - read
        if read | mounted:
            only_cvat = bool(cvat) and cvat == read | mounted
            yield _secret(snapshot, name, sorted(read | mounted), silent, only_cvat=only_cvat)


def _of_artifacts(snapshot: Snapshot) -> tuple[dict[str, set[str]], bool]:
    """Secret → keys that the artifact repository references, and whether every pod needs them.

    An unreadable repository is skipped here: `artifacts` reports it.
    """
    found: dict[str, set[str]] = {}
    always = False
    for config_map, key in {repository_reference(tree) for tree in snapshot.trees.values()}:
        if not config_map:
            continue
        try:
            entries = snapshot.cluster.settings(config_map)
        except (ForbiddenError, NotThereError):
            continue
        repository = read_repository(entries.get(key, ""))
        always |= repository.archive_logs
        for name, keys in repository.secrets.items():
            found.setdefault(name, set()).update(keys)
    return found, always


def _secret(
    snapshot: Snapshot, name: str, required: Sequence[str], silent: Collection[str], *, only_cvat: bool
) -> Finding:
    """Check one secret. `silent`: the keys without which a pod never starts, so that no step can report them.

    `only_cvat`: the secret has no keys for the store.
    """
    subject = f"secret {name}"
    stuck = "the artifact repository refers to it, so pods that keep a log or an artifact stay in PodInitializing"
    teller = "steps export and annotate report it" if only_cvat else "step check reports it within a minute"
    said = len(silent) < len(required) and f"the {teller} if it is missing"
    try:
        data = snapshot.cluster.secret(name).data or {}
    except NotThereError:
        return fail(
            subject,
            f"is not in {snapshot.namespace}" + ("" if said else f"; {stuck}"),
            f"kubectl -n {snapshot.namespace} create secret generic {name} {_files(required)}",
        )
    except ForbiddenError:
        return unknown(subject, "you may not read it", said or f"ask somebody who may: {stuck} without it")
    empty = [key for key in required if not data.get(key)]
    if empty:
        mute = any(key in silent and key not in data for key in empty)
        return fail(
            subject,
            f"has no value for {', '.join(empty)}" + (f"; {stuck}" if mute else ""),
            "add CVAT's token and the signing key" if only_cvat else "add the store's keys",
        )
    return ok(subject, f"has {', '.join(required)}")


def _files(keys: Iterable[str]) -> str:
    """Options that read each key from a file of its name: values on a command line stay in the shell's history."""
    return " ".join(f"--from-file={key}" for key in keys)
