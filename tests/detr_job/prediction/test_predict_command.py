"""`detr-job predict`: as real processes, on all that people call an image."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from detr_job.errors import JobError
from detr_job.family import build_family
from detr_job.prediction.drawing import class_colour, draw_detections
from detr_job.prediction.lettering import line_of, missing_characters
from detr_job.prediction.predict_command import image_files, picture_names, predict_files
from detr_job.prediction.predictor import Found
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from tests.data_prep.export_builder import encode
from tests.detr_job.job_server import JobServer
from tests.detr_job.pictures import small_config

CLASSES = ("Zelle", "<b>rot|\u00e9</b>")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Random weights; scores are about 0.01 at first, so they are spread."""
    folder = tmp_path_factory.mktemp("model")
    config = small_config("tiny", **{"model.queries": 6})
    torch.manual_seed(2)
    network = build_family(config, 2).network
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "class_embed.bias" in name:
                parameter.uniform_(-1, 1)
    info = ModelFolderConfig(
        classes=CLASSES,
        preset="tiny",
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size),
        prepared_set="set",
        metrics={},
    )
    write_model(folder, network.state_dict(), info)
    return folder


def photograph(path: Path, size: tuple[int, int] = (120, 80), orientation: int = 1) -> Path:
    rng = np.random.default_rng(len(path.name))
    image = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image, path.suffix.lower(), orientation))
    return path


class Predict:
    """Calls of the command in one folder."""

    def __init__(self, server: JobServer, model: Path, folder: Path) -> None:
        self.server, self.model, self.folder = server, model, folder

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Exit code and all that was printed."""
        given = ["predict", "--model", str(self.model), "--device", "cpu", *map(str, arguments)]
        job = self.server.start(given, self.folder / "log.txt", to_the_end=False)
        return job.ends(), job.says()

    def json(self, *paths: Path, threshold: float = 0.0, keep_repeated: bool = False) -> list[dict]:
        """What `--json` prints, without the process."""
        return predict_files(str(self.model), paths, None, threshold, "cpu", keep_repeated=keep_repeated)

    def refused(self, *arguments: object) -> str:
        code, said = self(*arguments)
        assert code == 2, said
        assert said.count("\n") == 1, said
        assert said.startswith("error: ")
        return said


@pytest.fixture
def predict(job_server: JobServer, model: Path, tmp_path: Path) -> Iterator[Predict]:
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    yield Predict(job_server, model, tmp_path)
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def test_json_and_pictures_lie_in_the_folder_for_them(predict, tmp_path):
    first, second = photograph(tmp_path / "a.jpg"), photograph(tmp_path / "sub" / "b.png", (64, 200))
    out = tmp_path / "found"
    code, said = predict(first, second, "--out", out, "--threshold", 0)
    assert code == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["a.found.jpg", "b.found.jpg", "predictions.json"]
    records = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert [record["image"] for record in records] == [str(first), str(second)]
    assert [(record["width"], record["height"]) for record in records] == [(120, 80), (64, 200)]
    assert f"{first}: {len(records[0]['detections'])} objects" in said
    assert [record["picture"] for record in records] == ["a.found.jpg", "b.found.jpg"]
    for record, name in zip(records, ("a", "b"), strict=True):
        with Image.open(out / f"{name}.found.jpg") as picture:
            assert picture.size == (record["width"], record["height"])
        scores = [each["score"] for each in record["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert 6 <= len(scores) <= 12
        for each in record["detections"]:
            x, y, width, height = each["bbox"]
            assert 0 <= x <= x + width <= record["width"] + 0.01
            assert 0 <= y <= y + height <= record["height"] + 0.01
            assert each["label"] in ("Zelle", "<b>rot|\u00e9</b>")
            assert 0 <= each["score"] <= 1


def test_json_is_all_that_is_printed_and_nothing_is_written(predict, tmp_path):
    image = photograph(tmp_path / "a.png")
    code, said = predict("--json", "--threshold", 0, image)
    assert code == 0, said
    assert json.loads(said) == predict.json(image)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "log.txt"}


def test_the_threshold_cuts(predict, tmp_path):
    image = photograph(tmp_path / "a.png")
    everything = predict.json(image)[0]["detections"]
    middle = (everything[2]["score"] + everything[3]["score"]) / 2
    assert predict.json(image, threshold=middle)[0]["detections"] == everything[:3]
    assert predict.json(image, threshold=1)[0]["detections"] == []
    assert "--threshold" in predict.refused("--threshold", 1.5, image)


def with_point(model: Path, folder: Path, point: object) -> Path:
    """The same model with another operating point."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"operating_point": point}), encoding="utf-8")
    return folder


def test_without_a_threshold_each_class_has_the_model_s_own(predict, model, tmp_path):
    image = photograph(tmp_path / "a.png")
    everything = predict.json(image, keep_repeated=True)[0]["detections"]
    scores = {name: sorted((e["score"] for e in everything if e["label"] == name), reverse=True) for name in CLASSES}
    middle = {name: (values[1] + values[2]) / 2 for name, values in scores.items()}
    point = {"threshold": 1.0, "classes": middle, "split": "val"}
    mine = with_point(model, tmp_path / "model", point)
    found = predict_files(str(mine), [image], None, None, "cpu", keep_repeated=True)[0]["detections"]
    assert {name: sorted((e["score"] for e in found if e["label"] == name), reverse=True) for name in CLASSES} == {
        name: values[:2] for name, values in scores.items()
    }
    # A class without its own takes the one of all, and a number wins over both.
    only = with_point(model, tmp_path / "only", point | {"classes": {CLASSES[0]: middle[CLASSES[0]]}})
    assert {
        e["label"] for e in predict_files(str(only), [image], None, None, "cpu", keep_repeated=True)[0]["detections"]
    } == {CLASSES[0]}
    assert predict_files(str(mine), [image], None, 0.0, "cpu", keep_repeated=True)[0]["detections"] == everything


def test_a_second_class_on_the_same_box_is_left_out_unless_it_is_wanted(predict, tmp_path):
    image = photograph(tmp_path / "a.png", (900, 600))
    everything = predict.json(image, keep_repeated=True)[0]["detections"]
    found = predict.json(image)[0]["detections"]
    places = {tuple(each["bbox"]) for each in everything}
    assert len(everything) == 2 * len(places), "each query gives both classes one box"
    assert len(found) <= len(places)
    assert found[0] == everything[0], "the better one stays"
    code, said = predict(image, "--out", tmp_path / "out", "--threshold", 0)
    assert code == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))[0]["detections"] == found
    left_out = len(everything) - len(found)
    assert f"left out: {left_out} boxes with nearly the place of a better box" in said
    code, said = predict(image, "--out", tmp_path / "all", "--threshold", 0, "--keep-repeated")
    assert f"a.png: {len(everything)} objects" in said
    assert "left out: " not in said
    picture, whole = ((tmp_path / name / "a.found.jpg").read_bytes() for name in ("out", "all"))
    assert picture != whole


def test_the_threshold_in_use_is_said(predict, model, tmp_path):
    image = photograph(tmp_path / "a.png")
    predict.model = with_point(
        model, tmp_path / "model", {"threshold": 0.25, "classes": {"Zelle": 0.125}, "split": "val"}
    )
    own = (
        "boxes with a score below 0.25 (Zelle 0.125) are left out: the model's own threshold, chosen on its val images "
        "(--threshold sets another)"
    )
    assert predict(image, "--out", tmp_path / "a")[1].splitlines()[-1] == own
    assert predict(image, "--out", tmp_path / "a", "--threshold", "")[1].splitlines()[-1] == own
    said = predict(image, "--out", tmp_path / "a", "--threshold", 0.75)[1].splitlines()[-1]
    assert said == "boxes with a score below 0.75 are left out (--threshold)"
    predict.model = model
    said = predict(image, "--out", tmp_path / "a")[1].splitlines()[-1]
    assert said.startswith("boxes with a score below 0.5 are left out: the model has no threshold of its own")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_of_a_photograph_is_honoured(predict, tmp_path, orientation: int):
    turned = photograph(tmp_path / "turned.png", (120, 80), orientation)
    with Image.open(turned) as image:
        upright = image.transpose(
            {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation]
        )
        upright.save(tmp_path / "upright.png", exif=b"")
    one, other = predict.json(turned, tmp_path / "upright.png")
    assert (one["width"], one["height"]) == ((120, 80) if orientation == 3 else (80, 120))
    assert one["detections"] == other["detections"]


def test_grey_palette_alpha_and_16_bit_images_are_read(predict, tmp_path):
    base = Image.open(photograph(tmp_path / "rgb.png"))
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        base.convert(mode).save(tmp_path / f"{mode}.{suffix}")
    Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257).save(tmp_path / "16.png")
    records = predict.json(tmp_path)
    assert len(records) == 8
    by_name = {Path(record["image"]).name: record["detections"] for record in records}
    assert by_name["16.png"] == by_name["L.png"]
    assert by_name["RGBA.png"] == by_name["rgb.png"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 2)])
def test_images_of_any_shape_are_predicted(predict, tmp_path, size: tuple[int, int]):
    image = photograph(tmp_path / "odd.png", size)
    predict_files(str(predict.model), [image], tmp_path / "out", 0.0, "cpu")
    with Image.open(tmp_path / "out" / "odd.found.jpg") as picture:
        assert picture.size == size


def test_entries_of_a_folder_that_are_no_files_are_named_and_files_are_predicted_once(predict, tmp_path):
    folder = tmp_path / "photos"
    picture = photograph(folder / "a.png")
    photograph(tmp_path / "elsewhere" / "b.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe.png")
    (folder / ".#lock.png").symlink_to(tmp_path / "nothing")  # as editors leave it
    out = tmp_path / "found"
    out.mkdir()
    (out / "predictions.json").write_text("[]")
    code, said = predict(folder, picture, "--out", out)
    assert code == 3, said
    assert [record["image"] for record in json.loads((out / "predictions.json").read_text())] == [str(picture)]
    for name, reason in (("link", "a link to a folder"), ("gone.png", "a link to nothing"), ("pipe.png", "no file")):
        assert f"left out: {folder / name} is {reason}" in said
    assert said.count(f"left out: {folder}") == 3


def test_a_file_of_several_frames_is_named(predict, tmp_path):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    code, said = predict(tmp_path / "two.gif", "--out", tmp_path / "out")
    assert code == 0, said
    assert f"warning: {tmp_path / 'two.gif'}: of several frames or pages, only the first was used" in said


def test_the_file_of_a_model_stands_for_its_folder(model, tmp_path):
    picture = photograph(tmp_path / "a.png")
    of_folder = predict_files(str(model), [picture], None, 0, "cpu")
    assert predict_files(f"{model}/model.safetensors", [picture], None, 0, "cpu") == of_folder


def test_a_folder_gives_its_images_in_order(predict, tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.JPG", "a.png", "deep/c.webp"):
        photograph(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.jpg").mkdir()
    records = predict.json(folder)
    assert [os.path.relpath(record["image"], folder) for record in records] == ["a.png", "b.JPG", "deep/c.webp"]


def test_pictures_never_replace_photographs(predict, tmp_path):
    folder = tmp_path / "photos"
    files = [photograph(folder / name) for name in ("a.jpg", "a.png", "A.jpeg", "sub/a.jpg")]
    before = [path.read_bytes() for path in files]
    for _ in range(2):
        records = predict_files(str(predict.model), [folder], folder, 0.0, "cpu")
        assert len(records) == 4, "drawn pictures are no input"
        assert [path.read_bytes() for path in files] == before
        drawn = sorted(path.name for path in folder.glob("*.found.jpg"))
        assert len(drawn) == len({name.lower() for name in drawn}) == 4


def test_names_of_pictures_differ_and_fit():
    names = picture_names(
        [Path("a.jpg"), Path("x/a.png"), Path("a-2.jpg"), Path("A.jpg"), Path("\u00e9" * 125 + ".jpg")]
    )
    assert names[:3] == ["a.found.jpg", "a-2.found.jpg", "a-2-2.found.jpg"]
    assert len({name.lower() for name in names}) == 5
    assert all(len(name.encode()) < 255 for name in names)


def test_a_wrong_image_is_named(predict, tmp_path):
    assert f"{tmp_path}/none.jpg does not exist" in predict.refused(tmp_path / "none.jpg")
    assert "Missing argument" in predict.refused()
    (tmp_path / "text.jpg").write_text("this is no picture")
    cut = photograph(tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:200])
    for path in (tmp_path / "text.jpg", cut):
        with pytest.raises(JobError, match=rf"{path.name} cannot be read as an image: "):
            predict.json(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match=r"empty has no images \(\.bmp"):
        predict.json(tmp_path / "empty")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_bad_files_among_good_ones_are_named_and_the_others_predicted(predict, tmp_path, options: tuple[str, ...]):
    folder, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "m.png", "z.webp"):
        photograph(folder / name)
    (folder / "b.jpg").write_text("this is no picture")
    (folder / "m.png").write_bytes((folder / "m.png").read_bytes()[:200])
    (folder / "note.heic").write_text("of another kind")
    (folder / ".hidden").write_text("x")
    code, said = predict("--out", out, *options, folder)
    assert code == 3, said
    assert said.splitlines()[-1] == "error: 3 of 5 files were left out; the others are predicted"
    assert f"left out: {folder}/b.jpg cannot be read as an image: " in said
    assert f"left out: {folder}/m.png cannot be read as an image: " in said
    assert f"left out: {folder}/note.heic is not an image: its name does not end in .bmp, " in said
    assert "hidden" not in said
    records = json.loads(said[: said.rindex("]") + 1] if options else (out / "predictions.json").read_text())
    assert [Path(each["image"]).name for each in records] == ["a.jpg", "z.webp"]
    assert out.exists() != bool(options)


def test_an_image_too_large_for_the_memory_does_not_stop_the_others(predict, tmp_path, monkeypatch):
    from detr_job.prediction.predictor import NoMemory, Predictor

    small, large = photograph(tmp_path / "a.png"), photograph(tmp_path / "b.png", (400, 80))
    detect = Predictor.detect

    def limited(self, image, threshold=None):
        if image.width > 200:
            raise NoMemory("out of memory")
        return detect(self, image, threshold)

    monkeypatch.setattr(Predictor, "detect", limited)
    left_out: dict[Path, str] = {}
    records = predict_files(str(predict.model), [large, small], None, 0.0, "cpu", lambda _: None, left_out)
    assert [record["image"] for record in records] == [str(small)]
    assert left_out == {large: "out of memory"}
    with pytest.raises(JobError, match=r"out of memory.*smaller data\.eval_size") as error:
        predict_files(str(predict.model), [large], None, 0.0, "cpu")
    assert error.value.exit_code == 2


def test_a_wrong_model_or_place_is_named(predict, tmp_path):
    image = photograph(tmp_path / "a.png")
    (tmp_path / "file").write_text("x")
    assert "error: --out: " in predict.refused("--out", tmp_path / "file", image)
    with pytest.raises(JobError, match=r"there is no model at .*/nothing \(no config\.json\)"):
        predict_files(str(tmp_path / "nothing"), [image], None, 0.5, "cpu")
    with pytest.raises(JobError, match="'tpu' is not one of auto, cuda, cpu"):
        predict_files(str(predict.model), [image], None, 0.5, "tpu")


def test_only_files_with_an_images_ending_are_found_in_folders(tmp_path):
    photograph(tmp_path / "a.png")
    photograph(tmp_path / "b.found.jpg")
    assert image_files([tmp_path]) == [tmp_path / "a.png"]
    assert image_files([tmp_path / "b.found.jpg"]) == [tmp_path / "b.found.jpg"], "who names a file means it"
    with pytest.raises(JobError, match="does not exist"):
        image_files([tmp_path / "c.png"])


# Drawing ------------------------------------------------------------------------------------------


def test_the_first_colours_are_far_apart():
    colours = np.array([class_colour(index) for index in range(8)], int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(8, dtype=int)
    assert distance.min() > 80


@pytest.mark.parametrize(
    "bbox",
    [(0, 0, 200, 150), (150, 0, 50, 20), (180, 130, 20, 20), (-30, -30, 400, 400), (60, 60, 0, 0), (0, 140, 5, 10)],
)
def test_labels_stay_inside_the_picture(bbox: tuple[float, float, float, float]):
    """The label's field, in the class's colour, is whole: as wide as in the middle of the picture."""
    image = Image.new("RGB", (200, 150), (20, 20, 20))

    def filled(box: tuple[float, float, float, float]) -> int:
        picture = np.asarray(draw_detections(image, [Found("a name", 0.5, box)], ("a name",)))
        rows = (np.abs(picture.astype(int) - class_colour(0)).sum(-1) < 30).sum(1)
        return int(sorted(rows)[-6])

    assert filled(bbox) >= filled((60, 60, 0, 0)) - 2


def test_the_original_is_left_alone_and_grey_is_coloured():
    image = Image.new("L", (100, 100), 50)
    before = image.tobytes()
    picture = draw_detections(image, [Found("x", 0.9, (10, 40, 50, 30))], ("x",))
    assert image.tobytes() == before
    assert picture.mode == "RGB"
    assert len(set(picture.getpixel((10, 55)))) > 1


def test_a_picture_without_detections_is_the_image():
    image = Image.new("RGB", (30, 20), (1, 2, 3))
    assert draw_detections(image, [], ("x",)).tobytes() == image.tobytes()


NAMES = ("grün é", "Жук", "中文标签", "日本語", "한국어", "بذرة", "ไทย", "हिन्दी", "שלום", "ž ệ µ ₂")


@pytest.mark.parametrize("name", NAMES)
def test_labels_in_other_scripts_are_drawn_and_not_as_empty_boxes(name: str):
    assert missing_characters(name) == ""
    for character in name.replace(" ", ""):
        seen, absent = (drawn_text(text) for text in (character, "\uffff"))
        assert seen.any(), "nothing is drawn"
        assert seen.shape != absent.shape or (seen != absent).any(), f"{character} is an empty box"
    label = draw_detections(Image.new("RGB", (400, 300)), [Found(name, 0.9, (60, 60, 200, 150))], NAMES)
    other = draw_detections(
        Image.new("RGB", (400, 300)),
        [Found("\uffff" * len(name), 0.9, (60, 60, 200, 150))],
        ["\uffff" * len(name) if each == name else each for each in NAMES],
    )
    assert label.tobytes() != other.tobytes()


def drawn_text(text: str) -> np.ndarray:
    image = Image.new("L", (60, 60))
    line_of(text, 30).draw(ImageDraw.Draw(image), 5, 40, "white")
    return np.asarray(image)


def test_a_space_between_scripts_stands_between_them():
    """Also after a script that is written from right to left."""
    line = line_of("بذرة 0.65", 20)
    assert [text for text, _ in line.parts] == ["بذرة", " 0.65"]
    assert [text for text, _ in line_of("بذرة بذرة", 20).parts] == ["بذرة بذرة"], "words stay in their order"


@pytest.mark.usefixtures("predict")
def test_a_character_that_no_font_has_is_named(tmp_path, model):
    assert missing_characters("a\U0001f000\u0301b \u200d") == "\U0001f000"
    mine = tmp_path / "model"
    shutil.copytree(model, mine)
    config = json.loads((mine / "config.json").read_text(encoding="utf-8"))
    config["classes"] = ["\U0001f000 x", "Zelle"]
    (mine / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said: list[str] = []
    predict_files(str(mine), [photograph(tmp_path / "a.png")], tmp_path / "out", 0.0, "cpu", said.append)
    assert "warning: no font here has \U0001f000 of the class '\U0001f000 x': drawn as empty boxes" in said


@pytest.mark.usefixtures("predict")
def test_a_sixteen_bit_image_that_holds_twelve_bits_is_said(model, tmp_path):
    values = np.linspace(0, 4095, 120 * 80).astype(np.uint16).reshape(80, 120)
    path = tmp_path / "camera.tif"
    Image.fromarray(values).save(path)
    said: list[str] = []
    predict_files(str(model), [path], None, 0.0, "cpu", said.append)
    (warning,) = said
    assert warning == (
        f"warning: {path} (up to 4,095): 16-bit images with values far below 65,535 are nearly black for a model; "
        "multiply the values (by 16 for 12 bits), or convert them to 8 bits"
    )
    Image.fromarray(values * 16).save(path)
    said.clear()
    predict_files(str(model), [path], None, 0.0, "cpu", said.append)
    assert said == []


def fields_of_labels(monkeypatch: pytest.MonkeyPatch, image: Image.Image, found: list[Found]) -> list[tuple]:
    """The filled rectangles that are drawn."""
    fields = []
    rectangle = ImageDraw.ImageDraw.rectangle

    def watched(canvas, place, fill=None, **more):
        if fill is not None:
            fields.append(place)
        rectangle(canvas, place, fill=fill, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", watched)
    draw_detections(image, found, NAMES)
    return fields


def test_labels_of_many_boxes_cover_no_other_and_stay_inside(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    found = [
        Found(NAMES[int(rng.integers(len(NAMES)))], float(score), (float(x), float(y), 40.0, 30.0))
        for score, x, y in zip(rng.random(200), rng.uniform(-20, 620, 200), rng.uniform(-20, 460, 200), strict=True)
    ]
    fields = fields_of_labels(monkeypatch, Image.new("RGB", (640, 480)), found)
    assert len(fields) > 40
    for index, (left, top, right, bottom) in enumerate(fields):
        assert 0 <= left < right < 639.001
        assert 0 <= top < bottom < 479.001
        for other in fields[:index]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_a_name_longer_than_the_picture_is_cut(monkeypatch: pytest.MonkeyPatch):
    name = "中文" * 150
    monkeypatch.setitem(globals(), "NAMES", (name,))
    for size in ((640, 480), (90, 60)):
        (field,) = fields_of_labels(monkeypatch, Image.new("RGB", size), [Found(name, 0.9, (10, 30, 30, 20))])
        assert field[0] >= 0
        assert field[2] < size[0] - 0.999


def test_labels_give_way_to_each_other():
    image = Image.new("RGB", (400, 300), (20, 20, 20))
    both = [Found("first", 0.9, (100, 100, 120, 90)), Found("second", 0.8, (102, 101, 118, 92))]
    picture = np.asarray(draw_detections(image, both, ("first", "second"))).astype(int)
    for index, found in enumerate(both):
        alone = np.asarray(draw_detections(image, [found], ("first", "second"))).astype(int)
        wanted = (np.abs(alone - class_colour(index)).sum(-1) < 30).sum()
        seen = (np.abs(picture - class_colour(index)).sum(-1) < 30).sum()
        assert seen > 0.75 * wanted, f"{found.label} is covered"
