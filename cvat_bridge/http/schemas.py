"""What the page is given, field by field: the API's answers, for OpenAPI and for the type checker.

Texts are text, but for `help_html`, which is safe HTML.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class DrawnNote(TypedDict):
    """What an annotator should know before a run starts, and what to do about it."""

    level: Literal["warning", "info"]
    text: str
    advice: str


class DrawnClass(TypedDict):
    """A class; `boxes` None: not counted. `warning` None: there is nothing to say."""

    name: str
    color: str
    boxes: int | None
    warning: str | None


class DrawnTask(TypedDict):
    """A task of which not all jobs are completed."""

    id: int
    name: str
    jobs: int
    completed: int


class DrawnSubject(TypedDict):
    """What would be trained on; `boxes` None: not counted."""

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
    """`available`: whether a node pool has room now; None: not known, or no pool."""

    value: str
    title: str
    detail: str
    available: bool | None


class DrawnParameter(TypedDict):
    """One field. Bounds are those of a number, and absent where there is none."""

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
    """Fields below one heading."""

    title: str
    parameters: list[DrawnParameter]


class DrawnTemplate(TypedDict):
    """A workflow that may be started. `trains`: it learns from the boxes that are there."""

    name: str
    title: str
    help_html: str
    trains: bool
    groups: list[DrawnGroup]


class DrawnUser(TypedDict):
    """Who looks."""

    name: str


class DrawnForm(TypedDict):
    """The form; `running` of `limit` runs of this user are not finished. `blocked`: why this user can start none."""

    subject: DrawnSubject
    user: DrawnUser
    blocked: str | None
    running: int
    limit: int
    templates: list[DrawnTemplate]


class DrawnStep(TypedDict):
    """A step; `progress` as Argo counts it, such as `40/100`."""

    name: str
    title: str
    state: str
    progress: str
    message: str


class DrawnAp(TypedDict):
    """AP on the validation part after so many steps."""

    value: float
    step: int


class DrawnLinks(TypedDict):
    """Where to look further; None: there is nothing, or not yet."""

    argo: str | None
    report: str | None
    page: str


class DrawnModel(TypedDict):
    """The model that a run left; `used`: it is the chosen one for `place`, such as `project 3`."""

    url: str
    used: bool
    place: str


class DrawnMay(TypedDict):
    """What can be done with a run now."""

    stop: bool
    rerun: bool
    use: bool
    release: bool


class DrawnAbout(TypedDict):
    """What of CVAT a run is about."""

    kind: str
    ids: list[int]


class DrawnSetting(TypedDict):
    """What was chosen for a run."""

    title: str
    value: str


class DrawnRun(TypedDict):
    """A run; times as Kubernetes writes them, `progress` from 0 to 1."""

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
