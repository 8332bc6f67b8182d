"""Build a workflow around a third-party template: first CVAT's export, then the template by reference.

A `templateRef` only uses one step of the other template. So the template's workflow-wide settings (volumes, service
accounts, pod patches) are copied. The step `export-for-others` brings its own settings.
"""

from collections.abc import Mapping
from typing import Any

from cvat_bridge.templates.catalog import Fill, OfferedTemplate
from cvat_bridge.templates.export_formats import export_format
from cvat_bridge.templates.fill_parameters import RunContext
from workflows.cluster.submission import workflow

EXPORTER = {"name": "cvat-train", "template": "export-for-others"}
ENTRYPOINT = "export-and-run"

_OWN = frozenset(
    {"arguments", "entrypoint", "templates", "workflowTemplateRef", "workflowMetadata", "suspend", "shutdown", "onExit"}
)
"""Keys of the spec that are not copied, because the new workflow sets them itself."""


def workflow_around(
    offered: OfferedTemplate,
    texts: Mapping[str, str],
    context: RunContext,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """Build the Workflow object to create."""
    spec = offered.tree.get("spec") or {}
    theirs = spec.get("workflowMetadata") or {}
    body = workflow(
        offered.template,
        texts,
        context.run,
        {**(theirs.get("labels") or {}), **labels},
        {**(theirs.get("annotations") or {}), **annotations},
    )
    field = offered.filled(Fill.FORMAT)
    exporting = {
        "subject": str(context.subject),
        "grant": context.grant,
        "store": context.installation.store,
        "into": context.into,
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
    """Arguments for the template's entry point. Argo only fills them itself for the workflow's own entry point."""
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
    """The template's exit handler and hooks, by reference."""
    hooks = {}
    for key, hook in (spec.get("hooks") or {}).items():
        own = {field: value for field, value in hook.items() if field != "template"}
        if hook.get("template"):
            own["templateRef"] = {"name": name, "template": hook["template"]}
        hooks[key] = own
    if spec.get("onExit"):
        hooks.setdefault("exit", {"templateRef": {"name": name, "template": spec["onExit"]}})
    return {"hooks": hooks} if hooks else {}
