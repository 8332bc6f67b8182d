"""Parameters, overrides and configuration files with something wrong in them: the seed says what."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from run_config.job.preset_files import preset_names
from run_config.job.presets import config_keys
from run_config.parameters import PARAMETERS, TEMPLATES

TEXTS = (
    "", " ", "0", "-1", "010", "0x10", "1e999", "nan", ".inf", "9" * 5000, "1_000", "1:30", "yes", "~", "null",
    "[]", "[1", "{}", "{a: b", "!!python/object:os.system x", "!!int ''", "!!timestamp x", "!!binary x", "!!bool x",
    "!!set {a}", "!!omap [a]", "!!pairs x", "&a [*a]", "*a", "2020-13-45", "2020-01-01", "? [1]", "- -", "'", '"',
    "\\", "\n", "\t", "\0", "\x1b[31m", "\ud800", "é", "\u202e", "{{=1+1}}", "{{workflow.name}}", "$(id)", "`id`",
    "../../x", "/etc/passwd", "file://", "file:///\0", "s3://", "s3:///x", "s3://[x", "http://x", "://",
    "~nobody/x", "~", "x" * 10_000, "a,b", "a=b", "=", "a.b.c=1", "<script>", "%s%n", "tiny", "detr-r50", "x.yaml",
    ".yaml", "/dev/zero.yaml", "task:0", "task:99999999999999999999",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostileParameters:
    """What a person, a form or a file could say of a run."""

    template: str
    texts: dict[str, str]
    parameters_json: str
    model: str
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """Of the file; of a preset, its name."""
        path = Path(self.model)
        return path.read_text(encoding="utf-8", errors="replace") if path.is_absolute() else self.model


def hostile_parameters(seed: int, folder: Path) -> HostileParameters:
    """Some parameters, the same as JSON, a preset or a file below `folder`, and overrides of it."""
    rng = random.Random(seed)
    names = [one.name for one in PARAMETERS]
    texts = {rng.choice([*names, *names, *TEXTS]): _text(rng) for _ in range(rng.randint(0, 4))}
    overrides = tuple(
        f"{rng.choice([*config_keys(), *TEXTS])}{rng.choice(('=', '=', '=', '', ':'))}{_text(rng)}"
        for _ in range(rng.randint(0, 2))
    )
    model = rng.choice(preset_names()) if rng.random() < 0.4 else _file(rng, folder)
    return HostileParameters(rng.choice([*TEMPLATES, "x"]), texts, _json(rng, texts), model, overrides)


def _text(rng: random.Random) -> str:
    text = rng.choice(TEXTS)
    return text if rng.random() < 0.7 else text + rng.choice(TEXTS)


def _json(rng: random.Random, texts: dict[str, str]) -> str:
    entries = [{"name": name, "value": value} for name, value in texts.items()]
    depth = rng.choice((10, 1000, 100_000))
    return rng.choice(
        (
            json.dumps(entries),
            json.dumps(texts),
            json.dumps(entries)[: rng.randint(0, 40)],
            json.dumps(entries + entries),
            '{"epochs": 1, "epochs": 2}',
            '[{"name": "epochs", "name": "model", "value": "1"}]',
            '{"epochs": ' + "[" * depth + "]" * depth + "}",
            '{"epochs": ' + "9" * 5000 + "}",
            '{"epochs": NaN, "model": null, "seed": [], "name": {"a": 1}}',
            '[{"name": []}, 7]',
            "\ufeff{}",
        )
    )


def _file(rng: random.Random, folder: Path) -> str:
    depth = rng.choice((20, 500, 5000))
    text = rng.choice(
        (
            f"base: {_text(rng)}\n",
            f"{_text(rng)}: {_text(rng)}\n",
            "".join(
                f"{key.split('.')[0]}: {{{key.split('.')[-1]}: {_text(rng)}}}\n" for key in rng.sample(config_keys(), 2)
            ),
            "base: tiny\noptimizer: {lr: 1}\noptimizer: {lr: 2}\n",
            "base: own.yaml\n",
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)),
            "[" * depth,
            "a: " + "[" * depth + "]" * depth,
            "{a: " * depth + "1" + "}" * depth,
            "\n".join(f"{' ' * level}a:" for level in range(min(depth, 500))),
            _text(rng),
        )
    )
    data = text.encode("utf-8", "surrogatepass")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "own.yaml"
    path.write_bytes(
        rng.choice((data, data, data, data[: len(data) // 2], b"\xff\xfe" + data, data.replace(b"a", b"\xff")))
    )
    return str(path)
