"""The template `detr-train`: train and evaluate a detector on a CVAT export."""

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate
from hera.workflows import models as m

from run_config.cvat_formats import COCO
from workflows.templates.preparing import FROM_PARAMETER, preparing, targets
from workflows.templates.steps import RUN_PREFIX, check, given, report, train
from workflows.templates.template import settings

TITLE = "Train a detection transformer"
DESCRIPTION = (
    f"Trains and evaluates a detector on a CVAT export in {COCO} format: **check** the parameters, **prepare** the "
    "data set, **train**, **report**. The model and `report/index.html` are in the store, under the output prefix "
    "and the name of the run."
)


def result(task: str, name: str) -> Parameter:
    """An output of a step as an output of the whole workflow."""
    return Parameter(name=name, value_from=m.ValueFrom(parameter=f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"))


with (
    WorkflowTemplate(
        **settings(
            "detr-train",
            TITLE,
            DESCRIPTION,
            given("model"),
            f"{given('cvat-annotation-path')} → {RUN_PREFIX}",
        )
    ) as detr_train,
    DAG(
        name="main",
        target=targets("report"),
        outputs=[result("prepare", "prepared-set"), result("report", "ap"), result("report", "ap50")],
    ),
):
    checked = Task(name="check", template=check("detr-train"))
    prepared = preparing(checked, FROM_PARAMETER)
    prepared_set = {"prepared-set": prepared.get_parameter("prepared-set")}
    trained = Task(name="train", template=train, arguments=prepared_set | {"model": checked.get_parameter("model")})
    reported = Task(name="report", template=report, arguments=prepared_set)
    prepared >> trained
    trained >> reported
