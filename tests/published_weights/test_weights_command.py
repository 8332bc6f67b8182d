"""`detr-workflows weights` from the publisher to the store: verified, strict, and complete or not there."""

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from detr_job.family import build_family
from object_store import ObjectStore, open_store
from published_weights.bring import import_file, pull
from published_weights.download import TRIES
from published_weights.errors import DownloadFailed, WeightsError
from published_weights.stored import card_of, names, read, remove
from run_config.job.presets import load_job_config
from run_config.weights.catalogue import HUGGING_FACE, PublishedFile, PublishedWeights, published
from tests.goldens.d_fine import fill
from tests.published_weights.publisher import Publisher

SMALL = {"a.weight": torch.arange(6.0).reshape(2, 3), "class_embed.bias": torch.ones(91)}
PATH = "nano_coco/checkpoint_best_regular.pth"


def pth(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


FILE = pth({"model": SMALL, "epoch": 3})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store")


@pytest.fixture
def entry(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    """Weights with a layout of two tensors; the authors' file has a checksum, that of Hugging Face has none."""
    monkeypatch.setattr(
        "published_weights.layout.layout", lambda _: {"a.weight": (2, 3), "class_embed.bias": ("classes",)}
    )
    publisher.files[PATH] = FILE
    authors = PublishedFile(publisher.url, PATH, hashlib.md5(FILE).hexdigest())
    other = PublishedFile(HUGGING_FACE, "Roboflow/rf-detr-nano/resolve/main/model.safetensors")
    return replace(published("rf-detr-nano"), files=(authors, other))


def pulled(store: ObjectStore, entry: PublishedWeights, tmp_path: Path, mirror: str = "") -> dict[str, Tensor]:
    card = pull(store, entry, mirror, tmp_path / "cache", lambda _: None)
    assert list((tmp_path / "cache").iterdir()) == []
    folder = store.child(f"weights/{entry.name}")
    assert card_of(folder) == card
    read(folder, card)
    return load_file(tmp_path / "store" / "weights" / entry.name / "model.safetensors")


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == SMALL.keys() and all(torch.equal(found[name], SMALL[name]) for name in SMALL)


def test_the_authors_file_is_verified_and_stored_with_its_card(
    store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path
):
    publisher.faults = [-100, 503]
    assert same(pulled(store, entry, tmp_path))
    card = json.loads((tmp_path / "store/weights/rf-detr-nano/card.json").read_text())
    assert card["source"] == f"{publisher.url}/{PATH}"
    assert card["source_sha256"] == hashlib.sha256(FILE).hexdigest()
    assert card["published_md5"] == card["source_md5"] == hashlib.md5(FILE).hexdigest()
    assert card["weights_licence"] == "Apache-2.0"
    assert card["classes"][:2] == [None, "person"]
    assert list(names(store)) == ["rf-detr-nano"]


def test_a_wrong_checksum_stores_nothing(
    store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publisher.files[PATH] = pth({"model": SMALL, "epoch": 4})
    monkeypatch.setenv("HF_ENDPOINT", publisher.url)  # and it has no such file
    with pytest.raises(WeightsError, match="the authors publish") as raised:
        pulled(store, entry, tmp_path)
    assert "404" in str(raised.value)
    assert raised.value.exit_code == 2
    assert list(store.list()) == []


def test_the_first_digits_of_a_sha_256_are_a_checksum(
    store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path
):
    digits = hashlib.sha256(FILE).hexdigest()[:8]
    for sha256, right in ((digits, True), ("0" * 8, False)):
        one = replace(entry, files=(PublishedFile(publisher.url, PATH, sha256=sha256),))
        if right:
            assert same(pulled(store, one, tmp_path))
            card = card_of(store.child(f"weights/{entry.name}"))
            assert card is not None
            assert (card.published_sha256, card.coco_ap) == (digits, 48.4)
        else:
            with pytest.raises(WeightsError, match=r"its SHA-256 is .* the authors publish 00000000"):
                pulled(store, one, tmp_path)


def test_a_truncated_file_without_a_checksum_stores_nothing(
    store: ObjectStore, entry: PublishedWeights, tmp_path: Path
):
    file = tmp_path / "model.pth"
    file.write_bytes(FILE[:-300])
    bare = replace(entry, files=())
    with pytest.raises(WeightsError, match="cut short"):
        import_file(store, bare, str(file))
    assert list(store.list()) == []


def test_a_mirror_of_hugging_face_is_asked_first(
    store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publisher.files["hf/Roboflow/rf-detr-nano/resolve/main/model.safetensors"] = save(SMALL)
    monkeypatch.setenv("HF_ENDPOINT", f"{publisher.url}/hf/")
    assert same(pulled(store, entry, tmp_path))
    card = card_of(store.child("weights/rf-detr-nano"))
    assert card is not None
    assert "/hf/Roboflow/" in card.source
    assert card.published_md5 == ""


@pytest.mark.parametrize("kind", ["url", "folder", "store"])
def test_another_place_may_hold_the_published_paths(
    kind: str, store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path
):
    publisher.files["mirror/" + PATH] = publisher.files.pop(PATH)
    folder = tmp_path / "mirror"
    (folder / PATH).parent.mkdir(parents=True)
    (folder / PATH).write_bytes(FILE)
    mirror = {"url": f"{publisher.url}/mirror", "folder": str(folder), "store": folder.as_uri()}[kind]
    assert same(pulled(store, entry, tmp_path, mirror))
    (folder / PATH).write_bytes(FILE + b"x")
    if kind != "url":
        assert (folder / PATH).exists(), "a mirror is only read"
        with pytest.raises(WeightsError, match="the authors publish"):
            pulled(store, entry, tmp_path, mirror)


def test_a_server_that_stays_away_ends_with_the_code_for_a_retry(
    store: ObjectStore, entry: PublishedWeights, publisher: Publisher, tmp_path: Path
):
    publisher.faults = [503] * TRIES
    with pytest.raises(DownloadFailed, match="503"):
        pull(store, replace(entry, files=entry.files[:1]), "", tmp_path / "cache", lambda _: None)


def test_damaged_weights_in_the_store_are_named(store: ObjectStore, entry: PublishedWeights, tmp_path: Path):
    pulled(store, entry, tmp_path)
    folder = store.child("weights/rf-detr-nano")
    card = card_of(folder)
    assert card is not None
    folder.put_bytes("model.safetensors", b"other")
    with pytest.raises(WeightsError, match="missing or damaged"):
        read(folder, card)
    remove(store, "rf-detr-nano")
    assert list(store.list()) == []
    for name in ("rf-detr-nano", "../runs"):
        with pytest.raises(WeightsError):
            remove(store, name)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [str(Path(sys.executable).with_name("detr-workflows")), "weights", *words]
    environment = {"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1", **environment}
    return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)


def d_fine_nano(classes: int) -> dict[str, Tensor]:
    network = build_family(load_job_config("d-fine-nano"), classes).network
    with torch.no_grad():
        fill(network)
    return dict(network.state_dict())


def test_d_fine_nano_in_full_is_pulled_shown_and_removed(publisher: Publisher, tmp_path: Path):
    """The published file: training weights, their moving average, and constants that the network computes."""
    tensors = d_fine_nano(80)
    constants = {"decoder.anchors": torch.ones(1, 2, 4), "decoder.decoder.up": torch.ones(1)}
    content = {"last_epoch": 1, "model": {"x": torch.ones(1)}, "ema": {"module": tensors | constants, "updates": 7}}
    publisher.files["m/dfine_n_coco.pth"] = pth(content)
    where = ("--store", str(tmp_path / "store"))
    surroundings = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = command("pull", "d-fine-nano", "--from", f"{publisher.url}/m", *where, **surroundings)
    assert done.returncode == 0, done.stderr
    stored = load_file(tmp_path / "store/weights/d-fine-nano/model.safetensors")
    wanted = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[name], value) for name, value in wanted.items())
    assert "already in" in command("pull", "d-fine-nano", *where, **surroundings).stdout
    damaged = tmp_path / "store/weights/d-fine-nano/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    damaged.rename(tmp_path / "moved")
    assert "its file is missing in the store: pull it again" in command("list", *where).stdout
    (tmp_path / "moved").rename(damaged)
    again = command("pull", "d-fine-nano", "--from", f"{publisher.url}/m", *where, **surroundings)
    assert "already in" not in again.stdout, again.stderr
    assert load_file(damaged).keys() == wanted.keys()
    assert "no checksum is published" in command("show", "d-fine-nano", *where).stdout
    assert len([line for line in command("list", *where).stdout.splitlines() if "in the store" in line]) == 1
    assert command("remove", "d-fine-nano", *where).returncode == 0
    assert "in the store" not in command("list", *where).stdout


def test_the_step_on_a_cluster_brings_all_that_it_can_from_the_installations_mirror(
    publisher: Publisher, tmp_path: Path
):
    publisher.files["m/dfine_n_coco.pth"] = pth({"model": d_fine_nano(80)})
    store = (tmp_path / "store").as_uri()
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"version: 1\nstore: {store}\n")
    surroundings = {
        "DETR_WORKFLOWS_SETTINGS": str(settings),
        "DETR_WORKFLOWS_WEIGHTS_FROM": f"{publisher.url}/m",
        "HOME": str(tmp_path),
    }

    def step(weights: str, store: str = store) -> subprocess.CompletedProcess[str]:
        given = [{"name": "weights", "value": weights}, {"name": "store", "value": store}]
        return command("pull", f"--parameters-json={json.dumps(given)}", **surroundings)

    done = step("d-fine-small, d-fine-nano")
    assert done.returncode == 2, done.stderr
    assert f"error: {publisher.url}/m/dfine_s_coco.pth: the server answers 404" in done.stderr
    assert done.stdout == f"d-fine-nano: stored in {store}\n"
    assert "already in" in step("d-fine-nano\nd-fine-nano").stdout
    publisher.faults = [503] * TRIES
    assert step("d-fine-small").returncode == 75
    elsewhere = step("d-fine-nano", (tmp_path / "other").as_uri())
    assert elsewhere.returncode == 2
    assert "store must be file://" in elsewhere.stderr


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path: Path):
    file = str(tmp_path / "dfine_s_coco.pth")
    Path(file).write_bytes(pth({"model": d_fine_nano(80)}))
    where = ("--store", str(tmp_path / "store"))
    for words, sentence in (
        (("pull", "rfdetr-nano", *where), "did you mean rf-detr-nano?"),
        (("list", "--store", "ftp://x"), "the scheme must be one of"),
        (("pull", "d-fine-nano"), "--store is missing"),
        (
            ("import", str(tmp_path / "dfine_s_coco.pth"), "--as", "d-fine-small", *where),
            "not the weights of d-fine-small",
        ),
        (("import", str(tmp_path / "no.pth"), "--as", "d-fine-small", *where), "No such file"),
        (("remove", "d-fine-small", *where), "there are no weights named d-fine-small"),
    ):
        done = command(*words)
        assert done.returncode == 2, done
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_word_that_is_also_a_local_file_is_refused_by_run_local(tmp_path: Path):
    (tmp_path / "first").write_text("")
    open_store(tmp_path / "store").put_bytes("weights/first/card.json", b"{}")
    program = str(Path(sys.executable).with_name("detr-workflows"))
    words = ["run-local", "--store", "store", "-p", "cvat-finetune-checkpoint=first"]
    done = subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "'first' has 2 meanings: write weights:first or ./first" in done.stderr
