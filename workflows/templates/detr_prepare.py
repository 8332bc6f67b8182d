"""The template `detr-prepare`: turn CVAT exports into a prepared set, without training."""

from hera.workflows import DAG, Task, WorkflowTemplate

from run_config.cvat_formats import COCO
from workflows.templates.detr_train import result
from workflows.templates.preparing import FROM_PARAMETER, preparing, targets
from workflows.templates.steps import check, given
from workflows.templates.template import settings

TITLE = "Prepare a data set"

with (
    WorkflowTemplate(
        **settings(
            "detr-prepare",
            TITLE,
            f"Checks a CVAT export in {COCO} format, splits it and writes a prepared set with a report of the "
            "findings. A training run with the same data and options uses this set instead of preparing again.",
            "prepare",
            given("cvat-annotation-path"),
        )
    ) as detr_prepare,
    DAG(name="main", target=targets("prepare"), outputs=[result("prepare", "prepared-set")]),
):
    checked = Task(name="check", template=check("detr-prepare"))
    preparing(checked, FROM_PARAMETER)
