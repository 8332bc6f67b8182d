"""The subject of a run: CVAT tasks, or one whole project. Written as `task:8,task:9` or `project:3`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cvat_client.errors import BridgeError

MOST_TASKS = 100
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


class Kind(StrEnum):
    """Whether the ids are those of tasks or of a project."""

    TASK = "task"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Subject:
    """Tasks in ascending order, or one project."""

    kind: Kind
    ids: tuple[int, ...]

    def __str__(self) -> str:
        return ",".join(f"{self.kind}:{one}" for one in self.ids)

    @classmethod
    def tasks(cls, ids: Iterable[int]) -> Self:
        """One or more tasks. BridgeError: no task, or more than MOST_TASKS."""
        numbers = tuple(sorted(set(ids)))
        if not 1 <= len(numbers) <= MOST_TASKS:
            raise BridgeError(f"a run takes from 1 to {MOST_TASKS} tasks, not {len(numbers)}")
        return cls(Kind.TASK, numbers)

    @classmethod
    def project(cls, number: int) -> Self:
        """A whole project."""
        return cls(Kind.PROJECT, (number,))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form that `str` writes. BridgeError: malformed text."""
        parts = [part.partition(":") for part in text.split(",")]
        kinds = {kind for kind, _, _ in parts}
        if not all(_NUMBER.fullmatch(number) for _, _, number in parts) or len(kinds) != 1:
            raise BridgeError(f"{text[:80]!r} is not of the form task:8,task:9 or project:3")
        numbers = [int(number) for _, _, number in parts]
        match kinds.pop():
            case Kind.TASK:
                return cls.tasks(numbers)
            case Kind.PROJECT if len(numbers) == 1:
                return cls.project(numbers[0])
            case _:
                raise BridgeError(f"{text[:80]!r} is not of the form task:8,task:9 or project:3")
