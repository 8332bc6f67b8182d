"""Read YAML configuration written by people, without the surprises of YAML.

Differences from standard YAML: duplicate keys are refused, because the first would be lost silently. Anchors and
aliases are refused, because a few lines of them can expand to more than fits into memory. 1e-4 is a number, 010 is ten,
and 1:30 is text. Tags that create objects are unknown.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from run_config.errors import ConfigError

MAX_DEPTH = 50
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """A SafeLoader with the rules of this module."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # types-pyyaml leaves it untyped
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not supported", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            problem = f"it is nested too deeply (more than {MAX_DEPTH} levels)"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:  # noqa: ANN401 - a YAML value
    """Read 010 as ten, not as an octal number, and 1:30 as text, not as ninety."""
    text = str(node.value)
    if ":" in text:
        return text
    if re.fullmatch(r"[-+]?[0-9_]+", text):
        return int(text.replace("_", ""))
    if node.tag.endswith("int"):
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(text: str, where: str) -> Any:  # noqa: ANN401 - a YAML value
    """Parse the single document in `text`. Raises ConfigError: beginning with `where`, when it is not valid YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigError(f"{where} is not valid YAML: {error.problem}{place}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        # The errors other than YAMLError come from a tag or a text that looks like a date or a number but is invalid.
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply") from error
