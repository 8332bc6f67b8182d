"""The catalogue of workflow templates offered in CVAT, and their parameters.

Our templates describe their parameters in an annotation, which other templates may use too. Without it, a parameter's
name, value, choices and description are used. Onepanel's parameter names tell what to fill in, and Onepanel's
additional keys are read if the cluster has kept them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from run_config.parameter_forms import ANNOTATION, FORM_VERSION
from run_config.parameters import Parameter, Role, Type, Visibility
from workflows.cluster.run_metadata import USED_BY
from workflows.cluster.templates import Argument, Template, read_template

TITLE = "workflows.argoproj.io/title"
DESCRIPTION = "workflows.argoproj.io/description"


class Fill(StrEnum):
    """Meanings of parameters that the bridge fills in or offers choices for."""

    DATASET = "dataset"
    OUTPUT = "output"
    STORE = "store"
    SUBJECT = "subject"
    GRANT = "grant"
    CLASSES = "num-classes"
    FORMAT = "dump-format"
    FINETUNE = "finetune-checkpoint"
    MODEL = "model-folder"
    POOL = "node-pool"


BY_NAME: Mapping[str, Fill] = {
    "cvat-annotation-path": Fill.DATASET,
    "cvat-output-path": Fill.OUTPUT,
    "cvat-finetune-checkpoint": Fill.FINETUNE,
    "cvat-num-classes": Fill.CLASSES,
    "dump-format": Fill.FORMAT,
    "sys-node-pool": Fill.POOL,
    "cvat-subject": Fill.SUBJECT,
    "cvat-grant": Fill.GRANT,
}
"""Parameter names with a meaning: Onepanel's, which third-party templates use, and two of ours."""

NOT_ASKED = frozenset({Fill.DATASET, Fill.OUTPUT, Fill.STORE, Fill.SUBJECT, Fill.GRANT, Fill.CLASSES, Fill.FORMAT})
_HIDDEN = ("private", "internal", "protected", "hidden")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of a template, and how the form treats it."""

    parameter: Parameter
    fill: Fill | None
    asked: bool
    """Whether the form shows it. Otherwise the bridge or the template's default sets it."""

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.parameter.name


@dataclass(frozen=True, slots=True)
class OfferedTemplate:
    """A template offered in CVAT."""

    template: Template
    tree: Mapping[str, Any]
    title: str
    description: str
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        """The template's name."""
        return self.template.name

    def filled(self, fill: Fill) -> Field | None:
        """The parameter with this meaning, if any."""
        return next((one for one in self.fields if one.fill is fill), None)

    @property
    def prefixes_namespace(self) -> bool:
        """Whether its artifact keys are `<namespace>/<data path>`, as in Onepanel's templates."""
        field = self.filled(Fill.DATASET)
        keys = re.findall(r"{{([^{}]+)}}/{{([^{}]+)}}", json.dumps(self.tree.get("spec") or {}))
        wanted = ("workflow.namespace", f"workflow.parameters.{field.name}") if field else None
        return wanted in {(first.strip(), second.strip()) for first, second in keys}

    @property
    def exports_itself(self) -> bool:
        """Whether the template has its own step `export`. For third-party templates the bridge adds one."""
        return self.filled(Fill.SUBJECT) is not None


def _texts(value: object) -> object:
    return tuple(str(one) for one in value) if isinstance(value, list) else value


class _Entry(BaseModel):
    """A parameter in the form annotation."""

    model_config = ConfigDict(extra="ignore")

    name: str
    title: str = ""
    help: str = ""
    group: str = ""
    type: str = Type.TEXT.value
    visibility: str = Visibility.ANNOTATOR.value
    required: bool = False
    default: str | None = None
    role: str | None = None
    minimum: float | None = None
    exclusiveMinimum: float | None = None  # noqa: N815 - the form's key
    maximum: float | None = None
    choices: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()


class _Form(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int
    parameters: tuple[_Entry, ...]


def read_offered_template(tree: Mapping[str, Any]) -> OfferedTemplate | None:
    """Read a template from the cluster. None: it is not offered in CVAT."""
    metadata = tree["metadata"]
    labels = metadata.get("labels") or {}
    if any(labels.get(key) != value for key, value in USED_BY.items()):
        return None
    template = read_template(tree)
    annotations = metadata.get("annotations") or {}
    form = _form(annotations.get(ANNOTATION))
    raw = {
        str(one.get("name")): one for one in ((tree.get("spec") or {}).get("arguments") or {}).get("parameters") or ()
    }
    entries = {one.name: one for one in form.parameters} if form else {}
    # First in the order of the form, then parameters that only the template has.
    names = [name for name in entries if name in template.arguments]
    names += [name for name in template.arguments if name not in entries]
    fields = tuple(_field(template.arguments[name], entries.get(name), raw[name], form is not None) for name in names)
    offered = OfferedTemplate(
        template=template,
        tree=tree,
        title=str(annotations.get(TITLE) or template.name),
        description=str(annotations.get(DESCRIPTION) or ""),
        fields=fields,
    )
    # Our templates that start from an export are not offered: each has a variant that starts from CVAT.
    return None if template.ours and not offered.exports_itself else offered


def _form(text: str | None) -> _Form | None:
    try:
        form = _Form.model_validate(json.loads(text or "null"))
    except (ValueError, RecursionError, ValidationError):
        return None
    return form if form.version == FORM_VERSION else None


def _field(argument: Argument, entry: _Entry | None, raw: Mapping[str, Any], has_form: bool) -> Field:
    if entry is not None:
        fill = Fill(entry.role) if entry.role in set(Fill) else BY_NAME.get(entry.name)
        parameter = _from_form(entry)
    else:
        fill = BY_NAME.get(argument.name)
        parameter = _from_template(argument, raw)
        if has_form:
            parameter = replace(parameter, visibility=Visibility.EXPERT)
    # Values in the template itself, which a platform engineer may have restricted, override the annotation.
    default = argument.default if argument.default is not None else (None if not argument.from_cluster else "")
    choices = argument.choices or parameter.choices
    if argument.choices and parameter.type is Type.TEXT:
        parameter = replace(parameter, type=Type.CHOICE)
    if fill is Fill.POOL:
        parameter = replace(parameter, type=Type.NODE_POOL)
    parameter = replace(parameter, default=default, choices=choices, role=_role(fill), file_suffixes=())
    asked = parameter.visibility is not Visibility.HIDDEN and fill not in NOT_ASKED
    return Field(parameter, fill, asked)


def _role(fill: Fill | None) -> Role | None:
    return Role(fill.value) if fill is not None and fill.value in set(Role) else None


def _from_form(entry: _Entry) -> Parameter:
    return Parameter(
        name=entry.name,
        title=entry.title or entry.name,
        help=entry.help,
        group=entry.group or "Settings",
        type=Type(entry.type) if entry.type in set(Type) else Type.TEXT,
        default=entry.default,
        empty_is_default=not entry.required,
        visibility=Visibility(entry.visibility) if entry.visibility in set(Visibility) else Visibility.ANNOTATOR,
        minimum=entry.minimum if entry.exclusiveMinimum is None else entry.exclusiveMinimum,
        maximum=entry.maximum,
        above_minimum=entry.exclusiveMinimum is not None,
        choices=entry.choices,
    )


def _from_template(argument: Argument, raw: Mapping[str, Any]) -> Parameter:
    kind = str(raw.get("type") or "")
    options = [one for one in raw.get("options") or () if isinstance(one, Mapping)]
    chosen = argument.choices or tuple(str(one.get("value")) for one in options)
    hidden = kind == "hidden" or str(raw.get("visibility") or "") in _HIDDEN
    type_ = Type.CHOICE if chosen else Type.NUMBER if kind == "input.number" else Type.TEXT
    return Parameter(
        name=argument.name,
        title=str(raw.get("displayName") or argument.name),
        help=str(raw.get("description") or raw.get("hint") or ""),
        group="Settings",
        type=type_,
        visibility=Visibility.HIDDEN if hidden else Visibility.ANNOTATOR,
        choices=chosen,
    )
