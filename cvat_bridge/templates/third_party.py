"""A workflow around a template of somebody else: CVAT's export first, then that template by reference.

A reference takes a step from another template, and nothing else of it. What the template says for all its
steps (volumes, accounts, patches of pods) is therefore copied. The step `export-for-others` brings its own.
"""

from collections.abc import Mapping
from typing import Any

from cvat_bridge.templates.catalog import Fill, Offered
from cvat_bridge.templates.export_formats import export_format
from cvat_bridge.templates.fill_parameters import Filling
from workflows.cluster.submission import workflow

EXPORTER = {"name": "cvat-train", "template": "export-for-others"}
ENTRYPOINT = "export-and-run"

_OWN = frozenset(
    {"arguments", "entrypoint", "templates", "workflowTemplateRef", "workflowMetadata", "suspend", "shutdown", "onExit"}
)
"""What is not copied: the graph is another one, and the rest is said here."""


def workflow_around(
    offered: Offered,
    texts: Mapping[str, str],
    filling: Filling,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """The Workflow to create."""
    spec = offered.tree.get("spec") or {}
    theirs = spec.get("workflowMetadata") or {}
    body = workflow(
        offered.template,
        texts,
        filling.run,
        {**(theirs.get("labels") or {}), **labels},
        {**(theirs.get("annotations") or {}), **annotations},
    )
    field = offered.filled(Fill.FORMAT)
    exporting = {
        "subject": str(filling.subject),
        "grant": filling.grant,
        "store": filling.installation.store,
        "into": filling.into,
        "format": export_format((texts.get(field.name) or "") if field else ""),
    }
    name = offered.template.name
    tasks = [
        {"name": "export", "templateRef": EXPORTER, "arguments": _parameters(exporting)},
        {
            "name": "run",
            "depends": "export",
            "templateRef": {"name": name, "template": spec.get("entrypoint")},
            "arguments": _passed_on(spec),
        },
    ]
    arguments = dict(body["spec"]["arguments"])
    if artifacts := (spec.get("arguments") or {}).get("artifacts"):
        arguments["artifacts"] = artifacts
    body["spec"] = {
        **{key: value for key, value in spec.items() if key not in _OWN},
        **_hooks(name, spec),
        "entrypoint": ENTRYPOINT,
        "arguments": arguments,
        "templates": [{"name": ENTRYPOINT, "dag": {"tasks": tasks}}],
    }
    return body


def _parameters(texts: Mapping[str, Any]) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value} for name, value in texts.items()]}


def _passed_on(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the entry point, which Argo fills from the workflow's arguments only when it is the entry point."""
    entrypoint: Mapping[str, Any] = next(
        (one for one in spec.get("templates") or () if one.get("name") == spec.get("entrypoint")), {}
    )
    inputs, given = entrypoint.get("inputs") or {}, spec.get("arguments") or {}
    known = {one["name"] for one in given.get("parameters") or ()}
    files = {one["name"]: one for one in given.get("artifacts") or ()}
    passed: dict[str, Any] = {}
    parameters = [
        {"name": one["name"], "value": f"{{{{workflow.parameters.{one['name']}}}}}"}
        for one in inputs.get("parameters") or ()
        if one["name"] in known
    ]
    artifacts = [files[one["name"]] for one in inputs.get("artifacts") or () if one["name"] in files]
    if parameters:
        passed["parameters"] = parameters
    if artifacts:
        passed["artifacts"] = artifacts
    return passed


def _hooks(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The exit handler and the hooks, by reference too."""
    hooks = {}
    for key, hook in (spec.get("hooks") or {}).items():
        own = {field: value for field, value in hook.items() if field != "template"}
        if hook.get("template"):
            own["templateRef"] = {"name": name, "template": hook["template"]}
        hooks[key] = own
    if spec.get("onExit"):
        hooks.setdefault("exit", {"templateRef": {"name": name, "template": spec["onExit"]}})
    return {"hooks": hooks} if hooks else {}
