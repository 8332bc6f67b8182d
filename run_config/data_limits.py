"""How much of the training data may be wrong. `prepare` refuses data beyond a limit, and warns below it.

An installation sets the limits (the chart's value `dataLimits`); on a laptop `--limit NAME=VALUE` does. `--refuse NAME`
adds to them anywhere.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from run_config.errors import ConfigError

CHANGES = (
    "annotation-id-repeated", "box-automatic", "box-calculated", "box-clipped", "box-empty", "box-from-outline",
    "box-not-a-number", "box-other-form", "box-outside", "box-reversed", "box-rotated", "box-turned",
    "category-merged", "class-not-chosen", "class-renamed", "crowd-flag", "image-automatic", "image-cmyk",
    "image-damaged", "image-depth", "image-format", "image-frames", "image-missing", "image-name-beside",
    "image-name-case", "image-name-extension", "image-name-folder", "image-name-spelling", "image-name-taken",
    "image-repeated", "image-size", "image-size-unknown", "image-transparency", "image-unlisted", "marked-ignored",
    "shape-without-box", "shapes-grouped", "text-number", "unknown-category", "unknown-image",
)  # fmt: skip
"""What `prepare` corrects or drops, and counts: the names of `data_prep.changes`."""


class DataLimits(BaseModel):
    """Shares from 0 to 1, of one source or one of its subsets. 1 switches a refusal off."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    unusable_images: float = Field(default=0.1, ge=0, le=1, description="images missing, damaged or of another size")
    unlisted_references: float = Field(
        default=0.1, ge=0, le=1, description="annotations of images or classes that are not listed"
    )
    dropped_boxes: float = Field(default=0.1, ge=0, le=1, description="boxes empty, outside their image or no numbers")
    cut_boxes: float = Field(default=0.5, ge=0, le=1, description="boxes that reach over the edge by over 1 pixel")
    tiny_boxes: float = Field(default=0.5, ge=0, le=1, description="boxes with a side below 1 pixel")
    misread_boxes: float = Field(
        default=0.03, ge=0, le=1, description="boxes that do not fit, if they fit in another form (corners, shares, …)"
    )
    contradictions: float = Field(default=0.1, ge=0, le=1, description="boxes that are not those of their outlines")
    unlabelled_images: float = Field(default=0.5, ge=0, le=1, description="images without boxes (only a warning)")

    refuse: tuple[str, ...] = Field(default=(), description="corrections that refuse the data even if they occur once")

    @field_validator("refuse")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in CHANGES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not known; the names are {', '.join(CHANGES)}")
        return tuple(sorted(set(names)))

    @property
    def by_name(self) -> dict[str, float]:
        """Name, as for `--limit`, to share."""
        return {name.replace("_", "-"): value for name, value in self.model_dump(exclude={"refuse"}).items()}

    def refusing(self, names: Iterable[str]) -> "DataLimits":
        """These limits, and a refusal of these corrections too. Raises ConfigError for an unknown name."""
        try:
            return DataLimits.model_validate(self.model_dump() | {"refuse": (*self.refuse, *names)})
        except ValidationError as error:
            raise ConfigError(f"--refuse: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def data_limits(texts: Iterable[str]) -> DataLimits:
    """The limits from texts `name=value`; the others keep their defaults. Raises ConfigError for a wrong text."""
    given: dict[str, str] = {}
    names = DataLimits().by_name
    for text in texts:
        name, separator, value = text.partition("=")
        if name not in names or not separator:
            raise ConfigError(f"--limit {text}: write NAME=VALUE; the names are {', '.join(names)}")
        given[name.replace("-", "_")] = value
    try:
        return DataLimits.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0]).replace("_", "-")
        raise ConfigError(f"--limit {name}={wrong['input']}: this is not allowed; use a number from 0 to 1") from error
