"""The templates as YAML files, and the other files in the repository that are generated from code.

The chart contains the same templates, a schema of its values and a table of them.
"""

from pathlib import Path

from hera.workflows import WorkflowTemplate

from run_config.parameters import BRIDGE_TEMPLATES
from workflows.chart import values_schema, values_table
from workflows.chart.plain_manifests import CHART
from workflows.templates.cvat_train import cvat_train
from workflows.templates.detr_annotate import detr_annotate
from workflows.templates.detr_evaluate import detr_evaluate
from workflows.templates.detr_prepare import detr_prepare
from workflows.templates.detr_train import detr_train
from workflows.templates.detr_weights import detr_weights

TEMPLATES: tuple[WorkflowTemplate, ...] = (
    detr_train,
    detr_prepare,
    detr_evaluate,
    detr_weights,
    cvat_train,
    detr_annotate,
)

RENDERED = Path(__file__).parent / "rendered"
"""Folder of the rendered templates, in the repository and in the installed package."""

HEADER = "# Rendered by `detr-workflows render` from workflows/templates/{module}.py. Do not edit.\n"


def rendered() -> dict[str, str]:
    """File name → text of every template."""
    return {f"{template.name}.yaml": _text(template) for template in TEMPLATES}


def in_folder(folder: Path) -> dict[Path, str]:
    """Path → text of every template below `folder`."""
    return {folder / name: text for name, text in rendered().items()}


def in_tree() -> dict[Path, str]:
    """Path → text of all files in the repository that are generated from code."""
    files = in_folder(RENDERED)
    if CHART.is_dir():
        for name, text in rendered().items():
            folder = "bridge" if name.removesuffix(".yaml") in BRIDGE_TEMPLATES else "workflows"
            files[CHART / "files" / folder / name] = text
        files[CHART / "values.schema.json"] = values_schema.text()
        readme, values = CHART / "README.md", CHART / "values.yaml"
        files[readme] = values_table.with_table(readme.read_text("utf-8"), values.read_text("utf-8"))
    return files


def _text(template: WorkflowTemplate) -> str:
    # A line break inside a tag would become a blank.
    text = template.to_yaml(width=10**6, allow_unicode=True)
    return HEADER.format(module=str(template.name).replace("-", "_")) + str(text)
