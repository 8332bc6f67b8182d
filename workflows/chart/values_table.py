"""The table in the chart's README, from the comments in values.yaml."""

import json
import re
from dataclasses import dataclass

import yaml

START = "<!-- values: written by `detr-workflows render` from values.yaml -->"
END = "<!-- end of values -->"

_MARK = "# -- "
_KEY = re.compile(r"( *)([A-Za-z]\w*):")


@dataclass(frozen=True, slots=True)
class Value:
    """One documented value, such as `store.bucket`."""

    path: str
    default: object
    help: str


def described(text: str) -> list[Value]:
    """The values in values.yaml with a comment that starts with `# -- ` in the line above."""
    tree = yaml.safe_load(text)
    found: list[Value] = []
    parents: list[str] = []
    comment = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(_MARK):
            comment = stripped.removeprefix(_MARK)
            continue
        key = _KEY.match(line)
        if key is None:
            comment = ""
            continue
        depth = len(key[1]) // 2
        parents[depth:] = [key[2]]
        if comment:
            default = tree
            for name in parents:
                default = default[name]
            found.append(Value(".".join(parents), default, comment))
        comment = ""
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
