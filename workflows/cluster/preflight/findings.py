"""The findings of `preflight`: one line each, and what to do about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Mark(StrEnum):
    """The severity. `unknown`: the caller may not look, or it cannot be determined from here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `action` fixes the problem, or says who knows more."""

    mark: Mark
    subject: str
    text: str
    action: str = ""

    def lines(self) -> list[str]:
        """The finding, followed by the action."""
        first = f"{self.mark.value:<8}{self.subject}: {self.text}"
        return [first, f"{'':8}→ {self.action}"] if self.action else [first]

    def record(self) -> dict[str, str]:
        """The finding as a record for `--json`."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(subject: str, text: str) -> Finding:
    """No problem."""
    return Finding(Mark.OK, subject, text)


def warn(subject: str, text: str, action: str) -> Finding:
    """A run can work, but not well or not now."""
    return Finding(Mark.WARN, subject, text, action)


def fail(subject: str, text: str, action: str) -> Finding:
    """No run can work."""
    return Finding(Mark.FAIL, subject, text, action)


def unknown(subject: str, text: str, action: str) -> Finding:
    """Could not be checked."""
    return Finding(Mark.UNKNOWN, subject, text, action)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line: whether a run can work."""
    counts = {mark: sum(finding.mark is mark for finding in findings) for mark in Mark}
    parts = [f"{counts[mark]} {mark.value}" for mark in Mark if counts[mark]]
    says = "a run cannot work yet" if counts[Mark.FAIL] else "a run can work, as far as this can be checked from here"
    return f"{says} ({', '.join(parts)})"
