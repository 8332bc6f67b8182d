"""The template `detr-weights`: bring published weights into the store."""

from hera.workflows import DAG, Task, WorkflowTemplate

from workflows.templates.steps import given, pull
from workflows.templates.template import settings

TITLE = "Bring published weights"

with (
    WorkflowTemplate(
        **settings(
            "detr-weights",
            TITLE,
            "Downloads published weights, checks them and stores them under `weights/` in the store, from where "
            "every run can start. A mirror or a proxy is set in the chart's values.",
            "pull",
            given("weights"),
            in_cvat=False,
        )
    ) as detr_weights,
    DAG(name="main"),
):
    Task(name="pull", template=pull)
