"""What the workflow templates share: parameters, descriptions and the security of their pods."""

from typing import Any

from hera.workflows import Container, Counter, Parameter
from hera.workflows import Label as MetricLabel
from hera.workflows import models as m

from run_config import parameter_forms, parameters
from workflows.templates import pods, steps

OUR_TEMPLATE_LABEL = "detr-workflows/template"
"""Label on every workflow with the name of its template, if it is one of ours."""

A_MONTH_S = 30 * 24 * 3600


def argument(parameter: parameters.Parameter) -> Parameter:
    """A user's parameter as a parameter of Argo: text, with a list of choices, and the help as the tooltip."""
    choices = list(parameter.choices) or None
    description = f"**{parameter.title}.**\n\n{parameter.help}"
    if parameter.default is None:
        # A required parameter must have no value: None would become the text "null".
        return Parameter(name=parameter.name, description=description, enum=choices)
    return Parameter(name=parameter.name, description=description, enum=choices, value=parameter.default)


def settings(
    name: str, title: str, description: str, run: str, data: str, *more: Container, in_cvat: bool = True
) -> dict[str, Any]:
    """The arguments of the WorkflowTemplate `name`, except its graph.

    `run` and `data` may have tags. Argo's list of workflows shows `data` below the title, and the title in place of the
    run's name: so the title is the name and `run`, which is short. `more` are steps that are not part of the graph.
    `in_cvat`: the form in CVAT offers the template.
    """
    offered = {"used-by": "cvat"} if in_cvat else {}
    taken = parameters.TEMPLATES[name]
    return {
        "name": name,
        "entrypoint": "main",
        "labels": offered,
        "annotations": {
            "workflows.argoproj.io/title": title,
            "workflows.argoproj.io/description": description,
            parameter_forms.ANNOTATION: parameter_forms.form_json(taken),
        },
        "arguments": [argument(parameter) for parameter in taken],
        # Argo does not copy the labels and annotations of the template to its workflows.
        "workflow_metadata": m.WorkflowMetadata(
            labels={**offered, OUR_TEMPLATE_LABEL: name},
            annotations={
                "workflows.argoproj.io/title": f"{{{{workflow.name}}}}: {run}",
                "workflows.argoproj.io/description": data,
            },
        ),
        "pod_metadata": m.Metadata(labels=pods.LABELS),
        "service_account_name": pods.NAME,
        "security_context": pods.POD_SECURITY,
        "pod_spec_patch": pods.patch_of_every_pod(),
        "artifact_repository_ref": m.ArtifactRepositoryRef(config_map=pods.NAME, key="artifacts"),
        # Without this, Argo's page says that artifacts will be deleted with the workflow.
        "artifact_gc": m.WorkflowLevelArtifactGC(strategy="Never"),
        "templates": [steps.tell(name), *more],
        "on_exit": "tell",
        "ttl_strategy": m.TTLStrategy(seconds_after_completion=A_MONTH_S),
        # Pods of successful steps are deleted after a while. Failed pods are kept, so that people can inspect them.
        "pod_gc": m.PodGC(strategy="OnPodSuccess", delete_delay_duration="10m"),
        "metrics": [
            Counter(
                name="detr_workflows_runs_total",
                help="Finished runs, by template and how they ended.",
                value="1",
                labels=[
                    MetricLabel(key="template", value=name),
                    MetricLabel(key="status", value="{{workflow.status}}"),
                ],
            )
        ],
    }
