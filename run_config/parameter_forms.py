"""The representations of the parameters: JSON for the form in a template's annotation, and a page of the docs."""

import json
from collections.abc import Sequence

from run_config.parameters import PARAMETERS, TEMPLATES, Parameter, Type

FORM_VERSION = 1
"""Increased when a reader of an older form would misread a newer one."""

ANNOTATION = "detr-workflows/parameters"
"""The annotation of a WorkflowTemplate that holds the form."""

DOCUMENT_HEAD = """\
# Parameters

What a run of `detr-train` can be told, and at the end what the other templates take. `cvat-train` and
`detr-annotate` are there only where the bridge to CVAT is.
`detr-workflows run-local -p name=value`, the Argo UI and the form in CVAT take the
same names; `data-prep check` refuses what is wrong in the first seconds of a run. A step gets all of them as
`--parameters-json`; the options of its command are for people, and an option that is given wins.

The tables are written by `detr-workflows parameters --markdown` from `run_config/parameters.py`, and a test
fails when they differ.

The classes come from the data set, so there is no `cvat-num-classes`. Everything that a model's preset
sets (queries, schedules, augmentation, …) can be changed with `overrides`.

"""

TABLE_HEAD = ("| parameter | value | default | who sees it | what it does |", "|---|---|---|---|---|")


def form_json(parameters: Sequence[Parameter] = PARAMETERS) -> str:
    """The form as one line of JSON: {"version": 1, "parameters": [{name, title, help, type, …}]}.

    Keys without a value are left out. Bounds are called as in JSON Schema: `minimum`, `maximum`, and `exclusiveMinimum`
    if the bound itself is not allowed.
    """
    fields = [_field(parameter) for parameter in parameters]
    return json.dumps({"version": FORM_VERSION, "parameters": fields}, ensure_ascii=False, separators=(",", ":"))


def _field(parameter: Parameter) -> dict[str, object]:
    limits = parameter.limits
    lowest = "exclusiveMinimum" if limits.above_minimum else "minimum"
    entries: dict[str, object] = {
        "name": parameter.name,
        "title": parameter.title,
        "help": parameter.help,
        "group": parameter.group,
        "type": parameter.type.value,
        "visibility": parameter.visibility.value,
        "required": parameter.required,
        "default": parameter.default,
        "role": parameter.role.value if parameter.role else None,
        lowest: limits.minimum,
        "maximum": limits.maximum,
        "choices": list(parameter.choices) or None,
    }
    return {key: value for key, value in entries.items() if value is not None}


def markdown() -> str:
    """The text of docs/parameters.md: one table for each group of a training run, and one for each other template."""
    groups = dict.fromkeys(parameter.group for parameter in PARAMETERS)
    parts = [_table(group, [one for one in PARAMETERS if one.group == group]) for group in groups]
    parts.extend(_table(f"`{name}`", taken) for name, taken in TEMPLATES.items() if taken is not PARAMETERS)
    return DOCUMENT_HEAD + "\n".join(parts)


def _table(title: str, parameters: Sequence[Parameter]) -> str:
    return "\n".join((f"## {title}", "", *TABLE_HEAD, *map(_row, parameters), ""))


def _row(parameter: Parameter) -> str:
    match parameter.type:
        case Type.CHOICE:
            value = ", ".join(f"`{choice}`" for choice in parameter.choices)
            value += ", or a `.yaml` file" if parameter.file_suffixes else ""
        case Type.INTEGER | Type.NUMBER:
            value = f"{parameter.type.value}, {parameter.limits.words()}"
        case Type.LOCATION:
            value = "URL or key"
        case Type.LOCATIONS:
            value = "URLs or keys, one per line"
        case Type.NODE_POOL:
            value = "name of a pool"
        case Type.SET_ID:
            value = "id"
        case _:
            value = parameter.type.value
    default = "required" if parameter.default is None else f"`{parameter.default}`" if parameter.default else "empty"
    text = parameter.help.replace("\n- ", "<br>").removeprefix("- ").replace("\n", " ").replace("|", "\\|")
    cells = (
        f"`{parameter.name}`",
        value,
        default,
        parameter.visibility.value,
        f"**{parameter.title}.** {text}",
    )
    return f"| {' | '.join(cells)} |"
