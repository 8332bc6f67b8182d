"""The function file, as CVAT's own tools use it."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cvat_sdk.auto_annotation as cvataa
import pytest
from cvat_sdk.core.client import AccessTokenCredentials, Client, Config
from PIL import Image

import model_server.function
from detr_job.errors import JobError
from detr_job.prediction.predictor import Predictor, UnreadableImage, upright_rgb, upright_rgb_of
from detr_job.prediction.repeated import without_repeated
from model_server.function import create
from tests.cvat_double import CvatDouble
from tests.model_server.model_stores import CLASSES, CPU, picture, write_trained_model


@dataclass(frozen=True)
class Context:
    """The context of one image, as CVAT's SDK gives it."""

    frame_name: str
    conf_threshold: float | None
    conv_mask_to_poly: bool = False


FILE = Path(model_server.function.__file__)


def test_the_function_says_its_classes_and_finds_what_the_model_finds(tmp_path: Path):
    folder = write_trained_model(tmp_path / "model")
    function = create(model=str(folder), device="cpu", threshold=0.01)
    assert [(label.name, label.type) for label in function.spec.labels] == [
        ("disc", "rectangle"),
        ("square", "rectangle"),
    ]
    image = Image.open(io.BytesIO(picture()))
    shapes = function.detect(Context("a.png", None), image)
    expected = without_repeated(Predictor(str(folder), CPU)(upright_rgb(picture()), 0.01))
    assert [each.score for each in shapes] == [round(found.score, 4) for found in expected]
    assert all(each.type.value == "rectangle" and len(each.points) == 4 for each in shapes)
    assert function.detect(Context("a.png", 1.0), image) == []


def test_a_second_class_on_the_same_box_is_left_out_unless_it_is_wanted(tmp_path: Path):
    folder = write_trained_model(tmp_path / "model")
    image = Image.open(io.BytesIO(picture()))
    everything = create(str(folder), "cpu", 0.0, keep_repeated=True).detect(Context("a.png", None), image)
    found = create(str(folder), "cpu", 0.0).detect(Context("a.png", None), image)
    assert len({tuple(each.points) for each in everything}) * 2 == len(everything)
    assert 0 < len(found) <= len(everything) // 2
    assert found[0] == everything[0]


def test_a_class_that_is_not_wanted_hides_no_box(tmp_path: Path):
    function = create(str(write_trained_model(tmp_path / "model")), "cpu", 0.0)
    image = Image.open(io.BytesIO(picture()))
    for name in CLASSES:
        alone = function.find(image, 0.0, [name])
        assert len(alone) == len(
            [each for each in function.predictor(upright_rgb(picture()), 0.0) if each.label == name]
        )


def test_a_model_that_is_not_there_is_a_sentence(tmp_path: Path):
    with pytest.raises(JobError, match="there is no model at"):
        create(model=str(tmp_path), device="cpu")


def test_the_sdk_annotates_a_task_with_it(cvat: CvatDouble, tmp_path: Path):
    folder = write_trained_model(tmp_path / "model")
    task = cvat.add_drawn_task(
        "P", images=2, project=cvat.add_project("B", labels=["disc", "square"]), with_boxes=False
    )
    config = Config(cache_dir=tmp_path / "cache")
    with Client(cvat.url, config=config, check_server_version=False) as client:
        client.login(AccessTokenCredentials(cvat.service.token))
        cvataa.annotate_task(client, task.id, create(model=str(folder), device="cpu", threshold=0.008))
    assert task.shapes
    assert {each["source"] for each in task.shapes} == {"auto"}


def test_the_file_loads_by_its_path_alone(tmp_path: Path):
    """As `cvat-cli --function-file` does it: from elsewhere, under another name."""
    folder = write_trained_model(tmp_path / "model")
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('a_function', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(len(module.create(model=sys.argv[2], device='cpu').spec.labels))\n"
    )
    command = [sys.executable, "-c", program, str(FILE), str(folder)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_opened_image_becomes_the_pixels_that_its_file_gives(mode: str, orientation: int):
    """Whoever opened it, the model sees what it was trained on."""
    noise = Image.effect_noise((20, 12), 90)
    image = (
        Image.frombytes(mode, noise.size, noise.tobytes() * 2) if mode == "I;16" else noise.convert("RGB").convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "TIFF", exif=exif)
    opened = upright_rgb_of(Image.open(io.BytesIO(file.getvalue())))
    assert opened.tobytes() == upright_rgb(file.getvalue()).tobytes()


def test_an_opened_image_whose_file_breaks_off_is_a_sentence():
    image = Image.open(io.BytesIO(picture(400, 300)[:2000]))
    with pytest.raises(UnreadableImage, match="damaged"):
        upright_rgb_of(image)
