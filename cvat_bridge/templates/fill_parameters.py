"""Check the values of a form, and fill in all parameters of a template. Pure functions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from cvat_bridge.cluster import PoolChoice
from cvat_bridge.http.problems import Complaint, Refusal
from cvat_bridge.templates.catalog import Field, Fill, OfferedTemplate
from cvat_bridge.templates.export_formats import NO_LONGER, export_format
from cvat_bridge.templates.form import default_pool, is_shown, pool_names
from cvat_client.subject import Subject
from run_config.errors import ConfigError
from run_config.installation import Installation
from run_config.job.places import places_in_overrides
from run_config.locations import overlaps, resolve
from run_config.parameters import Parameter, Type, lines, parse_value, split_overrides
from workflows.cluster import submission

OUTPUT = "workflow-data/output"
OVERRIDES = "overrides"
"""The parameter that sets keys of the job's configuration."""

LONGEST_VALUE = 20_000


@dataclass(frozen=True, slots=True)
class RunContext:
    """The values that the bridge fills in for one run."""

    subject: Subject
    grant: str
    run: str
    installation: Installation
    exports_prefix: str
    pools: Sequence[PoolChoice]
    classes: int | None = None
    namespace: str = ""

    @property
    def into(self) -> str:
        """The key below the store to which the export for a third-party template is unpacked."""
        return f"{self.exports_prefix}/{self.subject.kind}-{self.subject.ids[0]}/{self.run}/dataset"

    def bucket_key(self, key: str) -> str:
        """Convert a key below the store to a key in the bucket, as artifacts of third-party templates use it."""
        prefix = self.installation.store.partition("://")[2].partition("/")[2]
        return f"{prefix.strip('/')}/{key}" if prefix.strip("/") else key

    def dataset_for(self, offered: OfferedTemplate) -> str:
        """The key of the export in the bucket, for a third-party template.

        Onepanel's templates prepend the namespace, so it is removed here. Refusal 422: such a template cannot find
        the export, because the store is not below the namespace's name.
        """
        key = self.bucket_key(self.into)
        if not offered.prefixes_namespace:
            return key
        if not key.startswith(f"{self.namespace}/"):
            text = (
                f"This template reads its data below {self.namespace}/ in the bucket, and the store is "
                f"{self.installation.store}: tell who runs this installation (docs/cvat.md, templates of others)."
            )
            raise Refusal(422, Complaint(text))
        return key.removeprefix(f"{self.namespace}/")


def fill_in(offered: OfferedTemplate, given: Mapping[str, str], context: RunContext) -> dict[str, str]:
    """Return name → text of every parameter. Refusal 422: one sentence per mistake."""
    given = {**_chosen_pool(offered, context), **given}
    complaints = _check(offered, given, context)
    if complaints:
        raise Refusal(422, *complaints)
    texts: dict[str, str] = {}
    for field in offered.fields:
        text = given.get(field.name) if is_shown(field, offered, context.pools) else None
        filled = _filled(field, offered, text, context)
        if filled is not None:
            texts[field.name] = filled
    if offered.template.ours:
        _require_gpus(texts, offered, context)
    try:
        return submission.arguments(offered.template, texts, context.installation, typed_here=False)
    except ConfigError as error:
        shown = {field.name for field in offered.fields if is_shown(field, offered, context.pools)}
        raise Refusal(422, *(_complaint(line, shown) for line in str(error).splitlines())) from error


def _require_gpus(texts: Mapping[str, str], offered: OfferedTemplate, context: RunContext) -> None:
    """Check early that the pool has the GPU that `device` needs. Refusal 422: it has none."""
    pools = {pool.name: pool for pool in context.installation.node_pools}
    pool = pools.get(texts.get("sys-node-pool", ""))
    default = next((field.parameter.default for field in offered.fields if field.name == "device"), None)
    if pool is None or pool.gpu_count or texts.get("device", default) != "cuda":
        return
    others = [one.title or one.name for one in pools.values() if one.gpu_count]
    instead = f"Choose {' or '.join(others)} there, or cpu here." if others else "Choose cpu here."
    raise Refusal(422, Complaint(f"The node pool {pool.title or pool.name} has no GPU. {instead}", "device"))


def _chosen_pool(offered: OfferedTemplate, context: RunContext) -> dict[str, str]:
    """The default pool, for runs without a form."""
    field = offered.filled(Fill.POOL)
    return {field.name: default_pool(field, context.pools)} if field and field.asked and context.pools else {}


def _check(offered: OfferedTemplate, given: Mapping[str, str], context: RunContext) -> list[Complaint]:
    """Check each value on its own."""
    shown = {field.name: field for field in offered.fields if is_shown(field, offered, context.pools)}
    complaints = [
        Complaint(f"{name[:60]!r} is not a parameter of this form; reload the form.")
        for name in given
        if name not in shown
    ]
    for name, field in shown.items():
        text = given.get(name, field.parameter.default or "")
        if len(text) > LONGEST_VALUE:
            complaints.append(Complaint(f"{name} has more than {LONGEST_VALUE} characters.", name))
            continue
        if field.fill is Fill.POOL and context.pools:
            names = [pool.value for pool in pool_names(field, context.pools)]
            if text not in names:
                complaints.append(Complaint(f"{name} must be one of {', '.join(names)}, not {text[:80]!r}.", name))
            continue
        try:
            parse_value(_checked_as(field, offered), text)
            _require_no_export(field, offered, text, context)
        except ConfigError as error:
            complaints.append(Complaint(str(error).replace(" , not", ", not"), name))
    old_format = offered.filled(Fill.FORMAT)
    if not offered.exports_itself and old_format and export_format(old_format.parameter.default or "") is None:
        complaints.append(Complaint(NO_LONGER.format(old_format.parameter.default)))
    if _needs_export(offered) and len(context.subject.ids) > 1:
        complaints.append(Complaint("This template works with one task or one project per run."))
    return complaints


def _checked_as(field: Field, offered: OfferedTemplate) -> Parameter:
    """The parameter to check against. A node pool of a third-party template may be any text or one of its choices."""
    kind = field.parameter.type
    if kind is Type.NODE_POOL and not offered.template.ours:
        kind = Type.CHOICE if field.parameter.choices else Type.TEXT
    return replace(field.parameter, type=kind)


def _require_no_export(field: Field, offered: OfferedTemplate, text: str, context: RunContext) -> None:
    """Forbid values that point to the bridge's exports or to a folder that contains them.

    An export contains data that only the user who started it may see. In third-party templates any text may be a
    location, so every text parameter is searched for the exports prefix.
    """
    store, prefix = context.installation.store, context.exports_prefix.strip("/")
    kept = resolve(prefix, store)
    named = field.parameter.type is Type.TEXT and re.search(rf"(?<![\w.-]){re.escape(prefix)}(?![\w.-])", _plain(text))
    if named or any(overlaps(resolve(place, store), kept) for place in _named_places(field, offered, text)):
        raise ConfigError(f"{field.name}: exports below {kept} are not allowed here; start the run from the task.")


def _named_places(field: Field, offered: OfferedTemplate, text: str) -> Sequence[str]:
    """The locations in a value that the run would read, including those in overrides of the configuration."""
    if field.parameter.type in (Type.LOCATION, Type.LOCATIONS):
        return lines(text)
    if not offered.template.ours or field.name != OVERRIDES:
        return ()
    return [line for _, place in places_in_overrides(split_overrides(text)) for line in lines(place)]


def _plain(place: str) -> str:
    """Normalise a URL or key: decode percent-encoding, and drop empty and `.` parts."""
    scheme, separator, rest = unquote(place).rpartition("://")
    return scheme + separator + "/".join(part for part in rest.split("/") if part not in ("", "."))


def _needs_export(offered: OfferedTemplate) -> bool:
    return not offered.exports_itself and offered.filled(Fill.DATASET) is not None


def _filled(field: Field, offered: OfferedTemplate, text: str | None, context: RunContext) -> str | None:
    """The text of a parameter. None: the template's default applies."""
    if field.fill is Fill.POOL and context.pools and not offered.template.ours:
        if text is None:
            return None  # it is not in the form
        pool = next(pool for pool in context.pools if pool.value == text)
        allowed = field.parameter.choices
        return pool.value if allowed and pool.label_value not in allowed else pool.label_value
    if field.fill is Fill.OUTPUT:
        return field.parameter.default or _output(offered, context)
    known = {
        Fill.SUBJECT: str(context.subject),
        Fill.GRANT: context.grant,
        Fill.STORE: context.installation.store,
        Fill.DATASET: context.dataset_for(offered) if field.fill is Fill.DATASET else "",
        Fill.CLASSES: str(context.classes or 0),
    }
    return known.get(field.fill, text) if field.fill else text


def _output(offered: OfferedTemplate, context: RunContext) -> str:
    writable = context.installation.writable
    inside = not writable or any(f"{OUTPUT}/".startswith(f"{one.rstrip('/')}/") for one in writable)
    key = OUTPUT if inside else writable[0].rstrip("/")
    return key if offered.template.ours else context.bucket_key(key)


def _complaint(line: str, shown: set[str]) -> Complaint:
    """Assign the sentence to the field that it begins with."""
    name = line.partition(" ")[0].rstrip(":")
    if " -p " in line:
        return Complaint(f"This template requires {name}, but the form has no field for it: tell its author.")
    return Complaint(line, name if name in shown else None)
