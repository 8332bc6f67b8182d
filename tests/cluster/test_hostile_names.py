"""Names that look like Argo's expressions come back as text: nothing in the cluster evaluates them."""

import io
import json
import zipfile

import pytest

from tests.cluster.cluster import Installation, Json, node, phase, summary, told

HOSTILE = "{{=24682468+11111111}} {{workflow.parameters.store}} {{{=24682468+11111111}}}"
EVALUATED = "35793579"


def export(*, subset: str, images: list[Json], categories: list[Json]) -> bytes:
    """A zip as CVAT writes it, which `prepare` refuses with a sentence that quotes its names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        content = {"images": images, "annotations": [], "categories": categories}
        archive.writestr(f"annotations/instances_{subset}.json", json.dumps(content))
    return buffer.getvalue()


def image(number: int, name: str) -> Json:
    return {"id": number, "file_name": name, "width": 8, "height": 8}


CELL: list[Json] = [{"id": 1, "name": "cell"}]
EXPORTS = {
    "images": (
        export(subset="default", images=[image(1, f"{HOSTILE}.jpg"), image(1, f"{HOSTILE}.png")], categories=CELL),
        f"images '{HOSTILE}.jpg' and '{HOSTILE}.png' share the id 1",
    ),
    "labels": (
        export(
            subset="default",
            images=[image(1, "a.png")],
            categories=[{"id": 1, "name": HOSTILE}, {"id": 1, "name": f"{HOSTILE} 2"}],
        ),
        f"categories '{HOSTILE}' and '{HOSTILE} 2' share the id 1",
    ),
    "subset": (
        export(subset=HOSTILE, images=[image(1, "a.png"), image(1, "b.png")], categories=CELL),
        f"instances_{HOSTILE}.json: images 'a.png' and 'b.png' share the id 1",
    ),
}


@pytest.fixture(scope="module")
def runs(installation: Installation) -> dict[str, str]:
    """All of them at once."""
    found = {}
    for title, (content, _) in EXPORTS.items():
        installation.upload(f"uploads/hostile-{title}.zip", content)
        parameters = {"cvat_annotation_path": f"uploads/hostile-{title}.zip"}
        found[title] = installation.submit("detr-prepare", **parameters)
    return found


@pytest.mark.parametrize("title", EXPORTS)
def test_a_name_in_a_data_set_is_told_as_it_is(installation: Installation, runs: dict[str, str], title: str):
    workflow = installation.finished(runs[title], timeout_s=300)
    assert phase(workflow) == "Failed", summary(workflow)
    said = told(workflow)
    assert EXPORTS[title][1] in said.replace("{ ", "{"), said
    failed = node(workflow, "prepare(0)")
    assert failed is not None, summary(workflow)
    assert EXPORTS[title][1] in failed["message"].replace("{ ", "{")
    assert "{{" not in said + failed["message"]
    assert EVALUATED not in json.dumps(workflow)
