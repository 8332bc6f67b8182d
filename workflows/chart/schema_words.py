"""The building blocks of the schema of the chart's values: types of text, numbers, lists and mappings."""

from typing import Any

from run_config.installation import LABEL_VALUE, QUALIFIED_NAME

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
TEXTS: Schema = {"type": "object", "additionalProperties": STRING}

DNS_NAME = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LABEL_NAME = "[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?"
KEY = r"[-._a-zA-Z0-9]{1,253}"
PREFIX = r"[^/\s{}]+(/[^/\s{}]+)*"
NOT_PLAIN = r"(^|/)(\.|%2[eE]){1,2}(/|$)"
"""A path part that is `.` or `..`, also percent-encoded."""

BUCKET = r"[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]"
REGISTRY = r"[a-zA-Z0-9][-a-zA-Z0-9.]*(:[0-9]+)?(/[-a-z0-9._]+)*/?"
REPOSITORY = r"[a-z0-9]+([-._]+[a-z0-9]+)*(/[a-z0-9]+([-._]+[a-z0-9]+)*)*"
DURATION = r"[0-9]+(s|m|h)"
QUANTITY = r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"
CIDR = r"[0-9a-fA-F.:]+/[0-9]{1,3}"
URL = r"https?://[^/\s]+/?"
PORTS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 1, "maximum": 65535},
}

OPEN = {"additionalProperties": True}


def closed(**properties: Schema) -> Schema:
    """A mapping with known keys only: any other key is a typing error."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def worded(pattern: str) -> Schema:
    """A text that matches the pattern."""
    return {"type": "string", "pattern": f"^({pattern})$"}


def plain(text: Schema) -> Schema:
    """A text with a path without `.` and `..`: the same rule as `run_config.locations.leads_elsewhere`."""
    return {**text, "not": {"pattern": NOT_PLAIN}}


def maybe(pattern: str) -> Schema:
    """A text that matches the pattern or is empty."""
    return {"type": "string", "pattern": f"^({pattern})?$"}


def listed(pattern: str) -> Schema:
    """A list of texts that match the pattern."""
    return {"type": "array", "items": worded(pattern)}


def names() -> Schema:
    """A list of names of Kubernetes objects."""
    return listed(DNS_NAME)


def labels() -> Schema:
    """Labels of a Kubernetes object."""
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^({QUALIFIED_NAME})$"},
        "additionalProperties": worded(LABEL_VALUE),
    }


def resources() -> Schema:
    """Resource requests and limits of a container."""
    amounts = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number"]}}
    return closed(requests=amounts, limits=amounts)


def service_account() -> Schema:
    """A service account, created by the chart or already present."""
    return closed(create=BOOLEAN, name=maybe(DNS_NAME), annotations=TEXTS, labels=labels())
