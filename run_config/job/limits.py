"""The bounds of a number: of a configuration key, and of the parameter that sets it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds. None: no bound on that side."""

    minimum: float | None = None
    above_minimum: bool = False
    """Whether the minimum itself is excluded."""
    maximum: float | None = None
    below_maximum: bool = False
    """Whether the maximum itself is excluded."""

    def of_integers(self) -> "Limits":
        """The same bounds for whole numbers, with the smallest and the largest allowed number as inclusive bounds."""
        low, high = self.minimum, self.maximum
        return Limits(
            None if low is None else low + self.above_minimum,
            maximum=None if high is None else high - self.below_maximum,
        )

    def words(self) -> str:
        """`from 1 to 1024`, `above 0 and at most 1`. Empty: there is no minimum."""
        if self.minimum is None:
            return ""
        start = f"{'above' if self.above_minimum else 'from'} {self.minimum:.15g}"
        if self.maximum is None:
            return start
        both = "and at most" if self.above_minimum else "to"
        return f"{start} {'and below' if self.below_maximum else both} {self.maximum:.15g}"
