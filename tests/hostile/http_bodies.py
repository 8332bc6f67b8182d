"""Mutated bodies and addresses for the bridge and the model server. The same seed makes the same input.

    mutated_webhook(seed)     body of POST /training-bridge/webhooks/cvat
    mutated_submission(seed)  body of POST /training-bridge/api/runs
    mutated_call(seed)        body of the model server's POST /api/function_invocations
    mutated_query(seed)       path and query below /training-bridge/

Most start from a right input and change some of its values, keys or bytes: wrong types, huge numbers, odd Unicode,
a key given twice, deep nesting, bytes that are not UTF-8, and ends cut off.
"""

import base64
import json
import random
from collections.abc import Callable
from typing import Any

Json = Any

WEBHOOKS: tuple[Json, ...] = (
    {
        "event": "update:job",
        "job": {"task_id": 8, "state": "completed", "stage": "acceptance", "updated_date": "2026-11-20T08:00:00Z"},
        "before_update": {"state": "in progress"},
        "changes": [{"field": "state"}, "stage"],
        "sender": {"id": 3},
    },
    {
        "event": "create:export",
        "status": "finished",
        "target": "task",
        "target_id": 8,
        "rq_id": "action=export&target=task&target_id=8&user_id=3&format=COCO_1~0&subresource=dataset",
    },
    {
        "event": "completed:request[export:dataset]",
        "request": {
            "status": "finished",
            "id": "action=export&target=project&target_id=3&user_id=3",
            "operation": {"target": "project", "project_id": 3},
            "owner": {"id": 3},
            "finished_date": "2026-11-20T08:00:00Z",
        },
    },
)
SUBMISSION: Json = {
    "request": "0b4e1c1e-54f5-4b0e-8e0a-0d9d0f3a6c11",
    "task": [8],
    "template": "cvat-train",
    "parameters": {"epochs": "3", "model": "tiny", "overrides": "model.queries=31"},
}
CALL: Json = {"image": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), "threshold": 0.5}

TEXTS = (
    "", " ", "\x00", "\n", "\u202e", "\ud800", "\U0001f9a0", "é" * 300, "x" * 20_000, "../..", "{{workflow.name}}",
    "'; DROP", "<script>", "NaN", "1e999", "0001-01-01", "9999-12-31T23:59:59", "task:8", "%00", "-1",
)  # fmt: skip
NUMBERS = (0, -1, 1, 8, 2**31 - 1, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308, 5e-324)
OTHERS: tuple[Json, ...] = (None, True, False, [], {}, [[]], [{}], {"": {}}, [None], [["state"]], [{"field": ["x"]}])
DEPTHS = (50, 900, 1_000, 5_000, 100_000)


def mutated_webhook(seed: int) -> bytes:
    """A body of a webhook."""
    return _mutated(random.Random(seed), lambda chance: chance.choice(WEBHOOKS))


def mutated_submission(seed: int) -> bytes:
    """A form as the page sends it."""
    return _mutated(random.Random(seed), lambda _chance: SUBMISSION)


def mutated_call(seed: int) -> bytes:
    """A call of a function for one image."""
    return _mutated(random.Random(seed), lambda _chance: CALL)


def mutated_query(seed: int) -> str:
    """A path below /training-bridge/ with its query, percent-encoded so that any HTTP client takes it."""
    chance = random.Random(seed)
    names = ("api/form", "api/runs", "api/runs/x", "api/runs/x/report/", "static/x", "api/x", "")
    path = chance.choice(names).replace("x", _quoted(_value(chance)) or "x")
    keys = ("task", "project", "run", _quoted(_value(chance)))
    pairs = [f"{chance.choice(keys)}={_quoted(_value(chance))}" for _ in range(chance.randrange(4))]
    return f"{path}?{'&'.join(pairs)}"


def _mutated(chance: random.Random, base: Callable[[random.Random], Json]) -> bytes:
    tree = json.loads(json.dumps(base(chance)))
    kind = chance.randrange(10)
    if kind == 0:
        return _deep(chance)
    for _ in range(chance.randrange(1, 4)):
        tree = _changed(chance, tree)
    text = json.dumps(tree, ensure_ascii=chance.random() < 0.5)
    if kind == 1:
        text = _twice(chance, text)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    if kind in (2, 3):
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    if kind == 4:
        del content[chance.randrange(len(content)) :]
    if kind == 5:
        content = bytearray(text.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig")), "surrogatepass"))
    return bytes(content)


def _deep(chance: random.Random) -> bytes:
    opening, closing = chance.choice((("[", "]"), ('{"a":', "}"), ('{"event":[', "]}")))
    depth = chance.choice(DEPTHS)
    whole = f"{opening * depth}1{closing * depth}"
    wrapped = chance.choice(("{}", '{{"event": "update:job", "job": {}}}', '{{"image": "", "x": {}}}'))
    text = wrapped.format(whole)
    return text[: len(text) // 2 if chance.random() < 0.2 else None].encode()


def _changed(chance: random.Random, tree: Json) -> Json:
    """The tree with one value, somewhere in it, replaced, removed or moved to another key."""
    if chance.random() < 0.2 or not isinstance(tree, (dict, list)) or not tree:
        return _value(chance)
    if isinstance(tree, list):
        place = chance.randrange(len(tree))
        return [*tree[:place], _changed(chance, tree[place]), *tree[place + 1 :]]
    name = chance.choice(list(tree))
    match chance.randrange(6):
        case 0:
            return {key: value for key, value in tree.items() if key != name}
        case 1:
            return {**tree, chance.choice(TEXTS): tree[name]}
        case _:
            return {**tree, name: _changed(chance, tree[name])}


def _value(chance: random.Random) -> Json:
    return chance.choice(chance.choice((TEXTS, NUMBERS, OTHERS)))


def _twice(chance: random.Random, text: str) -> str:
    """One key of the outermost object once more."""
    if not text.startswith("{") or text == "{}":
        return f'{{"event": 1, "event": {text}}}'
    name = json.dumps(chance.choice(list(json.loads(text))))
    return f"{{{name}: {json.dumps(_value(chance))}, {text[1:]}"


def _quoted(value: Json) -> str:
    raw = value if isinstance(value, str) else json.dumps(value)
    return "".join(f"%{byte:02x}" for byte in raw[:500].encode("utf-8", "surrogatepass"))
