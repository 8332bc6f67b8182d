"""Small templates of real processes, for tests of the local runner."""

from typing import Any

import yaml

OUT = "/mnt/out"


def container(code: str, *args: str, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A container that runs `code` with Python, with $OUT mounted."""
    return {
        "container": {
            "image": "test:1",
            "command": ["python", "-c", code],
            "args": list(args),
            "env": [{"name": "OUT", "value": OUT}],
            "volumeMounts": [{"name": "out", "mountPath": OUT}],
        },
        "volumes": [{"name": "out", "emptyDir": {}}],
        "inputs": {"parameters": [{"name": name} for name in inputs]},
        "outputs": {"parameters": [{"name": name, "valueFrom": {"path": f"{OUT}/outputs/{name}"}} for name in outputs]},
    }


def task(name: str, *depends: str, **arguments: str) -> dict[str, Any]:
    """A task that runs the template of its own name."""
    parameters = [{"name": key.replace("_", "-"), "value": value} for key, value in arguments.items()]
    return {
        "name": name,
        "template": name,
        "depends": " && ".join(depends),
        "arguments": {"parameters": parameters},
    }


def template(
    tasks: list[dict[str, Any]],
    containers: dict[str, dict[str, Any]],
    parameters: dict[str, str | None] | None = None,
    results: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A WorkflowTemplate named `small`."""
    known = {"store": None, "cvat-output-path": "runs"} | (parameters or {})
    outputs = [{"name": name, "valueFrom": {"parameter": text}} for name, text in (results or {}).items()]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "small"},
        "spec": {
            "entrypoint": "main",
            "arguments": {
                "parameters": [
                    {"name": name} if value is None else {"name": name, "value": value} for name, value in known.items()
                ]
            },
            "templates": [
                {"name": "main", "dag": {"tasks": tasks}, "outputs": {"parameters": outputs}},
                *({"name": name, **body} for name, body in containers.items()),
            ],
        },
    }


def text(tree: dict[str, Any]) -> str:
    """The template as YAML."""
    return yaml.safe_dump(tree)
