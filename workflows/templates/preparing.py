"""The steps that prepare the data: `prepare`, and before it the shares of pods if there are several.

First pods check the images, then they write the shards of the set. `prepare` takes what they left in the store, does
what is missing and writes the manifest; without pods it does everything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hera.workflows import Container, Parameter, Task
from hera.workflows import models as m

from workflows.templates import images
from workflows.templates.steps import PARAMETERS, output, step


def _container(name: str, options: Sequence[str], inputs: Sequence[str], **rest: Any) -> Container:  # noqa: ANN401 - arguments of Hera's Container
    return Container(
        name=name,
        command=["data-prep"],
        inputs=[Parameter(name=one) for one in inputs],
        args=["prepare", PARAMETERS, "--pods={{inputs.parameters.pods}}", *options],
        **step("prepare", images.CPU_STEPS, ("1", "4Gi", "20Gi"), retries=5),
        **rest,
    )


def _steps(sources: Sequence[str], inputs: Sequence[str]) -> tuple[Container, Container]:
    """One pod's share, and `prepare`. `sources`: arguments that name the exports. Empty: the parameter names them."""
    return (
        _container("prepare-share", ["--share={{inputs.parameters.share}}", *sources], [*inputs, "pods", "share"]),
        _container("prepare", sources, [*inputs, "pods"], outputs=[output("prepared-set")]),
    )


STAGES = ("images", "shards")


def targets(last: str) -> str:
    """The targets of a graph that ends with the task `last`.

    After a retry, Argo brings a group of pods to its end only if it is a target: the run would go on for ever.
    """
    return " ".join([*(f"prepare-{stage}" for stage in STAGES), last])


FROM_PARAMETER = _steps([], [])
FROM_EXPORT = _steps(["--", "{{inputs.parameters.dataset}}"], ["dataset"])
"""Prepares the export of another step."""


def preparing(after: Task, steps: tuple[Container, Container], arguments: Mapping[str, Any] | None = None) -> Task:
    """The tasks that prepare the data; the last one is returned. `after`: the task with the output `pods`."""
    share, prepare = steps
    pods = f"{{{{tasks.{after.name}.outputs.parameters.pods}}}}"
    given = {**(arguments or {}), "pods": pods}
    for stage in STAGES:
        task = Task(
            name=f"prepare-{stage}",
            template=share,
            arguments={**given, "share": f"{stage}:{{{{item}}}}"},
            when=f"{pods} > 1",
            with_sequence=m.Sequence(count=m.IntOrString(root=pods)),
        )
        after >> task
        after = task
    prepared = Task(name="prepare", template=prepare, arguments=given)
    after >> prepared
    return prepared
