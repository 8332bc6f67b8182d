"""What the bridge's API answers in these tests: a task of blood cells, real parameters, and some runs."""

from typing import Any

from markdown_it import MarkdownIt

from run_config.parameters import BY_NAME, Parameter, Role, Type, Visibility

Json = dict[str, Any]


def choice(value: str, title: str, detail: str = "", group: str = "") -> Json:
    """A choice of a list."""
    return {"value": value, "title": title, "detail": detail, "group": group, "available": None}


STARTS = [
    choice("auto", "Automatic", "Published weights of the model. The sentence above “Start run” says which."),
    choice(
        "weights:rf-detr-small",
        "rf-detr-small, Apache-2.0",
        "For the model rf-detr-small. Trained on Objects365, then COCO, AP 0.530 there. Classes: person, bicycle, car, "
        "motorcycle, airplane, bus and 74 more. Licence: Apache-2.0.",
        "Published weights",
    ),
    choice("weights:d-fine-nano", "d-fine-nano, Apache-2.0", "For the model d-fine-nano.", "Published weights"),
    choice(
        "s3://training/workflow-data/output/cvat-train-6f1aa/model",
        "cvat-train-6f1aa, AP 0.512, threshold 0.33 (WBC 0.41), 2026-11-20",
        "Classes: Platelets, RBC, WBC.",
        "Earlier runs",
    ),
    choice("none", "Random weights", "Without a trained model. From few images, only tiny learns this way."),
]

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
    starts = parameter.role is Role.FINETUNE_CHECKPOINT
    choices = STARTS if starts else [choice(one, one) for one in parameter.choices]
    made: Json = {
        "name": parameter.name,
        "title": parameter.title,
        "help_html": MarkdownIt("commonmark", {"html": False}).render(parameter.help),
        "type": str(parameter.type),
        "visibility": "expert" if parameter.visibility is Visibility.EXPERT else "annotator",
        "required": parameter.required,
        "default": parameter.default or "",
        "choices": choices,
        "other": starts,
    }
    if parameter.type is Type.NODE_POOL:
        made |= {"choices": POOLS if pools is None else pools, "required": True}
    limits = parameter.limits
    if limits.minimum is not None:
        made["exclusiveMinimum" if limits.above_minimum else "minimum"] = limits.minimum
    if limits.maximum is not None:
        made["maximum"] = limits.maximum
    return made


def note(text: str, advice: str = "") -> Json:
    """What a run will train; a warning if there is advice."""
    return {"level": "warning" if advice else "info", "text": text, "advice": advice}


PLAN: Json = {
    "by_pool": {
        "gpu-t4": note(
            "Will train rf-detr-small from published weights on 364 images with 4,888 boxes, because GPU: T4 has a "
            "GPU, and the store has the weights of rf-detr-small."
        ),
        "gpu-a100": note(
            "auto needs published weights on a GPU, and the store has none of rf-detr-small or d-fine-nano; run "
            "`detr-workflows weights pull rf-detr-small --store s3://training`, or choose a model.",
            "The operator of this installation can run the command; it takes a few minutes.",
        ),
        "cpu": note("Will train d-fine-nano from published weights on 364 images, because CPU only has no GPU."),
    },
    "without_gpu": note("Will train d-fine-nano from published weights on 364 images, because the run uses no GPU."),
    "by_model": {"tiny": note("Will train tiny from random weights on 364 images with 4,888 boxes.")},
    "by_start": {
        "weights:d-fine-nano": {
            "model": "d-fine-nano",
            "note": note("Will train d-fine-nano from the published weights d-fine-nano on 364 images."),
            "other": note("Will train from the published weights d-fine-nano.", "It is of the model d-fine-nano."),
        }
    },
}


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
        "plan": None if "trained-model" in names else PLAN,
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
