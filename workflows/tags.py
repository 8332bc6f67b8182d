"""Argo's `{{…}}` tags: find them in a text, and replace them by values."""

import re
from collections.abc import Iterator, Mapping

from workflows.errors import TemplateError

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

PARAMETERS_JSON = "workflow.parameters.json"

RETRIES = "retries"
"""The number of earlier attempts of a step."""


def tags(text: str) -> Iterator[str]:
    """Yield the names of the tags in a text, in order.

    Raises TemplateError: when the text has an expression, or a tag with blanks, which Argo does not always accept.
    """
    for match in _TAG.finditer(text):
        name = match[1]
        if name.startswith("="):
            raise TemplateError(f"the local runner does not support the expression {match[0]}")
        if name != name.strip():
            raise TemplateError(f"the tag {match[0]} has spaces; write {{{{{name.strip()}}}}}")
        yield name


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace every tag once. Tags in the inserted values are not replaced."""
    return _TAG.sub(lambda match: values[match[1]], text)
