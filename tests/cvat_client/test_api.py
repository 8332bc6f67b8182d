"""The steps' client of CVAT: what it gives, and the sentence for each thing that can go wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvat_client.api import CvatApi
from cvat_client.connection import one_line
from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError, CvatUnavailableError
from cvat_client.settings import Cvat
from cvat_client.subject import Kind
from tests.cvat_double import CvatDouble


def settings(url: str, **more: object) -> Cvat:
    return Cvat.model_validate({"url": url, "publicOrigin": "https://cvat.example.org", **more})


@pytest.fixture
def api(cvat: CvatDouble) -> Iterator[CvatApi]:
    with CvatApi(settings(cvat.url, organization="lab"), cvat.service.token) as api:
        yield api


def finished(api: CvatApi, rq_id: str) -> str:
    """The address of what the request made."""
    while (request := api.request(rq_id)) is not None and not request.has_ended:
        pass
    assert request is not None
    return request.result_url


def nothing(_done: int, _total: int) -> None:
    """Nobody looks at the progress."""


def test_objects_and_lists_are_read_with_the_token_and_the_organization(cvat: CvatDouble, api: CvatApi) -> None:
    tasks = [cvat.add_blank_task(f"Parts {number}").id for number in range(3)]

    assert api.get("users/self")["username"] == "service"
    assert [one["id"] for one in api.get("tasks", {"page_size": 1})["results"]] == tasks[:1:-1]
    seen = cvat.seen[0]
    assert seen.headers["authorization"] == f"Bearer {cvat.service.token}"
    assert seen.headers["x-organization"] == "lab"
    assert "cookie" not in seen.headers


def test_a_missing_token_is_said_before_anything_is_asked() -> None:
    with pytest.raises(CvatTokenError, match="CVAT_ACCESS_TOKEN is not set"):
        CvatApi(settings("http://127.0.0.1:9"), " ")


def test_a_revoked_token_is_wrong_input(cvat: CvatDouble, api: CvatApi) -> None:
    cvat.revoke(cvat.service)
    with pytest.raises(CvatTokenError, match="operator of this installation to put a new one") as caught:
        api.get("users/self")
    assert caught.value.exit_code == 2
    assert cvat.service.token not in str(caught.value)


def test_what_is_not_there_or_not_allowed_is_refused(cvat: CvatDouble, api: CvatApi) -> None:
    task = cvat.add_blank_task("Parts 1")
    with pytest.raises(CvatRefusedError, match="CVAT has no tasks/99: Not found"):
        api.get("tasks/99")
    with (
        CvatApi(settings(cvat.url), cvat.bob.token) as strangers,
        pytest.raises(CvatRefusedError, match="does not let the service account do this"),
    ):
        strangers.get(f"tasks/{task.id}")


@pytest.mark.parametrize("fault", [{"errors": 1}, {"bad_gateway": True}])
def test_a_server_in_trouble_passes(cvat: CvatDouble, api: CvatApi, fault: dict[str, object]) -> None:
    for name, value in fault.items():
        cvat.faults.set(name, value)
    with pytest.raises(CvatUnavailableError) as caught:
        api.get("users/self")
    assert caught.value.exit_code == 75


def test_a_server_that_is_away_passes(cvat: CvatDouble, api: CvatApi) -> None:
    cvat.stop()
    with pytest.raises(CvatUnavailableError, match="does not answer"):
        api.get("users/self")


def test_the_token_is_not_taken_elsewhere(cvat: CvatDouble, api: CvatApi) -> None:
    elsewhere = CvatDouble()
    elsewhere.start()
    try:
        cvat.faults.redirect_to = elsewhere.url
        with pytest.raises(BridgeError, match=r"redirects to '127\.0\.0\.1:\d+', and the token is not sent there"):
            api.get("users/self")
        assert elsewhere.seen == []
    finally:
        elsewhere.close()


def test_a_results_address_is_taken_to_the_one_server(cvat: CvatDouble, api: CvatApi, tmp_path: Path) -> None:
    started = api.start_export(Kind.TASK, cvat.add_drawn_task("Parts 1", images=1).id, "COCO 1.0")
    path = finished(api, started.rq_id).removeprefix(cvat.url)

    assert api.download(f"https://attacker.example.org{path}", tmp_path / "d.zip", nothing)
    assert (tmp_path / "d.zip").read_bytes()[:2] == b"PK"
    with pytest.raises(CvatUnavailableError, match="no address below /api/"):
        api.download("https://attacker.example.org/elsewhere", tmp_path / "e.zip", nothing)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_gone_on_with(
    cvat: CvatDouble, api: CvatApi, tmp_path: Path, ranges: bool
) -> None:
    cvat.faults.ranges = ranges
    task = cvat.add_drawn_task("Parts 1", images=2)
    started = api.start_export(Kind.TASK, task.id, "COCO 1.0")
    url = finished(api, started.rq_id)
    cvat.faults.cut_downloads = 1
    reached: list[tuple[int, int]] = []

    with pytest.raises(CvatUnavailableError):
        api.download(url, tmp_path / "d.zip", nothing)
    assert api.download(url, tmp_path / "d.zip", lambda done, total: reached.append((done, total)))

    whole = cvat.exports.by_id[started.rq_id].result
    assert whole is not None
    assert (tmp_path / "d.zip").read_bytes() == whole
    assert reached[-1] == (len(whole), len(whole))
    assert cvat.seen[-1].headers["range"] == f"bytes={len(whole) // 2}-"
    assert not (tmp_path / "d.zip.tag").exists()


def test_a_download_of_other_content_is_begun_again(cvat: CvatDouble, api: CvatApi, tmp_path: Path) -> None:
    task = cvat.add_drawn_task("Parts 1", images=2)
    url = finished(api, api.start_export(Kind.TASK, task.id, "COCO 1.0").rq_id)
    cvat.faults.cut_downloads = 1
    with pytest.raises(CvatUnavailableError):
        api.download(url, tmp_path / "d.zip", nothing)

    task.shapes.clear()
    rq_id = api.start_export(Kind.TASK, task.id, "COCO 1.0").rq_id
    assert api.download(finished(api, rq_id), tmp_path / "d.zip", nothing)

    assert (tmp_path / "d.zip").read_bytes() == cvat.exports.by_id[rq_id].result


def test_a_forgotten_result_is_no_file(cvat: CvatDouble, api: CvatApi, tmp_path: Path) -> None:
    rq_id = api.start_export(Kind.TASK, cvat.add_blank_task("Parts 1").id, "COCO 1.0").rq_id
    url = finished(api, rq_id)
    cvat.exports.by_id.clear()
    assert api.download(url, tmp_path / "d.zip", nothing) is False
    assert api.request(rq_id) is None


def test_somebody_elses_text_stays_one_short_line() -> None:
    assert one_line("a\n<b>\x1b[31m  c") == "a <b> [31m c"
    assert len(one_line("x" * 5000)) == 301
