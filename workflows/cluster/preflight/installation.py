"""Preflight: what the chart and Argo created in the cluster."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from run_config.parameter_forms import ANNOTATION, FORM_VERSION
from run_config.parameters import BRIDGE_TEMPLATES, TEMPLATES
from workflows.cluster.artifact_repository import read_repository, repository_reference
from workflows.cluster.errors import NotThereError
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot
from workflows.cluster.templates import SETTINGS_KEY

INSTALL = "install the chart detr-workflows in this namespace, see docs/install.md"
UPGRADE = "upgrade the chart (`helm upgrade`) or this command, so that both are of one version"
UNTOUCHED_AFTER = timedelta(seconds=60)


def templates(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that our templates exist and have the parameters that this command knows."""
    bridge = any(name in snapshot.trees for name in BRIDGE_TEMPLATES)
    for name, parameters in TEMPLATES.items():
        if name in BRIDGE_TEMPLATES and not bridge:
            continue
        tree = snapshot.trees.get(name)
        subject = f"template {name}"
        if tree is None:
            yield fail(subject, f"is not in {snapshot.namespace}", INSTALL)
            continue
        version = _form_version(tree)
        if version is None:
            yield fail(subject, "is not from the chart, or was changed: it has no form", INSTALL)
        elif version != FORM_VERSION:
            yield fail(
                subject, f"has a form of version {version}, but this command knows version {FORM_VERSION}", UPGRADE
            )
        else:
            ours, theirs = {one.name for one in parameters}, set(snapshot.templates[name].arguments)
            other = sorted(ours ^ theirs)
            if other:
                yield warn(
                    subject,
                    f"is of another version: only the template or only this command has {', '.join(other)}",
                    UPGRADE,
                )
            else:
                yield ok(subject, "has the parameters that this command knows")


def _form_version(tree: Mapping[str, Any]) -> object:
    text = (tree["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        form = json.loads(text or "null")
    except ValueError:
        return None
    return form.get("version") if isinstance(form, dict) else None


def controller(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that Argo's controller watches this namespace, from the state of the workflows in it."""
    workflows = list(snapshot.cluster.workflows())
    untouched = [one for one in workflows if not (one.get("status") or {}).get("phase") and _age(one) > UNTOUCHED_AFTER]
    if untouched:
        names = ", ".join(sorted(str(one["metadata"]["name"]) for one in untouched)[:3])
        yield fail(
            "controller",
            f"no Argo controller has started {names}",
            "start Argo's controller, or let it watch this namespace (`--managed-namespace`, instance id)",
        )
    elif any((one.get("status") or {}).get("phase") for one in workflows):
        yield ok("controller", "runs the workflows of this namespace")
    else:
        yield unknown("controller", "no workflow has run here yet", "`helm test` or a first run will show it")


def _age(workflow: Mapping[str, Any]) -> timedelta:
    created = datetime.fromisoformat(workflow["metadata"]["creationTimestamp"])
    return datetime.now(UTC) - created


def settings(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the ConfigMap with the settings of the platform engineer."""
    subject = f"ConfigMap {snapshot.config_map}"
    if isinstance(snapshot.entries_error, NotThereError):
        yield fail(subject, f"is not in {snapshot.namespace}", INSTALL)
    elif snapshot.entries_error is not None:
        yield unknown(
            subject, str(snapshot.entries_error), "the step check reads it; ask for the permission to read it"
        )
    elif snapshot.entries is not None and SETTINGS_KEY not in snapshot.entries:
        yield fail(subject, f"has no key {SETTINGS_KEY}", INSTALL)
    elif snapshot.installation is None:
        yield fail(subject, snapshot.settings_error, "fix the chart's values and run `helm upgrade`")
    else:
        yield ok(subject, f"is valid; runs write to {snapshot.installation.store}")


def artifacts(snapshot: Snapshot) -> Iterator[Finding]:
    """Check Argo's artifact repository that the templates reference."""
    for config_map, key in sorted({repository_reference(tree) for tree in snapshot.trees.values()}):
        subject = f"artifact repository {config_map}/{key}"
        if not config_map:
            yield warn(
                "artifact repository",
                "is set in the controller, and cannot be checked from here",
                "`argo logs` after a first run",
            )
            continue
        try:
            entries = snapshot.cluster.settings(config_map)
        except NotThereError:
            yield fail(subject, "the ConfigMap is missing", INSTALL)
            continue
        if key not in entries:
            yield fail(subject, f"the ConfigMap has no key {key}", INSTALL)
            continue
        repository = read_repository(entries[key])
        bucket = repository.bucket
        if not bucket:
            yield fail(subject, "has no bucket", "fix the chart's values store.* and run `helm upgrade`")
        elif snapshot.installation and bucket != snapshot.installation.store.removeprefix("s3://").partition("/")[0]:
            yield fail(
                subject,
                f"is the bucket {bucket}, but runs write to {snapshot.installation.store}",
                "use the same bucket for both, or the report will not find the model",
            )
        elif repository.archive_logs:
            yield warn(
                subject,
                f"is the bucket {bucket}, and has archiveLogs: true, which overrides the templates: even the step "
                "check then needs the repository's secrets, and stays in PodInitializing if one is missing",
                "remove archiveLogs from it: the templates keep logs without it (value workflow.archiveLogs)",
            )
        else:
            yield ok(subject, f"is the bucket {bucket}")
