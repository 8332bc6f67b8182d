"""Schemas of the API's responses, for OpenAPI and the type checker.

Strings are plain text, except `help_html`, which is safe HTML.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class DrawnNote(TypedDict):
    """A warning or remark for the annotator before a run starts, with advice."""

    level: Literal["warning", "info"]
    text: str
    advice: str


class DrawnClass(TypedDict):
    """A class. `boxes` None: not counted. `warning` None: no warning."""

    name: str
    color: str
    boxes: int | None
    warning: str | None


class DrawnTask(TypedDict):
    """A task with jobs that are not completed."""

    id: int
    name: str
    jobs: int
    completed: int


class DrawnSubject(TypedDict):
    """Preview of the training data. `boxes` None: not counted."""

    kind: str
    ids: list[int]
    title: str
    url: str
    images: int
    boxes: int | None
    classes: list[DrawnClass]
    unfinished: list[DrawnTask]
    notes: list[DrawnNote]


class DrawnChoice(TypedDict):
    """A choice of a field. `available`: whether a node pool has free capacity. None: unknown, or not a pool."""

    value: str
    title: str
    detail: str
    available: bool | None


class DrawnParameter(TypedDict):
    """A field of the form. Bounds are for numbers, and absent if there is no bound."""

    name: str
    title: str
    help_html: str
    type: str
    visibility: str
    required: bool
    default: str
    choices: list[DrawnChoice]
    minimum: NotRequired[float]
    exclusiveMinimum: NotRequired[float]
    maximum: NotRequired[float]


class DrawnGroup(TypedDict):
    """The fields below one heading."""

    title: str
    parameters: list[DrawnParameter]


class DrawnTemplate(TypedDict):
    """A workflow template that can be started. `trains`: it trains on the existing boxes."""

    name: str
    title: str
    help_html: str
    trains: bool
    groups: list[DrawnGroup]


class DrawnUser(TypedDict):
    """The user."""

    name: str


class DrawnForm(TypedDict):
    """The form. `running`, `limit`: this user's unfinished runs. `blocked`: why this user cannot start a run."""

    subject: DrawnSubject
    user: DrawnUser
    blocked: str | None
    running: int
    limit: int
    templates: list[DrawnTemplate]


class DrawnStep(TypedDict):
    """A step of a run. `progress`: in Argo's form, such as `40/100`."""

    name: str
    title: str
    state: str
    progress: str
    message: str


class DrawnAp(TypedDict):
    """AP on the validation split after `step` optimiser steps."""

    value: float
    step: int


class DrawnLinks(TypedDict):
    """Links to other pages. None: the page does not exist, or not yet."""

    argo: str | None
    report: str | None
    page: str


class DrawnModel(TypedDict):
    """The model of a run. `used`: it is pinned for `place`, such as `project 3`."""

    url: str
    used: bool
    place: str


class DrawnMay(TypedDict):
    """The actions that are possible for a run now."""

    stop: bool
    rerun: bool
    use: bool
    release: bool


class DrawnAbout(TypedDict):
    """The tasks or project of a run."""

    kind: str
    ids: list[int]


class DrawnSetting(TypedDict):
    """A parameter that was set for a run."""

    title: str
    value: str


class DrawnRun(TypedDict):
    """A run. Times in Kubernetes' format, `progress` from 0 to 1."""

    name: str
    template: str
    title: str
    state: str
    message: str
    subject: DrawnAbout
    settings: list[DrawnSetting]
    user: str
    created: str | None
    started: str | None
    finished: str | None
    progress: float | None
    steps: list[DrawnStep]
    ap: DrawnAp | None
    results: dict[str, str]
    links: DrawnLinks
    model: DrawnModel | None
    may: DrawnMay


class DrawnRuns(TypedDict):
    """Runs, newest first."""

    runs: list[DrawnRun]
