"""From the tensor names of Hugging Face Transformers to those of a model's authors."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Array = TypeVar("Array")
Concatenate = Callable[[list[Array]], Array]
Rules = Sequence[tuple[str, str]]


def authors_names(
    weights: Mapping[str, Array], rules: Rules, attention: str, concatenate: Concatenate[Array]
) -> dict[str, Array]:
    """Rename the tensors, and pack the matrices of query, key and value into one.

    rules: patterns and their replacements, applied in this order. attention: pattern of the authors' names of the
    attentions whose matrices are packed. concatenate: joins tensors along dimension 0.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    found: dict[str, Array] = {}
    for given, tensor in weights.items():
        name = given.removeprefix("model.")
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        found[name] = tensor
    query = re.compile(rf"({attention})\.q_proj\.(weight|bias)")
    for name in list(found):
        if match := query.fullmatch(name):
            thirds = [f"{match[1]}.{each}_proj.{match[2]}" for each in "qkv"]
            if all(third in found for third in thirds):
                found[f"{match[1]}.in_proj_{match[2]}"] = concatenate([found.pop(third) for third in thirds])
    return found
