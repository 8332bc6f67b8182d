"""A download ends with the publisher's bytes, whatever the network does, and is continued, never begun again."""

import random
import ssl
from pathlib import Path

import pytest

from published_weights.download import TRIES, download
from published_weights.errors import DownloadFailed, WeightsError
from tests.object_store.answering_server import AnsweringServer, Reply
from tests.object_store.test_tls import make_authority_and_certificate
from tests.published_weights.publisher import Publisher

CONTENT = random.Random(1).randbytes(60_000)


@pytest.fixture
def url(publisher: Publisher) -> str:
    publisher.files["a/model.pth"] = CONTENT
    return f"{publisher.url}/a/model.pth"


def fetched(url: str, folder: Path) -> bytes:
    target = folder / "model.pth"
    download(url, target, lambda _: None)
    assert [path.name for path in folder.iterdir()] == ["model.pth"], "nothing else remains"
    return target.read_bytes()


def test_a_file_is_downloaded(url: str, tmp_path: Path):
    assert fetched(url, tmp_path) == CONTENT


def test_a_connection_that_breaks_is_continued_where_it_broke(publisher: Publisher, url: str, tmp_path: Path):
    publisher.faults = [-10_000, -30_000, 503]
    assert fetched(url, tmp_path) == CONTENT
    assert publisher.ranges == ["", "bytes=10000-", "bytes=40000-", "bytes=40000-"]


def test_a_slow_link_is_waited_for_and_a_stalled_one_is_replaced(
    publisher: Publisher,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("published_weights.download.STALLED_S", 0.5)
    publisher.faults = ["stall", "slow"]
    assert fetched(url, tmp_path) == CONTENT
    assert publisher.ranges == ["", "bytes=100-"]


def test_the_next_call_continues_after_a_server_was_away(publisher: Publisher, url: str, tmp_path: Path):
    publisher.faults = [-20_000, *[503] * TRIES]
    with pytest.raises(DownloadFailed, match="20,000 bytes are kept"):
        download(url, tmp_path / "model.pth", lambda _: None)
    publisher.ranges.clear()
    publisher.faults.clear()
    assert fetched(url, tmp_path) == CONTENT
    assert publisher.ranges == ["bytes=20000-"]


def test_a_file_that_was_replaced_meanwhile_is_begun_anew(publisher: Publisher, url: str, tmp_path: Path):
    publisher.faults = [-20_000, *[503] * TRIES]
    with pytest.raises(DownloadFailed):
        download(url, tmp_path / "model.pth", lambda _: None)
    publisher.faults.clear()
    publisher.files["a/model.pth"] = other = CONTENT[::-1]
    assert fetched(url, tmp_path) == other


def test_without_an_etag_parts_are_never_joined(publisher: Publisher, url: str, tmp_path: Path):
    publisher.etags = False
    publisher.faults = [-20_000]
    assert fetched(url, tmp_path) == CONTENT
    assert publisher.ranges == ["", ""]


def test_redirects_are_followed(publisher: Publisher, url: str, tmp_path: Path):
    publisher.moved["old.pth"] = url
    publisher.faults = [None, -10_000]
    assert fetched(f"{publisher.url}/old.pth", tmp_path) == CONTENT
    assert publisher.ranges == ["", "", "bytes=10000-", "bytes=10000-"]


def test_a_redirect_never_leaves_encryption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_authority_and_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with AnsweringServer() as secure, AnsweringServer() as plain:
        secure.use_tls(context)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        secure.answer = lambda _: Reply(302, b"", {"Location": f"{plain.url}/a.pth"})
        with pytest.raises(WeightsError, match=r"redirected to 127\.0\.0\.1 without encryption"):
            download(f"{secure.url}/a.pth", tmp_path / "a.pth", lambda _: None)
        assert plain.requests == []
    assert not (tmp_path / "a.pth").exists()


def test_a_missing_file_is_an_error_at_once(publisher: Publisher, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"b\.pth: the server answers 404") as raised:
        download(f"{publisher.url}/b.pth", tmp_path / "b.pth", lambda _: None)
    assert raised.value.exit_code == 2
    assert publisher.ranges == [""]


@pytest.mark.usefixtures("publisher")
def test_an_unreachable_server_ends_with_the_code_for_a_retry(tmp_path: Path):
    with pytest.raises(DownloadFailed, match="set HTTPS_PROXY or HF_ENDPOINT, or name a mirror") as raised:
        download("http://127.0.0.1:9/model.pth", tmp_path / "model.pth", lambda _: None)
    assert raised.value.exit_code == 75
