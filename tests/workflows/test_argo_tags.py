"""Every `{{…}}` of the rendered templates and where its value comes from.

Argo replaces tags several times over, so a value with `{{` in it is evaluated in its controller. A tag may therefore
stand for a value of the installation, of Argo or of whoever submits, or for an id or a number that a step made.
Sentences and names from data, from CVAT or from a step are never pasted: they come in base64, or are looked up.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.parameters import BY_NAME

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("workflows/rendered/*.yaml"), *ROOT.glob("charts/**/files/**/*.yaml")])

ARGO, SUBMITTER, STEP, BASE64, SENTENCE = "Argo", "submitter", "id or number of a step", "base64", "sentence of a step"
PASTED = {ARGO, SUBMITTER, STEP, BASE64}
"""What may stand in a text. A sentence may be looked up (`valueFrom.parameter`), where Argo pastes nothing."""

SOURCES = {
    "workflow.name": ARGO,  # a name of Kubernetes: letters, digits and dashes
    "workflow.uid": ARGO,
    "workflow.status": ARGO,
    "retries": ARGO,
    "item": ARGO,  # a number of `withSequence`
    "workflow.parameters.json": SUBMITTER,
    **{f"workflow.parameters.{name}": SUBMITTER for name in BY_NAME},
    "=asInt(workflow.parameters['gpu-count'])": SUBMITTER,
    # The messages of failed steps: they quote names of images, labels, tasks and people.
    "=sprig.b64enc(workflow.failures)": BASE64,
    # The inputs of `export-for-others`, all of which the bridge fills: a number of CVAT's, a signature, the
    # installation's store, a key made of both, and one of the names of CVAT's formats.
    "inputs.parameters.subject": SUBMITTER,
    "inputs.parameters.grant": SUBMITTER,
    "inputs.parameters.store": SUBMITTER,
    "inputs.parameters.into": SUBMITTER,
    "inputs.parameters.format": SUBMITTER,
    # Steps refuse to hand on ids, numbers and places that contain `{{`.
    "inputs.parameters.dataset": STEP,
    "inputs.parameters.prepared-set": STEP,
    "inputs.parameters.model": STEP,
    "inputs.parameters.pods": STEP,
    "inputs.parameters.share": ARGO,  # a name of a stage and a number of `withSequence`
    "tasks.check.outputs.parameters.pods": STEP,
    "tasks.export.outputs.parameters.pods": STEP,
    "tasks.check.outputs.parameters.model": STEP,
    "tasks.export.outputs.parameters.dataset": STEP,
    "tasks.prepare.outputs.parameters.prepared-set": STEP,
    "tasks.report.outputs.parameters.ap": STEP,
    "tasks.report.outputs.parameters.ap50": STEP,
    "outputs.parameters.ap": STEP,
    "tasks.annotate.outputs.parameters.message": SENTENCE,
}

OUTPUTS = {
    "model": STEP,
    "pods": STEP,
    "dataset": STEP,
    "prepared-set": STEP,
    "ap": STEP,
    "ap50": STEP,
    "message": SENTENCE,
}
"""What a step leaves in $OUT/outputs; `run_config.argo_text` writes both kinds."""

TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def texts(tree: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a manifest, keys included, with its place."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*place, key), key
            yield from texts(value, (*place, key))
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value, place)
    elif isinstance(tree, str):
        yield place, tree


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def manifest(request: pytest.FixtureRequest) -> Any:
    return yaml.safe_load(request.param.read_text(encoding="utf-8"))


def test_there_are_files_to_look_at():
    assert len(FILES) == 12


def test_every_tag_has_a_known_source_and_none_pastes_a_sentence(manifest: Any):
    found = [(place, tag) for place, text in texts(manifest) for tag in TAG.findall(text)]
    assert found
    for place, tag in found:
        assert tag in SOURCES, f"{'.'.join(place)}: say in SOURCES where the value of {{{{{tag}}}}} comes from"
        looked_up = place[-2:] == ("valueFrom", "parameter")
        assert SOURCES[tag] in PASTED or looked_up, f"{'.'.join(place)}: {{{{{tag}}}}} is pasted from {SOURCES[tag]}"


def test_no_value_can_become_a_tag_together_with_the_text_around_it(manifest: Any):
    for place, text in texts(manifest):
        around = TAG.sub("\0", text)
        assert "{{" not in around, place
        assert not re.search(r"\{\0|\0\{|\0\0", around), f"{'.'.join(place)}: a brace or another tag beside a tag"


def test_every_output_of_a_step_is_of_a_known_kind(manifest: Any):
    for template in manifest["spec"]["templates"]:
        for output in template.get("outputs", {}).get("parameters", []):
            if "path" in output["valueFrom"]:
                assert output["name"] in OUTPUTS, template["name"]
                assert output["valueFrom"]["path"] == f"/mnt/out/outputs/{output['name']}"


def test_nothing_but_the_one_module_writes_outputs_for_argo():
    """Else a step could hand on text that Argo evaluates."""
    packages = (
        "cvat_bridge", "data_prep", "detr_job", "evaluation", "object_store", "prepared_set", "run_check", "run_config",
        "workflows",
    )  # fmt: skip
    writers = [
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in ROOT.glob(f"{package}/**/*.py")
        if re.search(r"""/ ["']outputs["']|Path\(.*["']outputs["']""", path.read_text(encoding="utf-8"))
    ]
    # The local runner reads them, and pastes each value once.
    assert sorted(writers) == ["run_config/argo_text.py", "workflows/local/runner.py"]
