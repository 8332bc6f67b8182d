"""The form of a template, as JSON for the page. Strings are plain text, except help, which is safe HTML."""

from collections.abc import Sequence
from typing import Literal

from cvat_bridge.cluster import PoolChoice
from cvat_bridge.http.schemas import ParameterSchema, PlanSchema, TemplateSchema
from cvat_bridge.runs.run_files import StoredWeights
from cvat_bridge.templates.catalog import Field, Fill, OfferedTemplate
from cvat_bridge.templates.export_formats import NO_LONGER, export_format
from cvat_bridge.templates.help_text import safe_html
from cvat_bridge.templates.start_choices import HELP, TrainedModel, choice, model_choices, start_choices
from run_config.parameters import Type

MODELS = frozenset({Fill.FINETUNE, Fill.MODEL})


def template_schema(
    offered: OfferedTemplate,
    pools: Sequence[PoolChoice],
    models: Sequence[TrainedModel],
    weights: StoredWeights | None,
    plan: PlanSchema | None,
) -> TemplateSchema:
    """One template for the form. `models`: of finished runs. `weights` None: the store is unreachable."""
    groups: dict[str, list[ParameterSchema]] = {}
    for field in offered.fields:
        if is_shown(field, offered, pools):
            groups.setdefault(field.parameter.group, []).append(
                _parameter_schema(field, offered, pools, models, weights)
            )
    trains = offered.filled(Fill.MODEL) is None
    return {
        "name": offered.name,
        "title": offered.title,
        "help_html": safe_html("\n\n".join(part for part in (offered.description, _trouble(offered)) if part)),
        "trains": trains,
        # A third-party template may train on points or tags.
        "needs_boxes": trains and offered.template.ours,
        "plan": plan,
        "groups": [{"title": title, "parameters": fields} for title, fields in groups.items()],
    }


def is_shown(field: Field, offered: OfferedTemplate, pools: Sequence[PoolChoice]) -> bool:
    """Whether the form shows the field."""
    if field.fill is Fill.POOL and not pools:
        # Without pools, our parameter must be empty. A third-party template may still use its own.
        return field.asked and not offered.template.ours
    return field.asked


def pool_names(field: Field, pools: Sequence[PoolChoice]) -> list[PoolChoice]:
    """The pools to choose from: all, or those in the template's own choices."""
    allowed = field.parameter.choices
    return [pool for pool in pools if not allowed or pool.value in allowed or pool.label_value in allowed]


def default_pool(field: Field, pools: Sequence[PoolChoice]) -> str:
    """The preselected pool: the template's default, or the first."""
    own, default = pool_names(field, pools), field.parameter.default
    first = own[0].value if own else ""
    return next((pool.value for pool in own if default in (pool.value, pool.label_value)), first)


def _parameter_schema(
    field: Field,
    offered: OfferedTemplate,
    pools: Sequence[PoolChoice],
    models: Sequence[TrainedModel],
    weights: StoredWeights | None,
) -> ParameterSchema:
    parameter = field.parameter
    default = parameter.default or ""
    required = parameter.required
    choices = [choice(text, text) for text in parameter.choices]
    kind, help_ = parameter.type, parameter.help
    is_start = field.fill is Fill.FINETUNE and offered.template.ours
    if field.fill is Fill.POOL and pools:
        own = pool_names(field, pools)
        choices = [choice(pool.value, pool.title, pool.detail, available=pool.available) for pool in own]
        default = default_pool(field, pools)
        required = True
    elif field.fill is Fill.POOL:
        kind = Type.CHOICE if choices else Type.TEXT
    elif is_start:
        help_, choices = HELP, start_choices(models, weights.cards if weights else ())
    elif field.fill in MODELS:
        choices = model_choices(models)
    schema: ParameterSchema = {
        "name": parameter.name,
        "title": parameter.title,
        "help_html": safe_html(help_),
        "type": kind.value,
        "visibility": parameter.visibility.value,
        "required": required,
        "default": default,
        "choices": choices,
        "other": is_start,
    }
    limits = parameter.limits
    if limits.minimum is not None:
        bound: Literal["exclusiveMinimum", "minimum"] = "exclusiveMinimum" if limits.above_minimum else "minimum"
        schema[bound] = limits.minimum
    if limits.maximum is not None:
        schema["maximum"] = limits.maximum
    return schema


def _trouble(offered: OfferedTemplate) -> str:
    """A sentence if the template would be refused for its export format. Else empty."""
    field = offered.filled(Fill.FORMAT)
    text = (field.parameter.default or "") if field else ""
    return NO_LONGER.format(text) if text and export_format(text) is None else ""
