"""Read what a run is about from its workflow: labels, annotations and parameters."""

from collections.abc import Mapping
from typing import Any

from workflows.cluster.submission import ARGO_TEMPLATE_LABEL

USED_BY = {"used-by": "cvat"}
"""The label of our templates and of those offered in CVAT, and of workflows created from them."""

USER_NAME = "detr-workflows/cvat-user-name"
"""Annotation with the name of the user in CVAT who started the run."""

SUBJECT = "detr-workflows/cvat-subject"
"""Annotation with the tasks or the project in CVAT."""


def annotation(workflow: Mapping[str, Any], name: str) -> str:
    """An annotation of a workflow. Empty if it is missing."""
    return str((workflow["metadata"].get("annotations") or {}).get(name) or "")


def label(workflow: Mapping[str, Any], name: str) -> str:
    """A label of a workflow. Empty if it is missing."""
    return str((workflow["metadata"].get("labels") or {}).get(name) or "")


def argument(workflow: Mapping[str, Any], name: str) -> str:
    """A parameter of the run, or its default in the template, which Argo stores with the run. Empty: neither."""
    stored = (workflow.get("status") or {}).get("storedWorkflowTemplateSpec") or {}
    for spec in (workflow.get("spec") or {}, stored):
        for one in (spec.get("arguments") or {}).get("parameters") or ():
            if one.get("name") == name:
                return str(one.get("value") or "")
    return ""


def template_of(workflow: Mapping[str, Any]) -> str:
    """The name of the run's template."""
    return label(workflow, ARGO_TEMPLATE_LABEL)


def folder(workflow: Mapping[str, Any]) -> str | None:
    """The run's folder, a key below the store. None: unknown or invalid."""
    prefix = argument(workflow, "cvat-output-path").strip("/")
    parts = prefix.split("/")
    if not prefix or any(part in ("", ".", "..") for part in parts):
        return None
    return f"{prefix}/{workflow['metadata']['name']}"
