"""The table in the chart's README, from the comments in values.yaml."""

import json
from typing import Any, NamedTuple

import yaml

START = "<!-- values: written by `detr-workflows render` from values.yaml -->"
END = "<!-- end of values -->"

_MARK = "# -- "


class Value(NamedTuple):
    """One documented value, such as `store.bucket`."""

    path: str
    default: object
    help: str


def described(text: str) -> list[Value]:
    """The values in values.yaml with a comment that starts with `# -- ` in the line above."""
    lines = text.splitlines()
    found: list[Value] = []

    def walk(node: yaml.Node | None, tree: Any, path: str) -> None:  # noqa: ANN401 - any YAML
        for key, below in node.value if isinstance(node, yaml.MappingNode) else ():
            here, value = f"{path}{key.value}", tree[key.value]
            comment = lines[key.start_mark.line - 1].strip()
            if comment.startswith(_MARK):
                found.append(Value(here, value, comment.removeprefix(_MARK)))
            walk(below, value, f"{here}.")

    walk(yaml.compose(text), yaml.safe_load(text), "")
    return found


def with_table(readme: str, values_text: str) -> str:
    """Return the README with a new table of the values between its markers."""
    head, _, rest = readme.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{table(values_text)}{END}{tail}"


def table(values_text: str) -> str:
    """One row for each value, in the order of values.yaml."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    for value in described(values_text):
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {value.help.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"
