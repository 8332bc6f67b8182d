"""Argo's `{{…}}` tags: which a text has, and the text with values in their place."""

import re
from collections.abc import Iterator, Mapping

from workflows.errors import TemplateError

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

PARAMETERS_JSON = "workflow.parameters.json"


def tags(text: str) -> Iterator[str]:
    """The names of the tags in a text, in order.

    Raises TemplateError: an expression, or blanks that Argo does not always take.
    """
    for match in _TAG.finditer(text):
        name = match[1]
        if name.startswith("="):
            raise TemplateError(f"the local runner does not know the expression {match[0]}")
        if name != name.strip():
            raise TemplateError(f"the tag {match[0]} has blanks; write {{{{{name.strip()}}}}}")
        yield name


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with every tag replaced; values are not looked at again."""
    return _TAG.sub(lambda match: values[match[1]], text)
