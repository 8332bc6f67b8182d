"""What the bridge's API answers in these tests: a task of blood cells, real parameters, and some runs."""

from typing import Any

from markdown_it import MarkdownIt

from run_config.parameters import BY_NAME, Parameter, Type, Visibility

Json = dict[str, Any]

POOLS = [
    {"value": "gpu-t4", "title": "GPU: T4", "detail": "1 GPU with 16 GB; 3 of 4 GPUs free", "available": True},
    {"value": "gpu-a100", "title": "GPU: A100", "detail": "1 GPU with 40 GB; 0 of 2 GPUs free", "available": False},
    {"value": "cpu", "title": "CPU only", "detail": "8 cores; for models named tiny", "available": None},
]

TRAINING = (
    "cvat-test-path", "val-fraction", "model", "cvat-finetune-checkpoint", "epochs", "minutes", "batch-size",
    "learning-rate", "seed", "sys-node-pool", "gpu-count", "overrides", "device",
)  # fmt: skip
ANNOTATING = ("trained-model", "sys-node-pool", "device")


def field(parameter: Parameter, pools: list[Json] | None = None) -> Json:
    """A parameter as the form's answer has it."""
    choices = [{"value": one, "title": one, "detail": "", "available": None} for one in parameter.choices]
    made: Json = {
        "name": parameter.name,
        "title": parameter.title,
        "help_html": MarkdownIt("commonmark", {"html": False}).render(parameter.help),
        "type": str(parameter.type),
        "visibility": "expert" if parameter.visibility is Visibility.EXPERT else "annotator",
        "required": parameter.required,
        "default": parameter.default or "",
        "choices": choices,
    }
    if parameter.type is Type.NODE_POOL:
        made |= {"choices": POOLS if pools is None else pools, "required": True}
    limits = parameter.limits
    if limits.minimum is not None:
        made["exclusiveMinimum" if limits.above_minimum else "minimum"] = limits.minimum
    if limits.maximum is not None:
        made["maximum"] = limits.maximum
    return made


def template(name: str, title: str, help_html: str, names: tuple[str, ...], pools: list[Json] | None = None) -> Json:
    """A template with its parameters in their groups."""
    groups: dict[str, list[Json]] = {}
    for parameter in (BY_NAME[one] for one in names):
        groups.setdefault(parameter.group, []).append(field(parameter, pools))
    return {
        "name": name,
        "title": title,
        "help_html": help_html,
        "trains": "trained-model" not in names,
        "needs_boxes": "trained-model" not in names,
        "groups": [{"title": group, "parameters": parameters} for group, parameters in groups.items()],
    }


def training(pools: list[Json] | None = None) -> Json:
    """The template of every installation."""
    text = "<p>Trains a detection transformer on the boxes of this task and reports how well it finds them.</p>"
    return template("cvat-train", "Train a detector", text, TRAINING, pools)


def annotating() -> Json:
    """A second template, for forms that offer a choice."""
    text = "<p>Draws boxes into this task with a model that was trained before.</p>"
    return template("detr-annotate", "Annotate with a model", text, ANNOTATING)


def form(*templates: Json) -> Json:
    """The whole answer about task 8."""
    return {
        "subject": {
            "kind": "task",
            "ids": [8],
            "title": "Blood cells",
            "url": "/tasks/8",
            "images": 364,
            "boxes": 4888,
            "untouched": 0,
            "classes": [
                {"name": "RBC", "color": "#ff0000", "boxes": 4155, "warning": None},
                {"name": "WBC", "color": "#33ddff", "boxes": 372, "warning": None},
                {"name": "Platelets", "color": "#fafa37", "boxes": 361, "warning": None},
                {
                    "name": "Artefact",
                    "color": "#8338ec",
                    "boxes": 0,
                    "warning": "No box: this class cannot be learned.",
                },
            ],
            "unfinished": [{"id": 8, "name": "Blood cells", "jobs": 4, "completed": 3}],
            "notes": [
                {
                    "level": "warning",
                    "text": "One class has fewer than 100 boxes.",
                    "advice": "Draw more of it, or take the label out of the task.",
                },
            ],
        },
        "user": {"name": "ann"},
        "blocked": None,
        "running": 0,
        "limit": 2,
        "templates": list(templates) or [training()],
    }


STEPS = ("check", "export", "prepare", "train", "report")


def run(name: str, state: str, **changes: object) -> Json:
    """A run as the API tells it. `state`: of the whole; its steps fit to it."""
    done = {"pending": 0, "running": 3, "succeeded": 5, "failed": 3}[state]
    steps = []
    for index, step in enumerate(STEPS):
        now = "succeeded" if index < done else {"running": "running", "failed": "failed"}.get(state, "pending")
        steps.append(
            {
                "name": step,
                "title": step.capitalize(),
                "state": now if index <= done else ("skipped" if state == "failed" else "pending"),
                "progress": "84/200" if now == "running" and index == done else "",
                "message": "",
            }
        )
    succeeded = state == "succeeded"
    made: Json = {
        "name": name,
        "template": "cvat-train",
        "title": "Train a detector",
        "state": state,
        "message": "",
        "subject": {"kind": "task", "ids": [8]},
        "settings": [{"title": "Model", "value": "tiny"}],
        "user": "ann",
        "created": "2026-11-20T09:12:00Z",
        "started": "2026-11-20T09:12:20Z",
        "finished": "2026-11-20T10:31:00Z" if state in {"succeeded", "failed"} else None,
        "progress": {"pending": None, "running": 0.42, "succeeded": 1.0, "failed": 0.61}[state],
        "steps": steps,
        "ap": {"value": 0.413, "step": 1200} if state == "running" else None,
        "results": {"ap": "0.512", "ap50": "0.873", "images": "55"} if succeeded else {},
        "warnings": None,
        "links": {
            "argo": f"https://argo.example.org/workflows/training/{name}",
            "report": f"/training-bridge/api/runs/{name}/report/" if succeeded else None,
            "page": f"/training-bridge/?task=8&run={name}",
        },
        "model": {
            "url": f"s3://training/workflow-data/output/{name}/model",
            "used": False,
            "place": "task 8",
            "threshold": "0.33 (WBC 0.41)",
            "warning": "",
        }
        if succeeded
        else None,
        "may": {"stop": False, "rerun": False, "use": succeeded, "release": False},
    }
    return made | changes
