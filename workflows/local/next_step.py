"""What a finished training run reached, and what would make its model better."""

from collections.abc import Iterator, Mapping

from run_config.job.config import JobConfig, Schedule
from run_config.job.preset_files import preset_names
from run_config.job.presets import auto_keys, load_job_config
from run_config.parameters import overrides_of
from run_config.weights.automatic import AUTO, NONE, pull_command
from run_config.weights.catalogue import CATALOGUE

REACHED = ((0.9, "finds nearly every object"), (0.7, "finds most objects"), (0.4, "finds about half of the objects"))
"""Least AP50 and what it means; below: few objects."""
MORE_TIME = 3
LARGER = 4 / 3
PUBLISHED = "d-fine-nano"


def next_step(values: Mapping[str, str], results: Mapping[str, str]) -> str:
    """Sentences on the result and the next steps, in words of `make run`. Empty for a run that measured no AP50.

    values: the parameters of the run. results: its output parameters as text.
    """
    try:
        ap50 = float(results["ap50"])
    except (KeyError, ValueError):
        return ""
    if ap50 < 0 or not values.get("model"):
        return ""
    reached = next((words for least, words in REACHED if ap50 >= least), "finds few objects yet")
    return "\n".join((f"The model {reached} (AP50 {ap50:.2f}). What may make it better:", *_steps(values)))


def _steps(values: Mapping[str, str]) -> Iterator[str]:
    model = values["model"]
    config, auto = _config(values)
    if config is not None and "schedule.steps" not in auto:
        yield from _more_time(config.schedule, load_job_config(model).schedule)
    published, start = {entry.name for entry in CATALOGUE}, values.get("cvat-finetune-checkpoint") or AUTO
    if start == NONE or (start == AUTO and model not in published):  # otherwise it started from weights
        name = model if model in published else PUBLISHED
        yield (
            f"- a published model: {pull_command(name, values.get('store', 'STORE'))}, then make run … CONFIG={name}"
        )
    if config is not None and (sizes := config.model.recipe.sizes):
        size = round(LARGER * (max(config.data.min_sizes) if "data.min_sizes" not in auto else sizes[1]))
        yield f'- larger images, if the report shows small objects as missed: make run … ARGS="data.min_sizes=[{size}]"'
    yield "- more labelled images, above all of what the report shows as missed"


def _more_time(now: Schedule, usual: Schedule) -> Iterator[str]:
    """Three times the length, and at least that of the preset. Nothing for a preset's own epochs: they are enough."""
    if now.minutes is not None:
        yield f"- more time: make run … MINUTES={max(MORE_TIME * now.minutes, usual.minutes or 0):g}"
        return
    for name, length, least in (("steps", now.steps, usual.steps), ("epochs", now.epochs, usual.epochs)):
        if length is not None and length != least:
            yield f'- more time: make run … ARGS="schedule.{name}={max(MORE_TIME * length, least or 0)}"'


def _config(values: Mapping[str, str]) -> tuple[JobConfig | None, frozenset[str]]:
    """The configuration of a preset with the run's parameters; None for a file or another name."""
    if values["model"] not in preset_names():
        return None, frozenset()
    overrides = overrides_of(values)
    return load_job_config(values["model"], overrides), auto_keys(values["model"], overrides)
