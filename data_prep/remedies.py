"""The way on that a refusal names: an option of the command, or in an installation what can be set there."""

from collections.abc import Iterable

from pydantic.alias_generators import to_camel

from run_config.installation import load_installation


def change_limit(name: str, share: str) -> str:
    """How to change a limit of data."""
    if load_installation() is None:
        return f"pass --limit {name}={share}"
    return f"ask the administrator to set the chart's value dataLimits.{to_camel(name.replace('-', '_'))} to {share}"


def convert_boxes(form: str) -> str:
    """How to read boxes in another form, which no parameter of a run does."""
    if load_installation() is None:
        return f"pass --boxes {form} to convert them"
    return f"convert them (data-prep convert --boxes {form} does) and use the result"


def choose_format(short_names: Iterable[str]) -> str:
    """How to choose one of several formats."""
    names = " or ".join(short_names)
    return f"pass --format {names}" if load_installation() is None else f"set annotation-format to {names}"
