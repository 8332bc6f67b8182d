"""The base class of all configuration sections, and the types of their numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

MOST_STEPS = 1_000_000_000

Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]
PositiveSteps = Annotated[int, Field(gt=0, le=MOST_STEPS)]
Images = Annotated[int, Field(gt=0, le=65_536)]
Width = Annotated[int, Field(gt=0, le=65_536)]
"""Of a layer: channels, features, queries."""
Heads = Annotated[int, Field(gt=0, le=16_384)]
Layers = Annotated[int, Field(ge=0, le=100)]
PositiveLayers = Annotated[int, Field(gt=0, le=100)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]
Rate = Annotated[float, Field(ge=0, le=1)]
Zoom = Annotated[float, Field(ge=0.01, le=10)]
"""A smaller zoom would need memory for an image of thousands of times the pixels."""
Beta = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(gt=0, le=16384)]

A_PLACE: dict[str, JsonValue] = {"place": True}
"""Marks a key whose value names a place to read. The installation must allow the place (`job/places.py`)."""


MAY_BE_AUTO: dict[str, JsonValue] = {"auto": True}
"""Marks a key that may be `auto`: training computes its value from the data (`job/recipe.py`)."""


def added_later(before: JsonValue) -> dict[str, JsonValue]:
    """Mark a key that was added after the first release.

    `before` is the value that reproduces training of releases without the key. It is used to read runs and models of
    those releases (`job/stored_config.py`).
    """
    return {"before": before}


class Section(BaseModel):
    """A section of the configuration. Unknown keys are an error, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        """Refuse true for a number: YAML reads `on` as true, and Python treats it as 1. Read null as an empty text."""
        if not isinstance(values, dict):
            return values
        for name, field in cls.model_fields.items():
            value = values.get(name)
            items = value if isinstance(value, list | tuple) else (value,)
            if field.annotation is not bool and any(isinstance(item, bool) for item in items):
                raise PydanticCustomError("true_for_a_number", "{name} must not be true or false", {"name": name})
        empty = {name for name, field in cls.model_fields.items() if field.annotation is str}
        return {key: "" if value is None and key in empty else value for key, value in values.items()}
