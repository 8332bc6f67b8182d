"""What the pages for people say to type exists: files, options, parameters, values of the chart."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from cvat_client.settings import BridgeSettings, Cvat, parse_settings
from run_config.parameters import BY_NAME, TEMPLATES, parse
from tests.charts.chart import CHART, rendered

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", CHART / "README.md", ROOT / "tests" / "cluster" / "README.md", *(ROOT / "docs").glob("*.md")]
)
OURS = ("detr-workflows", "data-prep", "detr-job", "cvat-bridge")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
WORD = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[a-zA-Z]+(\.[a-zA-Z]+)+")
GROUPS = ("weights",)
"""Commands of ours that have commands of their own."""
ELLIPSIS = "whatever"
"""Stands where a page leaves something out."""
NO_VALUES = {"workflow.parameters", "workflow.name", "store.env", "store.md", "images.md", "test.md", "test.txt"}
"""Dotted words that begin as a value of the chart does, and are something else."""


class Command(NamedTuple):
    """A command as a page has it, line continuations joined."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text.replace("…", ELLIPSIS), comments=True)


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^ {4,}\S.*$", "", FENCE.sub("", text), flags=re.MULTILINE)


def block_lines(text: str) -> Iterator[str]:
    """Lines of the indented and of the shell blocks."""
    yield from re.findall(r"^ {4,}(\S.*)$", FENCE.sub("", text), flags=re.MULTILINE)
    for _, language, body in FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            yield from body.splitlines()


def commands(*programs: str) -> Iterator[Command]:
    """Every command of these programs, in blocks and in the text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        joined = "\n".join(block_lines(text)).replace("\\\n", " ")
        parts = [part for line in joined.splitlines() for part in re.split(r"\s(?:&&|\|)\s", line.removesuffix("&"))]
        for part in parts + WORD.findall(prose(text)):
            plain = re.sub(r"^\.venv/bin/", "", part.strip())
            if plain.split(" ")[0] in programs and " " in plain:
                yield Command(str(page.relative_to(ROOT)), plain)


@cache
def help_of(*command: str) -> str:
    """What a command says of itself."""
    program = command[0]
    path = str(Path(sys.executable).parent / program) if program in OURS else shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not on the PATH")
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [path, *command[1:], "--help"], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def slugs(path: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in slugs(path), f"{page.name}: {target}"


def options(words: list[str]) -> set[str]:
    """Options of a command, without those of a command after `--`."""
    known = {word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]}
    return {word for word in known if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)}


def test_there_are_commands_to_look_at():
    """So that the tests below cannot pass by finding nothing."""
    counts = {program: len(list(commands(program))) for program in ("detr-workflows", "helm", "argo")}
    assert all(count >= 8 for count in counts.values()), counts


@pytest.mark.parametrize("program", OURS)
def test_our_commands_have_the_options_that_pages_give_them(program: str):
    for command in commands(program):
        verb = command.words[1]
        assert re.search(rf"^\W*{re.escape(verb)}\s", help_of(program), re.MULTILINE), f"{command}: no verb {verb}"
        verbs = command.words[1:3] if verb in GROUPS else [verb]
        known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(program, *verbs)))
        assert options(command.words) <= known, command


@pytest.mark.parametrize("program", ["helm", "argo"])
def test_other_programs_have_the_options_that_pages_give_them(program: str):
    for command in commands(program):
        verb = command.words[1]
        known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(program, verb)))
        assert options(command.words) <= known, command


def test_parameters_in_commands_are_those_of_the_runs():
    for command in commands("detr-workflows", "argo"):
        words = command.words
        for before, word in itertools.pairwise(words):
            name = word.partition("=")[0]
            if before == "-p" and name not in ("name", ELLIPSIS):
                assert name in BY_NAME, command


def schema_of(path: list[str]) -> dict[str, Any] | None:
    """The part of the values' schema at a path; None where there is no such value."""
    here: Any = json.loads((CHART / "values.schema.json").read_text())
    for key in path:
        below = here.get("properties", {})
        if key in below:
            here = below[key]
        elif isinstance(here.get("additionalProperties"), dict):
            here = here["additionalProperties"]
        elif here.get("type") == "object" and here.get("additionalProperties") is not False:
            return {}
        else:
            return None
    return here


def test_values_that_pages_name_exist():
    roots = set(yaml.safe_load((CHART / "values.yaml").read_text()))
    seen = 0
    for page in PAGES:
        for word in WORD.findall(prose(page.read_text(encoding="utf-8"))):
            name = word.partition(":")[0]
            if not PATH.fullmatch(name) or name.split(".")[0] not in roots or name in NO_VALUES:
                continue
            assert schema_of(name.split(".")) is not None, f"{page.name}: there is no value {name}"
            seen += 1
    assert seen > 20


def test_values_set_in_commands_exist():
    for command in commands("helm"):
        for before, word in itertools.pairwise(command.words):
            if before == "--set":
                assert schema_of(word.partition("=")[0].split(".")) is not None, command


def values_blocks(name: str) -> list[str]:
    return [
        body
        for _, language, body in FENCE.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
        if language == "yaml" and "store" in yaml.safe_load(body) and "version" not in yaml.safe_load(body)
    ]


INSTALL = values_blocks("install.md")


@pytest.mark.parametrize("number", range(len(INSTALL)))
def test_every_values_file_of_the_installation_page_installs(number: int):
    assert len(rendered(yaml.safe_load(INSTALL[number])).templates) == 4


def test_the_installation_page_has_values_for_a_cloud_a_laptop_and_a_closed_network():
    assert len(INSTALL) == 3


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm puts files together."""
    both = {key: merged(base[key], over[key]) for key in base if isinstance(over.get(key), dict)}
    return base | over | both


BRIDGE = [
    values
    for _, language, body in FENCE.findall((ROOT / "docs" / "cvat.md").read_text(encoding="utf-8"))
    if language == "yaml" and "cvatBridge" in (values := yaml.safe_load(body))
]
"""The values of the page about CVAT: the least, and then what is added to it."""


@pytest.mark.parametrize("number", range(len(BRIDGE)))
def test_every_values_block_of_the_page_about_cvat_installs(number: int):
    assert "detr-workflows-bridge" in rendered(merged(BRIDGE[0], BRIDGE[number])).names("Deployment")


def test_the_page_about_cvat_has_values_for_each_part():
    keys = {key for values in BRIDGE for key in values["cvatBridge"]}
    assert {"cvat", "nginx", "ingress", "models", "triggers"} <= keys


def test_the_settings_of_the_bridge_are_shown_with_what_they_are_without():
    (text,) = (
        body
        for _, _, body in FENCE.findall((ROOT / "docs" / "contracts.md").read_text(encoding="utf-8"))
        if "publicOrigin" in body
    )
    shown = parse_settings(text, "docs/contracts.md")
    assert shown == BridgeSettings(cvat=shown.cvat)
    assert shown.cvat == Cvat(url=shown.cvat.url, public_origin=shown.cvat.public_origin)
    assert yaml.safe_load(text) == shown.model_dump(by_alias=True, mode="json")


def test_the_sentences_of_the_page_about_cvat_are_said_by_the_program():
    """`…` stands for what differs; a sentence that goes over lines of code is read as one."""
    folders = [ROOT / name for name in ("cvat_bridge", "cvat_client", "cvat_steps", "model_server")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".js")]
    said = re.sub(r'"\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in files))
    page = (ROOT / "docs" / "cvat.md").read_text(encoding="utf-8")
    rows = page.partition("## Troubleshooting")[2].partition("\n## ")[0].splitlines()
    sentences = [word for row in rows if row.startswith("| ") for word in WORD.findall(row.split(" | ")[0])]
    assert len(sentences) > 25
    for sentence in sentences:
        for part in sentence.split("…"):
            assert part.strip() in said, sentence


def manifests(page: str) -> dict[tuple[str, str], Any]:
    """(kind, name) → every manifest for kubectl in a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    trees = [
        yaml.safe_load(body) for _, language, body in FENCE.findall(text) if language == "yaml" and "kind:" in body
    ]
    return {(tree["kind"], tree["metadata"]["name"]): tree for tree in trees}


def test_the_operators_role_is_no_wider_than_it_says():
    """Argo's own role for people can start pods and read secrets; this one must not."""
    role = manifests("operate.md")["Role", "detr-workflows-operator"]
    allowed = {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    assert ("workflows", "update") in allowed
    assert ("cronworkflows", "list") in allowed
    assert not {kind for kind, _ in allowed} & {"secrets", "serviceaccounts", "configmaps", "pods/exec", "*"}
    assert ("pods", "create") not in allowed


def test_the_role_for_artifacts_reads_one_secret():
    (rule,) = manifests("operate.md")["Role", "detr-workflows-artifacts"]["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], ["detr-workflows-store"], ["get"])


def test_the_scheduled_run_has_parameters_of_its_template():
    spec = manifests("operate.md")["CronWorkflow", "nightly"]["spec"]["workflowSpec"]
    given = {one["name"]: one["value"] for one in spec["arguments"]["parameters"]}
    template = TEMPLATES[spec["workflowTemplateRef"]["name"]]
    assert parse({"store": "s3://parts/vision", **given}, template)["model"] == given["model"]


def test_the_argo_that_is_installed_has_no_known_hole():
    installed = re.search(r"argo-workflows/releases/download/v([\d.]+)/", (ROOT / "docs" / "install.md").read_text())
    advised = re.search(r"Use it with Argo ([\d.]+),", (ROOT / "docs" / "security.md").read_text())
    assert installed
    assert advised
    assert installed[1] == advised[1]
