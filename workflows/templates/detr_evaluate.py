"""The template `detr-evaluate`: evaluate a trained model on a prepared set."""

from hera.workflows import DAG, Task, WorkflowTemplate

from workflows.templates.detr_train import result
from workflows.templates.steps import RUN_PREFIX, check, evaluate, given, report
from workflows.templates.template import settings

TITLE = "Evaluate a model"

with (
    WorkflowTemplate(
        **settings(
            "detr-evaluate",
            TITLE,
            "Evaluates the model of an earlier run on the val or test part of any prepared set with the same classes: "
            "**check**, **evaluate**, **report**. Predictions, metrics and `report/index.html` are in the store.",
            given("split"),
            f"{given('prepared-set')}, {given('trained-model')} → {RUN_PREFIX}",
        )
    ) as detr_evaluate,
    DAG(name="main", outputs=[result("report", "ap"), result("report", "ap50")]),
):
    checked = Task(name="check", template=check("detr-evaluate"))
    evaluated = Task(name="evaluate", template=evaluate)
    reported = Task(name="report", template=report, arguments={"prepared-set": given("prepared-set")})
    checked >> evaluated
    evaluated >> reported
