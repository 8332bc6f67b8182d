"""What the double answers is what CVAT's own client expects: the models and calls of the cvat-sdk wheel."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from cvat_sdk import Client, make_client, models
from cvat_sdk import auto_annotation as cvataa
from cvat_sdk.api_client import ApiClient, Configuration, exceptions
from cvat_sdk.core.client import Config
from cvat_sdk.core.proxies.types import Location

from tests.cvat_double import CvatDouble


@pytest.fixture
def api(cvat: CvatDouble) -> Iterator[ApiClient]:
    with ApiClient(Configuration(host=cvat.url, access_token=cvat.service.token)) as client:
        yield client


@pytest.fixture
def client(cvat: CvatDouble, tmp_path: Path) -> Iterator[Client]:
    with make_client(cvat.url, access_token=cvat.service.token) as client:
        client.config = Config(status_check_period=0.02, cache_dir=tmp_path / "cache")
        yield client


def test_every_answer_is_of_the_sdks_models(cvat: CvatDouble, api: ApiClient) -> None:
    project = cvat.add_project("Parts", labels=["bolt", "nut"])
    task = cvat.add_blank_task("Parts 1", images=5, project=project, images_per_job=2)
    cvat.add_box(task, 0, "nut", [1, 2, 3, 4])
    storage = cvat.add_cloud_storage("b", endpoint="http://127.0.0.1:1", access_key="a", secret_key="s")
    cvat.add_member(cvat.ann, 7, "maintainer")
    cvat.faults.export_hangs = True
    started, _ = api.tasks_api.create_dataset_export(format="COCO 1.0", id=task.id)

    answers = [
        (api.users_api.retrieve_self(), models.MetaUser),
        (api.auth_api.retrieve_access_tokens_self(), models.AccessTokenRead),
        (api.memberships_api.list(org="7"), models.PaginatedMembershipReadList),
        (api.tasks_api.retrieve(task.id), models.TaskRead),
        (api.tasks_api.list(project_id=project.id), models.PaginatedTaskReadList),
        (api.projects_api.retrieve(project.id), models.ProjectRead),
        (api.projects_api.list(), models.PaginatedProjectReadList),
        (api.jobs_api.list(task_id=task.id), models.PaginatedJobReadList),
        (api.jobs_api.retrieve(task.jobs[0].id), models.JobRead),
        (api.labels_api.list(task_id=task.id), models.PaginatedLabelList),
        (api.labels_api.list(project_id=project.id), models.PaginatedLabelList),
        (api.tasks_api.retrieve_annotations(task.id), models.LabeledData),
        (api.tasks_api.retrieve_data_meta(task.id), models.DataMetaRead),
        (api.requests_api.retrieve(started.rq_id), models.Request),
        (api.requests_api.list(task_id=task.id), models.PaginatedRequestList),
        (api.cloudstorages_api.retrieve(storage.id), models.CloudStorageRead),
        (api.server_api.retrieve_about(), models.About),
        (api.server_api.retrieve_annotation_formats(), models.DatasetFormats),
    ]
    cvat.faults.export_hangs = False
    for (answer, response), model in answers:
        # users/self is one of two forms, of which the SDK may take either
        assert isinstance(answer, (model, models.User) if model is models.MetaUser else model)
        known = set(model.openapi_types)
        assert _top_level(json.loads(response.data)) <= known


def _top_level(body: dict) -> set[str]:
    return set(body)


def test_fields_of_entries_in_lists_are_known_to_the_sdk(cvat: CvatDouble, api: ApiClient) -> None:
    task = cvat.add_blank_task("Parts 1")
    cvat.add_box(task, 0, "nut", [1, 2, 3, 4])

    entries = [
        (api.tasks_api.list(), models.TaskRead),
        (api.jobs_api.list(task_id=task.id), models.JobRead),
        (api.labels_api.list(task_id=task.id), models.Label),
    ]
    for (_, response), model in entries:
        assert set(json.loads(response.data)["results"][0]) <= set(model.openapi_types)
    _, response = api.tasks_api.retrieve_annotations(task.id)
    assert set(json.loads(response.data)["shapes"][0]) <= set(models.LabeledShape.openapi_types)


def test_lists_come_in_pages(cvat: CvatDouble, api: ApiClient) -> None:
    ids = [cvat.add_blank_task(f"Parts {number}").id for number in range(5)]

    first, _ = api.tasks_api.list(page_size=2)
    last, _ = api.tasks_api.list(page_size=2, page=3)

    assert (first.count, [one.id for one in first.results]) == (5, [ids[4], ids[3]])
    assert first.previous is None
    assert "page=2" in first.next
    assert (last.next, [one.id for one in last.results]) == (None, [ids[0]])
    with pytest.raises(exceptions.NotFoundException):
        api.tasks_api.list(page_size=2, page=4)


def test_the_sdks_client_reads_a_task_and_writes_shapes(cvat: CvatDouble, client: Client) -> None:
    task = cvat.add_drawn_task("Parts 1", images=4, with_boxes=False)

    remote = client.tasks.retrieve(task.id)
    labels = {label.name: label.id for label in remote.get_labels()}
    shape = models.LabeledShapeRequest(
        type="rectangle", label_id=labels["bolt"], frame=2, points=[1.0, 2.0, 30.0, 40.0]
    )
    remote.update_annotations(models.PatchedLabeledDataRequest(shapes=[shape]), action=_create())

    [stored] = remote.get_annotations().shapes
    assert (stored.label_id, stored.frame, stored.points) == (labels["bolt"], 2, [1.0, 2.0, 30.0, 40.0])
    assert [job.frame_count for job in remote.get_jobs()] == [4]
    assert PIL.Image.open(remote.get_frame(3)).size == (384, 288)
    remote.remove_annotations(ids=[stored.id])
    assert task.shapes == []


def _create():
    from cvat_sdk.core.proxies.annotations import AnnotationUpdateAction

    return AnnotationUpdateAction.CREATE


class Finder:
    """Marks the upper left quarter of each picture as a nut."""

    spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("nut", 7, type="rectangle")])

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, int]]] = []

    def detect(self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image):
        self.seen.append((context.frame_name, image.size))
        return [cvataa.rectangle(7, [0.0, 0.0, image.width / 2, image.height / 2])]


def test_the_sdks_automatic_annotation_works_on_a_task(cvat: CvatDouble, client: Client) -> None:
    task = cvat.add_drawn_task("Parts 1", images=4, with_boxes=False)
    kept = cvat.add_box(task, 0, "bolt", [1, 1, 5, 5])
    task.deleted_frames = [1]
    finder = Finder()

    cvataa.annotate_task(client, task.id, finder)

    assert finder.seen == [(task.frames[number].name, (384, 288)) for number in (0, 2, 3)]
    assert kept in task.shapes
    automatic = [shape for shape in task.shapes if shape["source"] == "auto"]
    assert [shape["frame"] for shape in automatic] == [0, 2, 3]
    assert {cvat.label_names(task)[shape["label_id"]] for shape in automatic} == {"nut"}

    cvataa.annotate_task(client, task.id, finder, clear_existing=True)
    assert len(task.shapes) == 3


def test_the_sdks_export_downloads_the_zip(cvat: CvatDouble, client: Client, tmp_path: Path) -> None:
    task = cvat.add_drawn_task("Parts 1", images=2)

    client.tasks.retrieve(task.id).export_dataset("COCO 1.0", tmp_path / "d.zip", location=Location.LOCAL)

    with zipfile.ZipFile(tmp_path / "d.zip") as archive:
        document = json.loads(archive.read("annotations/instances_default.json"))
        first = archive.read(f"images/default/{document['images'][0]['file_name']}")
    assert len(document["annotations"]) == len(task.shapes)
    assert first == task.frames[0].content
    assert PIL.Image.open(io.BytesIO(first)).format == "JPEG"


def test_a_password_opens_a_session(cvat: CvatDouble) -> None:
    task = cvat.add_blank_task("Parts 1")
    with Client(cvat.url) as client:
        client.login((cvat.ann.username, cvat.ann.password))
        remote = client.tasks.retrieve(task.id)
        remote.update({"bug_tracker": "https://example.org/"})
    assert task.bug_tracker == "https://example.org/"
