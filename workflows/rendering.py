"""Write the templates as YAML files, and compare the files in the repository with the code.

The chart contains the same files, a schema of its values and a table of them.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from hera.workflows import WorkflowTemplate

from run_config.parameters import BRIDGE_TEMPLATES
from workflows.chart import values_schema, values_table
from workflows.templates.cvat_train import cvat_train
from workflows.templates.detr_annotate import detr_annotate
from workflows.templates.detr_evaluate import detr_evaluate
from workflows.templates.detr_prepare import detr_prepare
from workflows.templates.detr_train import detr_train

TEMPLATES: tuple[WorkflowTemplate, ...] = (detr_train, detr_prepare, detr_evaluate, cvat_train, detr_annotate)

RENDERED = Path(__file__).parent / "rendered"
"""Folder of the rendered templates, in the repository and in the installed package."""

CHART = Path(__file__).parents[1] / "charts" / "detr-workflows"
"""The chart in the repository. An installed package has no chart."""

HEADER = "# Rendered by `detr-workflows render` from workflows/templates/{module}.py. Do not edit.\n"


def rendered() -> dict[str, str]:
    """File name → text of every template."""
    return {f"{template.name}.yaml": _text(template) for template in TEMPLATES}


def in_folder(folder: Path) -> dict[Path, str]:
    """Path → text of every template below `folder`."""
    return {folder / name: text for name, text in rendered().items()}


def in_tree() -> dict[Path, str]:
    """Path → text of all generated files in the repository."""
    files = in_folder(RENDERED)
    if CHART.is_dir():
        for name, text in rendered().items():
            folder = "bridge" if name.removesuffix(".yaml") in BRIDGE_TEMPLATES else "workflows"
            files[CHART / "files" / folder / name] = text
        files[CHART / "values.schema.json"] = values_schema.text()
        readme, values = CHART / "README.md", CHART / "values.yaml"
        files[readme] = values_table.with_table(readme.read_text("utf-8"), values.read_text("utf-8"))
    return files


def write(files: Mapping[Path, str]) -> list[Path]:
    """Write files and return their paths."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def differences(files: Mapping[Path, str]) -> str:
    """A unified diff from the files on disk to the expected texts. Empty: they are equal."""
    parts: list[str] = []
    for path, text in files.items():
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = difflib.unified_diff(
            old.splitlines(keepends=True), text.splitlines(keepends=True), str(path), "rendered now"
        )
        parts.extend(lines)
    return "".join(parts)


def _text(template: WorkflowTemplate) -> str:
    # A line break inside a tag would become a blank.
    text = template.to_yaml(width=10**6, allow_unicode=True)
    return HEADER.format(module=str(template.name).replace("-", "_")) + str(text)
