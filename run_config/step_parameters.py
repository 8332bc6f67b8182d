"""Pass the parameters of a workflow to a step: one JSON with all of them, distributed to the options of the command.

    @app.command()
    def train(epochs: Annotated[str, typer.Option(...), From("epochs")] = "", parameters_json: ParametersJson = "{}"):

Templates pass only `--parameters-json`. Options are for people: an option that is given, even if empty, overrides the
parameter.
"""

import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from run_config.errors import ConfigError
from run_config.json_text import load_json


@dataclass(frozen=True, slots=True)
class From:
    """Annotates an option with the parameter that is its default."""

    parameter: str


def options(command: Callable[..., Any]) -> dict[str, str]:
    """Argument name of a command function → the parameter that is its default."""
    hints = typing.get_type_hints(command, include_extras=True)
    return {
        name: one.parameter
        for name, hint in hints.items()
        for one in getattr(hint, "__metadata__", ())
        if isinstance(one, From)
    }


def values_from_json(content: str) -> dict[str, Any]:
    """Parse Argo's `{{workflow.parameters.json}}`, [{"name", "value", …}], or an object, into name → value.

    A value of None means that none was given.

    Raises ConfigError: when the text is neither of them.
    """
    try:
        tree = load_json(content)
    except ValueError as error:
        raise ConfigError(f"--parameters-json is not JSON: {error}") from error
    if isinstance(tree, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in tree):
        names = [one["name"] for one in tree]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"--parameters-json: the parameter {twice[:60]!r} is given twice")
        tree = {one["name"]: one.get("value") for one in tree}
    if not isinstance(tree, dict):
        raise ConfigError("--parameters-json is neither an object nor a list of {name, value}")
    return tree


def texts_from_json(content: str) -> dict[str, str]:
    """Name → text of the parameters that have a value. See `values_from_json`."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values_from_json(content).items()
        if value is not None
    }


def _fill_options(context: typer.Context, content: str) -> str:
    """Set the parameters as defaults of the command's options, before the options are parsed."""
    texts = texts_from_json(content)
    several = {one.name for one in context.command.params if one.nargs == -1 or getattr(one, "multiple", False)}
    assert context.command.callback is not None
    context.default_map = {
        name: [texts[parameter]] if name in several else texts[parameter]
        for name, parameter in options(context.command.callback).items()
        if parameter in texts
    }
    return content


ParametersJson = Annotated[
    str,
    typer.Option(
        "--parameters-json",
        is_eager=True,
        callback=_fill_options,
        help="All parameters of a workflow: the list from Argo's {{workflow.parameters.json}}, or an object. "
        "Other options override it.",
    ),
]
"""The option of a step. Use "{}" as its default."""
