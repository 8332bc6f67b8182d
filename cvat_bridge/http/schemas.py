"""Schemas of the API's responses, for OpenAPI and the type checker.

Strings are plain text, except `help_html`, which is safe HTML.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class NoteSchema(TypedDict):
    """A warning or remark for the annotator before a run starts, with advice."""

    level: Literal["warning", "info"]
    text: str
    advice: str


class ClassSchema(TypedDict):
    """A class. `boxes` None: not counted. `warning` None: no warning."""

    name: str
    color: str
    boxes: int | None
    warning: str | None


class TaskSchema(TypedDict):
    """A task with jobs that are not completed."""

    id: int
    name: str
    jobs: int
    completed: int


class SubjectSchema(TypedDict):
    """Preview of the training data. `untouched`: boxes of a model that nobody has changed. None: not counted."""

    kind: str
    ids: list[int]
    title: str
    url: str
    images: int
    boxes: int | None
    untouched: int | None
    classes: list[ClassSchema]
    unfinished: list[TaskSchema]
    notes: list[NoteSchema]


class ChoiceSchema(TypedDict):
    """A choice of a field. Choices of the same `group`, if not empty, are shown below one heading.

    `available`: whether a node pool has free capacity. None: unknown, or not a pool.
    """

    value: str
    title: str
    detail: str
    group: str
    available: bool | None


class ParameterSchema(TypedDict):
    """A field of the form. Bounds are for numbers, and absent if there is no bound.

    `other`: whether a value that is not among the choices may be typed.
    """

    name: str
    title: str
    help_html: str
    type: str
    visibility: str
    required: bool
    default: str
    choices: list[ChoiceSchema]
    other: bool
    minimum: NotRequired[float]
    exclusiveMinimum: NotRequired[float]
    maximum: NotRequired[float]


class GroupSchema(TypedDict):
    """The fields below one heading."""

    title: str
    parameters: list[ParameterSchema]


class StartSchema(TypedDict):
    """What a run will train from one start. `model`: the only one that fits; empty if unknown.

    `note`: with this model or with `auto`; `other`: with another model.
    """

    model: str
    note: NoteSchema
    other: NoteSchema


class PlanSchema(TypedDict):
    """What a run will train, in one sentence, for each choice in the form.

    `by_pool`: model and start `auto` on a node pool; the key is empty if there are no pools. `without_gpu`: the same,
    if the run uses no GPU. `by_model`: another model, start `auto`. `by_start`: another start.
    """

    by_pool: dict[str, NoteSchema]
    without_gpu: NoteSchema
    by_model: dict[str, NoteSchema]
    by_start: dict[str, StartSchema]


class TemplateSchema(TypedDict):
    """A workflow template that can be started. `trains`: on the existing annotations; `needs_boxes`: on boxes.

    `plan` None: unknown, because the template is not ours or the store is unreachable.
    """

    name: str
    title: str
    help_html: str
    trains: bool
    needs_boxes: bool
    plan: PlanSchema | None
    groups: list[GroupSchema]


class UserSchema(TypedDict):
    """The user."""

    name: str


class FormSchema(TypedDict):
    """The form. `running`, `limit`: this user's unfinished runs. `blocked`: why this user cannot start a run."""

    subject: SubjectSchema
    user: UserSchema
    blocked: str | None
    running: int
    limit: int
    templates: list[TemplateSchema]


class StepSchema(TypedDict):
    """A step of a run. `progress`: in Argo's form, such as `40/100`."""

    name: str
    title: str
    state: str
    progress: str
    message: str


class ApSchema(TypedDict):
    """AP on the validation split after `step` optimiser steps."""

    value: float
    step: int


class LinksSchema(TypedDict):
    """Links to other pages. None: the page does not exist, or not yet."""

    argo: str | None
    report: str | None
    page: str


class ModelSchema(TypedDict):
    """The model of a run. `used`: it is pinned for `place`, such as `project 3`.

    `threshold`: of its boxes, as text; empty if unknown. `warning`: a sentence if its AP is very low.
    """

    url: str
    used: bool
    place: str
    threshold: str
    warning: str


class MaySchema(TypedDict):
    """The actions that are possible for a run now."""

    stop: bool
    rerun: bool
    use: bool
    release: bool


class AboutSchema(TypedDict):
    """The tasks or project of a run."""

    kind: str
    ids: list[int]


class SettingSchema(TypedDict):
    """A parameter that was set for a run."""

    title: str
    value: str


class WarningsSchema(TypedDict):
    """Warnings about the data of a run: the most important ones, in this order, and the number of all."""

    first: list[str]
    total: int


class RunSchema(TypedDict):
    """A run. Times in Kubernetes' format, `progress` from 0 to 1."""

    name: str
    template: str
    title: str
    state: str
    message: str
    subject: AboutSchema
    settings: list[SettingSchema]
    user: str
    created: str | None
    started: str | None
    finished: str | None
    progress: float | None
    steps: list[StepSchema]
    ap: ApSchema | None
    results: dict[str, str]
    warnings: WarningsSchema | None
    links: LinksSchema
    model: ModelSchema | None
    may: MaySchema


class RunsSchema(TypedDict):
    """Runs, newest first."""

    runs: list[RunSchema]
