"""The bounds of a number: of a configuration key, and of the parameter that sets it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no bound on that side."""

    minimum: float | None = None
    above_minimum: bool = False
    """The minimum itself is not allowed."""
    maximum: float | None = None
    below_maximum: bool = False
    """The maximum itself is not allowed."""

    def of_integers(self) -> "Limits":
        """The same whole numbers, with the first and the last of them as bounds."""
        low, high = self.minimum, self.maximum
        return Limits(
            None if low is None else low + self.above_minimum,
            maximum=None if high is None else high - self.below_maximum,
        )
