"""The templates as YAML files, and whether the files in the tree are what the code says."""

import difflib
from pathlib import Path

from hera.workflows import WorkflowTemplate

from workflows.detr_evaluate import detr_evaluate
from workflows.detr_prepare import detr_prepare
from workflows.detr_train import detr_train

TEMPLATES: tuple[WorkflowTemplate, ...] = (detr_train, detr_prepare, detr_evaluate)

RENDERED = Path(__file__).parent / "rendered"
"""Where the rendered templates lie in the tree and in the installed package."""

HEADER = "# Rendered by `detr-workflows render` from workflows/{module}.py. Do not edit.\n"


def rendered() -> dict[str, str]:
    """File name → text of every template."""
    return {f"{template.name}.yaml": _text(template) for template in TEMPLATES}


def write(folder: Path) -> list[Path]:
    """Write all templates into `folder` and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


def differences(folder: Path) -> str:
    """A unified diff from the files in `folder` to what the code says; empty when they agree."""
    parts: list[str] = []
    for name, text in rendered().items():
        path = folder / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = difflib.unified_diff(
            old.splitlines(keepends=True), text.splitlines(keepends=True), str(path), "rendered now"
        )
        parts.extend(lines)
    return "".join(parts)


def _text(template: WorkflowTemplate) -> str:
    # A line break inside a tag would be a blank in it.
    text = template.to_yaml(width=10**6, allow_unicode=True)
    return HEADER.format(module=str(template.name).replace("-", "_")) + str(text)
