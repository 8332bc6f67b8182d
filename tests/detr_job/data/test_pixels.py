"""Our operations on pixels are torchvision's bit for bit, and come without torchvision's price."""

import subprocess
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from detr_job.data import pixels

SIDE = st.integers(2, 90)  # to a single pixel, PyTorch itself fails with one of the layouts
FACTOR = st.floats(0, 3)
often = settings(max_examples=60)


@st.composite
def pictures(draw) -> Tensor:
    """As they come from Pillow, from a cache of plain memory, and cut out of a larger one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(SIDE), draw(SIDE)
    form = draw(st.sampled_from(["pillow", "plain", "window"]))
    array = rng.integers(0, 256, (height + 2, width + 2, 3), np.uint8)
    image = torch.from_numpy(array).permute(2, 0, 1)
    if form == "window":
        return image[:, 1:-1, 1:-1]
    return image.contiguous() if form == "plain" else image


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == theirs.dtype == torch.uint8
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()


@often
@given(pictures(), SIDE, SIDE)
def test_resize(image: Tensor, height: int, width: int):
    assert_same(pixels.resize(image, height, width), functional.resize(image, [height, width], antialias=True))


@often
@given(pictures(), SIDE, SIDE)
def test_resize_on_a_processor_that_has_no_kernel_for_bytes(image: Tensor, height: int, width: int):
    geometry = functional._geometry
    before = pixels._resizes_bytes, geometry._do_native_uint8_resize_on_cpu
    pixels._resizes_bytes, geometry._do_native_uint8_resize_on_cpu = lambda: False, lambda _: False
    try:
        ours, theirs = pixels.resize(image, height, width), functional.resize(image, [height, width], antialias=True)
    finally:
        pixels._resizes_bytes, geometry._do_native_uint8_resize_on_cpu = before
    assert torch.equal(ours, theirs)


@often
@given(pictures())
def test_flips(image: Tensor):
    assert_same(pixels.horizontal_flip(image), functional.horizontal_flip(image))
    assert_same(pixels.vertical_flip(image), functional.vertical_flip(image))


@often
@given(pictures(), FACTOR)
def test_colours(image: Tensor, factor: float):
    assert_same(pixels.rgb_to_grayscale(image), functional.rgb_to_grayscale(image))
    assert_same(pixels.adjust_brightness(image, factor), functional.adjust_brightness(image, factor))
    assert_same(pixels.adjust_saturation(image, factor), functional.adjust_saturation(image, factor))


@often
@given(pictures())
def test_pictures_of_pillow(image: Tensor):
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    assert_same(pixels.pil_to_tensor(picture), functional.pil_to_tensor(picture))


def test_training_starts_without_the_model_zoo_and_the_compiler():
    """They cost seconds of every start; neither the settings of the process nor an optimiser's step may bring them."""
    code = """
import sys, torch
import detr_job.training.training_job, detr_job.prediction.predictor
from detr_job.training.optimizer import build_optimizer, restore_optimizer
from run_config.job.config import Optimizer
from detr_job import hardware
hardware.prepare(torch.device("cpu"))
network = torch.nn.Linear(2, 2)
optimizer = build_optimizer(network, Optimizer())
network(torch.ones(2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
restore_optimizer(optimizer, optimizer.state_dict())
print([name for name in ("torchvision", "torch._dynamo.convert_frame", "torch._inductor") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
