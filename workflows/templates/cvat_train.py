"""The template `cvat-train`: train and evaluate a detector on tasks or a project of CVAT.

It also contains `export-for-others`, a template that third-party workflows reference to get an export.
"""

from hera.workflows import DAG, Task, WorkflowTemplate

from workflows.templates.detr_train import result
from workflows.templates.preparing import FROM_EXPORT, preparing, targets
from workflows.templates.steps import (
    RUN_PREFIX,
    check,
    export,
    export_for_others,
    given,
    report,
    train,
)
from workflows.templates.template import settings

TITLE = "Train a detection transformer"
DESCRIPTION = (
    "Trains a detector on the boxes of the task and evaluates it: **check** the settings, **export** the "
    "annotations, **prepare** the data set, **train**, **report**. The model and `report/index.html` are in the "
    "store, under the output prefix and the name of the run."
)

with (
    WorkflowTemplate(
        **settings(
            "cvat-train",
            TITLE,
            DESCRIPTION,
            given("model"),
            f"{given('cvat-subject')} → {RUN_PREFIX}",
            export_for_others,
        )
    ) as cvat_train,
    DAG(
        name="main",
        target=targets("report"),
        outputs=[result("prepare", "prepared-set"), result("report", "ap"), result("report", "ap50")],
    ),
):
    checked = Task(name="check", template=check("cvat-train"))
    exported = Task(name="export", template=export)
    prepared = preparing(exported, FROM_EXPORT, {"dataset": exported.get_parameter("dataset")})
    prepared_set = {"prepared-set": prepared.get_parameter("prepared-set")}
    trained = Task(name="train", template=train, arguments=prepared_set | {"model": checked.get_parameter("model")})
    reported = Task(name="report", template=report, arguments=prepared_set)
    checked >> exported
    prepared >> trained
    trained >> reported
