"""Only `file_name` changes; everything else survives, and the file is whole at any moment."""

import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.errors import AnnotationError, SourceError
from data_prep.rewrite_paths import rewrite_paths
from tests.data_prep.export_builder import simple_export

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), JSON, max_size=5), st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=4))
def test_everything_but_file_names_survives(tmp_path: Path, top: dict, images: list[dict]):
    for number, image in enumerate(images):
        image["file_name"] = f"{number}.jpg"
    before = top | {"images": images}
    (tmp_path / "in.json").write_text(json.dumps(before))
    assert rewrite_paths(tmp_path / "in.json", "/mnt/data", tmp_path / "out.json") == len(images)
    after = json.loads((tmp_path / "out.json").read_bytes())
    for number, image in enumerate(after["images"]):
        assert image["file_name"] == f"/mnt/data/{number}.jpg"
        image["file_name"] = f"{number}.jpg"
    assert after == before
    assert list(after) == list(before)


def rewritten(tmp_path: Path, names: list[str], image_dir: str = "/mnt/data/datasets/images") -> list[str]:
    (tmp_path / "in.json").write_text(json.dumps({"images": [{"file_name": name} for name in names]}))
    rewrite_paths(tmp_path / "in.json", image_dir, tmp_path / "out.json")
    return [image["file_name"] for image in json.loads((tmp_path / "out.json").read_bytes())["images"]]


def test_folders_are_kept_and_earlier_rewriting_is_undone(tmp_path: Path):
    assert rewritten(tmp_path, ["a/x.jpg", "b/x.jpg", "/old/place/y.jpg"]) == [
        "/mnt/data/datasets/images/a/x.jpg",
        "/mnt/data/datasets/images/b/x.jpg",
        "/mnt/data/datasets/images/y.jpg",
    ]
    assert rewritten(tmp_path, ["a/x.jpg"], "relative/dir/") == ["relative/dir/a/x.jpg"]


def test_two_images_never_get_one_name(tmp_path: Path):
    with pytest.raises(AnnotationError, match=r'"/p/x.jpg" and "/q/x.jpg" would both become .*x.jpg'):
        rewritten(tmp_path, ["/p/x.jpg", "/q/x.jpg"])


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"image number 1 names a file outside itself: '../x.jpg'"):
        rewritten(tmp_path, ["../x.jpg"])


def test_a_file_may_be_rewritten_in_place(tmp_path: Path):
    path = tmp_path / "instances_default.json"
    path.write_text(json.dumps(simple_export(4).coco))
    rewrite_paths(path, "/data", path)
    assert json.loads(path.read_bytes())["images"][0]["file_name"] == "/data/000.png"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_survives_though_it_is_no_json(tmp_path: Path):
    (tmp_path / "in.json").write_text('{"images": [{"file_name": "x"}], "annotations": [{"bbox": [NaN, 1]}]}')
    rewrite_paths(tmp_path / "in.json", "d", tmp_path / "out.json")
    assert '"annotations":[{"bbox": [NaN, 1]}]' in (tmp_path / "out.json").read_text()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not a COCO annotation file"),
        ("[1]", "is not a COCO annotation file"),
        ('{"images": 5}', "is not a COCO annotation file"),
        ('{"image": []}', "has no list of images"),
        ('{"images": [{"name": "x"}]}', "image number 1 has no file_name"),
        ('{"images": [{"file_name": 7}]}', "image number 1 has no file_name"),
        ('{"images": ' + "[" * 100_000, "is not a COCO annotation file"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(content: str, sentence: str, tmp_path: Path):
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(AnnotationError, match=sentence):
        rewrite_paths(tmp_path / "in.json", "/data", tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_missing_files_and_folders_that_cannot_be_written_are_said(tmp_path: Path):
    with pytest.raises(AnnotationError, match=r"nothing.json cannot be read: No such file"):
        rewrite_paths(tmp_path / "nothing.json", "/data", tmp_path / "out.json")
    (tmp_path / "in.json").write_text('{"images": []}')
    with pytest.raises(AnnotationError, match=r"out.json cannot be written: File exists"):
        rewrite_paths(tmp_path / "in.json", "/data", tmp_path / "in.json" / "out.json")


LARGE = f'["{"x" * 5000}"]'


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"images": [{"file_name": "a.png", "file_name": "b.png"}]}', "file_name"),
        ('{"images": [], "annotations": [], "images": [{"file_name": "b.png"}]}', "images"),
        (f'{{"annotations": {LARGE}, "images": [], "annotations": {LARGE[:-1]}, 1]}}', "annotations"),
        (f'{{"annotations": {LARGE}, "images": [], "info": {{}}, "info": NaN}}', "info"),
        ('{"images": [{"file_name": "a.png", "id" : 1, "id" : 2, "note": "x\\":\\":"}]}', "id"),
        ('{"images": [{"file_name": "a.png", "id": 1, "\\u0069d" : 2}]}', "id"),
        ('{"images": [{"file_name": "a.png", "meta": {"x": 1, "x": 2}}]}', "x"),
    ],
)
def test_a_key_of_which_one_would_be_lost_is_refused(tmp_path: Path, content: str, key: str):
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=f'the key "{key}" is given twice'):
        rewrite_paths(path, "images", tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        ({}, []),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, ["1 of 2 images have an id that"]),
        ({"categories": [{"id": 1}, {"id": 1}]}, ["1 of 2 categories have an id that"]),
        ({"annotations": [{"id": 1, "image_id": 1}, {"id": 1, "image_id": 1}]}, ["1 of 2 annotations have an id that"]),
        ({"annotations": [{"id": 1, "image_id": 7}]}, ["1 of 1 annotations name no entry of images (image_id)"]),
        ({"annotations": [{"category_id": 7}]}, ["1 of 1 annotations name no entry of categories (category_id)"]),
        ({"annotations": [{"id": [1]}]}, ["the ids of annotations cannot be checked"]),
        ({"annotations": {"id": 1}}, ["the ids of annotations cannot be checked"]),
    ],
)
def test_ids_that_contradict_each_other_are_warned_about_and_kept(change: dict, sentences: list[str], tmp_path: Path):
    tree = {"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1}], "annotations": []} | change
    (tmp_path / "in.json").write_text(json.dumps(tree))
    warnings: list[str] = []
    rewrite_paths(tmp_path / "in.json", "d", tmp_path / "out.json", warnings.append)
    assert len(warnings) == len(sentences)
    assert all(sentence in warning for sentence, warning in zip(sentences, warnings, strict=True))
    written = json.loads((tmp_path / "out.json").read_bytes())
    assert {key: written[key] for key in ("categories", "annotations")} == {
        key: tree[key] for key in ("categories", "annotations")
    }


@pytest.mark.parametrize(
    "name", ["a.jpg", "a/b.jpg", "./a.jpg", "a//b.jpg", "a/./b.jpg", ".hidden.jpg", "a/.b.jpg", "a/"]
)
@pytest.mark.parametrize("folder", ["/mnt/data", "/mnt/data/", "/", ".", "", "a//b", "//host"])
def test_names_are_joined_as_paths(name: str, folder: str, tmp_path: Path):
    assert rewritten(tmp_path, [name], folder) == [str(PurePosixPath(folder) / name)]
