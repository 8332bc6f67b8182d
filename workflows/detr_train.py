"""The template `detr-train`: a CVAT export becomes a trained, evaluated detector.

Every value of a person reaches a container as one item of its argument list, never inside a shell's
text. What a step leaves below $OUT belongs to the run; files in $OUT/outputs are its parameters.
"""

from hera.workflows import DAG, Container, EmptyDirVolume, Env, Parameter, Task, WorkflowTemplate
from hera.workflows import models as m

from run_config import parameter_forms, parameters
from workflows import images

OUT = "/mnt/out"

TITLE = "Train a detection transformer"
DESCRIPTION = (
    "Takes a CVAT export in COCO 1.0 format to a trained and evaluated detector: **check** the parameters, "
    "**prepare** the data set, **train**, **report**. The model and `report/index.html` lie in the store, "
    "under the output prefix and the name of the run."
)


def argument(parameter: parameters.Parameter) -> Parameter:
    """A user's parameter as Argo knows it: strings, a list of choices, help as the tooltip."""
    choices = list(parameter.choices) or None
    description = f"**{parameter.title}.**\n\n{parameter.help}"
    if parameter.default is None:
        # A required one has no value at all: None would become the text "null".
        return Parameter(name=parameter.name, description=description, enum=choices)
    return Parameter(name=parameter.name, description=description, enum=choices, value=parameter.default)


def given(name: str) -> str:
    """The tag that stands for a user's parameter; an unknown name fails here, not in the cluster."""
    return f"{{{{workflow.parameters.{parameters.BY_NAME[name].name}}}}}"


def output(name: str) -> Parameter:
    """An output parameter, which the step writes to $OUT/outputs."""
    return Parameter(name=name, value_from=m.ValueFrom(path=f"{OUT}/outputs/{name}"))


RUN_PREFIX = f"{given('cvat-output-path')}/{{{{workflow.name}}}}"
"""Where the run lies, below the store."""

out_volume = EmptyDirVolume(name="out", mount_path=OUT)
out_env = Env(name="OUT", value=OUT)

check = Container(
    name="check",
    image=images.CPU_STEPS,
    command=["data-prep"],
    args=[
        "check",
        "--run={{workflow.name}}",
        "--workflow-uid={{workflow.uid}}",
        "--parameters-json={{workflow.parameters.json}}",
    ],
)

prepare = Container(
    name="prepare",
    image=images.CPU_STEPS,
    command=["data-prep"],
    args=[
        "prepare",
        f"--store={given('store')}",
        f"--test={given('cvat-test-path')}",
        f"--val-fraction={given('val-fraction')}",
        f"--seed={given('seed')}",
        "--",
        given("cvat-annotation-path"),
    ],
    env=[out_env],
    volumes=[out_volume],
    outputs=[output("prepared-set")],
)

train = Container(
    name="train",
    image=images.DETR_JOB,
    command=["detr-job"],
    inputs=[Parameter(name="prepared-set")],
    args=[
        "train",
        f"--store={given('store')}",
        "--set={{inputs.parameters.prepared-set}}",
        f"--output-prefix={given('cvat-output-path')}",
        "--run={{workflow.name}}",
        "--workflow-uid={{workflow.uid}}",
        f"--model={given('model')}",
        f"--finetune={given('cvat-finetune-checkpoint')}",
        f"--epochs={given('epochs')}",
        f"--minutes={given('minutes')}",
        f"--batch-size={given('batch-size')}",
        f"--learning-rate={given('learning-rate')}",
        f"--seed={given('seed')}",
        f"--device={given('device')}",
        f"--overrides={given('overrides')}",
        # For the record in run.json.
        "--parameters-json={{workflow.parameters.json}}",
    ],
    env=[out_env],
    volumes=[out_volume],
)

report = Container(
    name="report",
    image=images.CPU_STEPS,
    command=["python"],
    inputs=[Parameter(name="prepared-set")],
    args=[
        "-m",
        "evaluation",
        "report",
        f"--store={given('store')}",
        "--set={{inputs.parameters.prepared-set}}",
        f"--run-prefix={RUN_PREFIX}",
    ],
    env=[out_env],
    volumes=[out_volume],
    outputs=[output("ap"), output("ap50")],
)


def result(name: str) -> Parameter:
    """A number of the report as a result of the whole workflow."""
    return Parameter(name=name, value_from=m.ValueFrom(parameter=f"{{{{tasks.report.outputs.parameters.{name}}}}}"))


with (
    WorkflowTemplate(
        name="detr-train",
        entrypoint="main",
        labels={"used-by": "cvat"},
        annotations={
            "workflows.argoproj.io/title": TITLE,
            "workflows.argoproj.io/description": DESCRIPTION,
            parameter_forms.ANNOTATION: parameter_forms.form_json(),
        },
        arguments=[argument(parameter) for parameter in parameters.PARAMETERS],
        # Argo does not copy the template's annotations to the workflows made from it.
        workflow_metadata=m.WorkflowMetadata(
            annotations={
                "workflows.argoproj.io/title": f"{TITLE}: {given('model')}",
                "workflows.argoproj.io/description": f"{given('cvat-annotation-path')} → {RUN_PREFIX}",
            }
        ),
    ) as detr_train,
    DAG(name="main", outputs=[result("ap"), result("ap50")]),
):
    checked = Task(name="check", template=check)
    prepared = Task(name="prepare", template=prepare)
    prepared_set = {"prepared-set": prepared.get_parameter("prepared-set")}
    trained = Task(name="train", template=train, arguments=prepared_set)
    reported = Task(name="report", template=report, arguments=prepared_set)
    checked >> prepared
    prepared >> trained
    trained >> reported
