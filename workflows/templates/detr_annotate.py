"""The template `detr-annotate`: add boxes of a trained model to tasks of CVAT."""

from hera.workflows import DAG, Task, WorkflowTemplate

from workflows.templates.detr_train import result
from workflows.templates.steps import annotate, check, given
from workflows.templates.template import settings

TITLE = "Annotate with a model"

with (
    WorkflowTemplate(
        **settings(
            "detr-annotate",
            TITLE,
            "A trained model adds its boxes to tasks in CVAT: **check** the parameters, **annotate**. Labels are "
            "matched by their names. Shapes that people drew are kept, unless *Existing shapes* says otherwise.",
            "annotate",
            f"{given('cvat-subject')} ← {given('trained-model')}",
        )
    ) as detr_annotate,
    DAG(name="main", outputs=[result("annotate", "message")]),
):
    checked = Task(name="check", template=check("detr-annotate"))
    annotated = Task(name="annotate", template=annotate)
    checked >> annotated
