"""The steps of the workflows. Each is a container with a command line that a person could also type.

User input reaches a container only as separate items of its argument list, never inside a shell command or a pod's
patch. Files that a step writes below $OUT belong to the run. Files in $OUT/outputs are its output parameters.
"""

from collections.abc import Sequence
from typing import Any

from hera.workflows import (
    Artifact,
    Container,
    EmptyDirVolume,
    Env,
    Gauge,
    NoneArchiveStrategy,
    Parameter,
    Resources,
    RetryPolicy,
    RetryStrategy,
    S3Artifact,
)
from hera.workflows import models as m

from run_config import parameters
from run_config.argo_progress import ATTEMPT
from run_config.cvat_formats import COCO
from workflows.tags import PARAMETERS_JSON, RETRIES
from workflows.templates import images, pods
from workflows.templates.pods import OUT


def given(name: str) -> str:
    """The tag of a user's parameter. An unknown name fails here and not in the cluster."""
    return f"{{{{workflow.parameters.{parameters.BY_NAME[name].name}}}}}"


PARAMETERS = f"--parameters-json={{{{{PARAMETERS_JSON}}}}}"
"""All parameters of the workflow. Each step reads the ones it needs (`run_config.step_parameters`)."""

RUN_PREFIX = f"{given('cvat-output-path')}/{{{{workflow.name}}}}"
"""The folder of the run below the store."""


def output(name: str) -> Parameter:
    """An output parameter, which the step writes to $OUT/outputs."""
    return Parameter(name=name, value_from=m.ValueFrom(path=f"{OUT}/outputs/{name}"))


def left(name: str, path: str) -> Artifact:
    """An output artifact: $OUT/`path` is uploaded to the same path in the run's folder.

    It is not packed, so that a browser can show the report and the model can be read in place. The key of a folder ends
    with a slash.
    """
    return S3Artifact(
        name=name,
        path=f"{OUT}/{path.rstrip('/')}",
        key=f"{RUN_PREFIX}/{path}",
        archive=NoneArchiveStrategy(),
    )


# Retry lost pods, evictions and temporary faults (75), but never wrong input (2) or our own bugs. Exit code -1 means
# that nobody saw the container end. 137 without OOMKilled means a killed node, process or pod. A patch that Argo cannot
# apply comes from a wrong parameter that `check` did not find. A pod that filled its disk would fill it again.
PASSING = (
    "!(lastRetry.message matches 'OOMKilled|PodSpecPatch|exceeds the (total )?limit|ephemeral storage limit') "
    "&& (lastRetry.status == 'Error' || asInt(lastRetry.exitCode) in [-1, 75, 137, 143])"
)


def retry(limit: int) -> RetryStrategy:
    """Retry with a new pod after temporary faults. There is no maxDuration: Argo would use it as the pod's deadline."""
    return RetryStrategy(
        limit=str(limit),
        retry_policy=RetryPolicy.always,
        expression=PASSING,
        backoff=m.Backoff(duration="10s", factor=m.IntOrString(root="2"), cap="300s"),
    )


def step(
    role: str,
    image: str,
    needs: tuple[str, str, str],
    *,
    retries: int = 0,
    cvat: bool = False,
    shm: bool = False,
    archived: bool = True,
    more_env: Sequence[Any] = (),
) -> dict[str, Any]:
    """The arguments that all steps have: image, environment, volumes, resources, security, labels and retries.

    `role`: the label by which the chart sets resources and placement. `needs`: requests of CPU, memory and disk; the
    latter two are also limits. `cvat`: the step uses CVAT. `shm`: shared memory for the data loader's processes.
    `archived`: Argo stores the log in the artifact repository.
    """
    volumes = [EmptyDirVolume(name="out", mount_path=OUT), EmptyDirVolume(name="tmp", mount_path="/tmp")]  # noqa: S108
    if shm:
        # The default size in a container is 64 MB.
        two_gib = m.Quantity(root="2Gi")
        volumes.append(EmptyDirVolume(name="shm", mount_path="/dev/shm", medium="Memory", size_limit=two_gib))  # noqa: S108
    env = [Env(name="OUT", value=OUT), Env(name="IMAGE_DIGEST", value=image), *pods.environment()]
    if retries:
        env.append(Env(name=ATTEMPT, value=f"{{{{{RETRIES}}}}}"))
    cpu, memory, disk = needs
    return {
        "image": image,
        "env": [*env, *more_env, *(pods.cvat_environment() if cvat else [])],
        "volumes": [*volumes, pods.SETTINGS_VOLUME, *([pods.BRIDGE_VOLUME] if cvat else [])],
        "volume_mounts": [pods.SETTINGS_MOUNT, *([pods.BRIDGE_MOUNT] if cvat else [])],
        "security_context": pods.SECURITY,
        "labels": {**pods.LABELS, "app.kubernetes.io/component": role, **(pods.CALLS_CVAT if cvat else {})},
        "archive_location": m.ArtifactLocation(archive_logs=archived),
        "resources": Resources(
            cpu_request=cpu,
            memory_request=memory,
            memory_limit=memory,
            ephemeral_request=disk,
            ephemeral_limit=disk,
        ),
        "retry_strategy": retry(retries) if retries else None,
    }


# The number of GPUs, and the time to save a checkpoint before the pod is killed. A patch is text, so a plain tag would
# let a parameter write any field of the pod. asInt only lets a number through.
GPU_PATCH = """\
terminationGracePeriodSeconds: 120
containers:
- name: main
  resources:
    limits:
      nvidia.com/gpu: "{{=asInt(workflow.parameters['gpu-count'])}}"
"""
GPU_TOLERATION = m.Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


def on_gpu_pool(*, cvat: bool = False) -> dict[str, Any]:
    """The arguments that all steps with a model share. They run on the chosen node pool. `cvat`: the step uses CVAT."""
    return {
        **step("train", images.DETR_JOB, ("2", "12Gi", "40Gi"), retries=10, cvat=cvat, shm=True),
        "pod_spec_patch": GPU_PATCH,
        "tolerations": [GPU_TOLERATION],
    }


def check(template: str) -> Container:
    """The step `check`: seconds on any node, never retried, so that its message is the message of the node.

    It uses no artifact repository, because a missing Secret of the repository would keep its pod waiting. Deadlines end
    all other waits.
    """
    taken = {one.name for one in parameters.TEMPLATES[template]}
    return Container(
        name="check",
        command=["data-prep"],
        args=[
            "check",
            f"--template={template}",
            "--run={{workflow.name}}",
            "--workflow-uid={{workflow.uid}}",
            PARAMETERS,
        ],
        **step("check", images.CPU_STEPS, ("100m", "512Mi", "1Gi"), archived=False),
        # `model`: the preset in place of `auto`. `pods`: how many prepare the data.
        outputs=[
            output(name)
            for name, needed in {"model": "model", "pods": "cvat-annotation-path"}.items()
            if needed in taken
        ],
        # active_deadline_seconds limits a running pod, timeout a pod that waits for a node.
        active_deadline_seconds="300",
        timeout="5m",
    )


def _export(name: str, more: list[str], *, archived: bool = True, **rest: Any) -> Container:  # noqa: ANN401 - arguments of Hera's Container
    """A step in which CVAT exports the subject to the store."""
    return Container(
        name=name,
        command=["cvat-bridge"],
        args=["export", "--run={{workflow.name}}", *more],
        **step(
            "export",
            images.CVAT_BRIDGE,
            ("100m", "1Gi", "20Gi"),
            retries=10,
            cvat=True,
            archived=archived,
        ),
        **rest,
    )


export = _export("export", [PARAMETERS], outputs=[output("dataset"), output("pods")])

# For third-party workflows that reference it. They have neither our parameters, our security context nor our executor's
# token, and may have no place for logs. The export is unpacked below the key `into`.
export_for_others = _export(
    "export-for-others",
    [f"--{name}={{{{inputs.parameters.{name}}}}}" for name in ("store", "subject", "grant")]
    + ["--unpack", "--into={{inputs.parameters.into}}", "--format={{inputs.parameters.format}}"],
    inputs=[
        *(Parameter(name=name) for name in ("subject", "grant", "store", "into")),
        Parameter(name="format", value=COCO),
    ],
    service_account_name=pods.NAME,
    pod_security_context=pods.POD_SECURITY,
    pod_spec_patch=pods.patch_of_every_pod(),
    archived=False,
)


train = Container(
    name="train",
    command=["detr-job"],
    inputs=[Parameter(name="prepared-set"), Parameter(name="model")],
    args=[
        "train",
        "--set={{inputs.parameters.prepared-set}}",
        "--model={{inputs.parameters.model}}",
        "--run={{workflow.name}}",
        "--workflow-uid={{workflow.uid}}",
        PARAMETERS,
    ],
    **on_gpu_pool(),
    outputs=[left("model", "model/"), left("checkpoint", "checkpoint/"), left("predictions", "predictions/")],
)

evaluate = Container(
    name="evaluate",
    command=["detr-job"],
    args=["evaluate", PARAMETERS],
    **on_gpu_pool(),
    outputs=[left("predictions", "predictions/")],
)

annotate = Container(
    name="annotate",
    command=["cvat-bridge"],
    args=["annotate", PARAMETERS],
    **on_gpu_pool(cvat=True),
    outputs=[output("message")],
)

report = Container(
    name="report",
    command=["python"],
    inputs=[Parameter(name="prepared-set")],
    args=[
        "-m",
        "evaluation",
        "report",
        "--set={{inputs.parameters.prepared-set}}",
        f"--run-prefix={RUN_PREFIX}",
        PARAMETERS,
    ],
    **step("report", images.CPU_STEPS, ("500m", "4Gi", "20Gi"), retries=5),
    outputs=[output("ap"), output("ap50"), left("metrics", "metrics.json"), left("report", "report/")],
    metrics=[
        Gauge(
            name="detr_workflows_ap",
            help="AP (0.50 to 0.95) of the run that was measured last.",
            value="{{outputs.parameters.ap}}",
            realtime=False,
        )
    ],
)


# The mirror is the installation's and no parameter: whoever may start a run must not decide which weights all others
# start from. Like `check` it is the first step, so its log is not archived (a missing Secret would keep it waiting).
# A download may have 4 GiB; a file of 0.4 GB with the largest model of the catalogue takes 0.4 GiB of memory.
pull = Container(
    name="pull",
    command=["detr-workflows"],
    args=["weights", "pull", PARAMETERS],
    **step(
        "weights",
        images.CPU_STEPS,
        ("100m", "1Gi", "5Gi"),
        retries=5,
        archived=False,
        more_env=pods.weights_environment(),
    ),
)


def tell(template: str) -> Container:
    """The exit handler: report in one sentence how the run ended, to people and programs."""
    has_folder = "cvat-output-path" in {one.name for one in parameters.TEMPLATES[template]}
    return Container(
        name="tell",
        command=["detr-workflows"],
        args=[
            "outcome",
            f"--template={template}",
            "--run={{workflow.name}}",
            "--status={{workflow.status}}",
            # Messages of steps quote names from data. Argo would evaluate `{{…}}` in them when it substitutes again.
            "--failures={{=sprig.b64enc(workflow.failures)}}",
            *([f"--output-prefix={given('cvat-output-path')}"] if has_folder else []),
            f"--store={given('store')}",
        ],
        **step(
            "tell", images.CPU_STEPS, ("50m", "256Mi", "1Gi"), retries=5, archived=False, more_env=[pods.webhook_url()]
        ),
        outputs=[Parameter(name="message", value_from=m.ValueFrom(path=f"{OUT}/outputs/message", default=""))],
        service_account_name=pods.TELL,
        pod_spec_patch=pods.patch_of_the_exit_handler(),
        # If the exit handler is lost, Argo marks a successful run as failed. So it is retried, and waits long for a
        # node.
        active_deadline_seconds="300",
        timeout="1h",
    )
