"""The table of the chart's README, from the comments in values.yaml."""

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
    """One value that a person may set: `store.bucket`."""

    path: str
    default: object
    help: str


def described(text: str) -> list[Value]:
    """The values of a values.yaml that have a comment starting with `# -- ` in the line above them."""
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
    """The README with the table of the values between its marks."""
    head, _, rest = readme.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{table(values_text)}{END}{tail}"


def table(values_text: str) -> str:
    """A row for every value, in their order."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    for value in described(values_text):
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {value.help.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"
