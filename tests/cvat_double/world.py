"""What the double knows: users, projects, tasks with their frames and shapes, storages, sessions and tokens."""

import itertools
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

ADMIN, USER = "admin", "user"
OWNER, MAINTAINER, WORKER = "owner", "maintainer", "worker"
"""Roles in an organization. What a supervisor may is not modelled: nothing here depends on it."""

EXPORT_RESTRICTED = (2, 68)
"""Since this version a worker of an organization exports only what they or their project own (CVAT #10685)."""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class User:
    """Somebody with an account; `token` is a personal access token, `session` a login in a browser."""

    id: int
    username: str
    groups: list[str]
    password: str
    token: str
    session: str
    csrf: str
    read_only_token: str
    first_name: str = ""
    last_name: str = ""

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.groups

    def cookies(self) -> dict[str, str]:
        """What the browser of this user sends."""
        return {"sessionid": self.session, "csrftoken": self.csrf}

    def bearer(self) -> dict[str, str]:
        """The header of a program of this user."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(slots=True)
class Label:
    id: int
    name: str
    color: str = "#33ddff"
    type: str = "any"


@dataclass(slots=True)
class Frame:
    """One image of a task. `name` may have folders."""

    name: str
    width: int
    height: int
    content: bytes


@dataclass(slots=True)
class Job:
    id: int
    start: int
    stop: int  # inclusive
    stage: str = "annotation"
    state: str = "new"
    type: str = "annotation"
    assignee: User | None = None


@dataclass(slots=True)
class Project:
    id: int
    name: str
    owner: User
    labels: list[Label]
    assignee: User | None = None
    organization: int | None = None
    bug_tracker: str = ""
    created: datetime = field(default_factory=now)
    updated: datetime = field(default_factory=now)


@dataclass(slots=True)
class Task:
    """`labels` are used where there is no project. `shapes`, `tags` and `tracks` are as the API has them."""

    id: int
    name: str
    owner: User
    frames: list[Frame]
    jobs: list[Job]
    project: Project | None = None
    own_labels: list[Label] = field(default_factory=list)
    assignee: User | None = None
    subset: str = ""
    bug_tracker: str = ""
    chunk_size: int = 3
    mode: str = "annotation"
    deleted_frames: list[int] = field(default_factory=list)
    target_storage: int | None = None  # a cloud storage; None: local
    organization: int | None = None
    tags: list[dict] = field(default_factory=list)
    shapes: list[dict] = field(default_factory=list)
    tracks: list[dict] = field(default_factory=list)
    version: int = 0
    created: datetime = field(default_factory=now)
    updated: datetime = field(default_factory=now)

    @property
    def labels(self) -> list[Label]:
        return self.project.labels if self.project else self.own_labels


@dataclass(slots=True)
class CloudStorage:
    """A bucket that CVAT may write to, with the keys that it was given."""

    id: int
    owner: User
    bucket: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class World:
    """Everything, with one lock for whoever changes it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: list[User] = []
        self.projects: dict[int, Project] = {}
        self.tasks: dict[int, Task] = {}
        self.storages: dict[int, CloudStorage] = {}
        self.revoked: set[str] = set()
        self.seen: list[Seen] = []
        self._numbers = itertools.count(1)
        self.nuclio = ""
        self.version = (2, 80)
        self.roles: dict[tuple[int, int], str] = {}
        """(organization, user) → role."""

    def number(self) -> int:
        """One that nothing else has: whoever mixes up two kinds of ids is found out."""
        with self.lock:
            return next(self._numbers)

    def add_user(self, username: str, *, admin: bool = False) -> User:
        prefix = secrets.token_hex(4)
        user = User(
            id=self.number(),
            username=username,
            groups=[ADMIN] if admin else [USER],
            password=secrets.token_hex(8),
            token=f"{prefix}.{secrets.token_hex(16)}",
            session=secrets.token_hex(16),
            csrf=secrets.token_hex(16),
            read_only_token=f"{prefix[::-1]}.{secrets.token_hex(16)}",
        )
        with self.lock:
            self.users.append(user)
        return user

    def may_see_task(self, user: User, task: Task) -> bool:
        """The rule for `view`: owner, assignee, staff of the project, or maintainer of the organization."""
        staff = [task.owner, task.assignee]
        if task.project:
            staff += [task.project.owner, task.project.assignee]
        return self._runs(user, task) or any(one is user for one in staff)

    def may_export_task(self, user: User, task: Task) -> bool:
        """The rule for `export:dataset`."""
        owners = [task.owner, task.project.owner if task.project else task.owner]
        return self.may_see_task(user, task) and self._exports(user, task, owners)

    def may_see_project(self, user: User, project: Project) -> bool:
        return self._runs(user, project) or user in (project.owner, project.assignee)

    def may_export_project(self, user: User, project: Project) -> bool:
        return self.may_see_project(user, project) and self._exports(user, project, [project.owner])

    def may_see_storage(self, user: User, storage: CloudStorage) -> bool:
        return user.is_admin or storage.owner is user

    def _exports(self, user: User, thing: Task | Project, owners: list[User]) -> bool:
        """Before 2.68 `view` and `export:dataset` are one rule; since then assigned workers only view."""
        if self.version < EXPORT_RESTRICTED or self._role(user, thing) != WORKER:
            return True
        return user.is_admin or any(one is user for one in owners)

    def _runs(self, user: User, thing: Task | Project) -> bool:
        return user.is_admin or self._role(user, thing) in (OWNER, MAINTAINER)

    def _role(self, user: User, thing: Task | Project) -> str | None:
        return None if thing.organization is None else self.roles.get((thing.organization, user.id))
