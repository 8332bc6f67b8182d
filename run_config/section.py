"""What the parts of a job's configuration are made of: the base of all records, and the types of numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]
Rate = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(gt=0, le=16384)]

A_PLACE: dict[str, JsonValue] = {"place": True}
"""Marks a key whose value names a place to read, which the installation must allow (`job/places.py`)."""


def added_later(before: JsonValue) -> dict[str, JsonValue]:
    """Mark a key that was added after the first release.

    before: the value with which a job trains as it did in releases without the key. Runs and models of those
    releases are read with it (`job/stored_config.py`).
    """
    return {"before": before}


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        """YAML reads `on` as true, and Python takes true for 1; a text without content is read as nothing."""
        if not isinstance(values, dict):
            return values
        for name, field in cls.model_fields.items():
            value = values.get(name)
            items = value if isinstance(value, list | tuple) else (value,)
            if field.annotation is not bool and any(isinstance(item, bool) for item in items):
                raise PydanticCustomError("true_for_a_number", "{name} takes no true or false", {"name": name})
        empty = {name for name, field in cls.model_fields.items() if field.annotation is str}
        return {key: "" if value is None and key in empty else value for key, value in values.items()}
