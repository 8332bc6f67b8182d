"""Boxes go where their pixels go, sizes are DETR's, and chance belongs to (seed, epoch, sample)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from detr_job.data import augmentation
from detr_job.data.augmentation import FILL, Sample, augment, crop, mirror, mosaic, resize, resized_size
from run_config.job.config import Augmentation, Data
from tests.detr_job.pictures import BACKGROUND, COLOURS, rectangles

SMALL = Data(min_sizes=(64, 80, 112), max_size=150, eval_size=64)
SIZE = st.integers(1, 4000)
often = settings(max_examples=30)


@st.composite
def pictures(draw) -> Sample:
    """Up to six rectangles that do not touch, in a picture of 120 x 90."""
    boxes = []
    for column, row in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), unique=True, max_size=6)):
        left, top = 40 * column + draw(st.integers(0, 12)), 45 * row + draw(st.integers(0, 12))
        boxes.append((left, top, left + draw(st.integers(8, 26)), top + draw(st.integers(8, 30))))
    return rectangles(boxes)


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32)


def with_recipe(recipe: str, **more: object) -> Data:
    return SMALL.model_copy(update={"augmentation": Augmentation(recipe=recipe, **more)})


def assert_boxes_lie_on_their_colours(sample: Sample, slack_px: float = 2.0) -> None:
    """Every box is inside the picture and holds its colour; no colour shows outside its box."""
    height, width = sample.image.shape[1:]
    assert sample.boxes.dtype == torch.float32
    assert sample.image.dtype == torch.uint8
    assert len(sample.boxes) == len(sample.labels) == len(set(sample.labels.tolist()))
    distance = (sample.image[None].float() - COLOURS[:, :, None, None]).abs().amax(1)
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        x1, y1, x2, y2 = box.tolist()
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        rows, columns = (
            slice(round(low + slack_px), max(round(high - slack_px), 0)) for low, high in ((y1, y2), (x1, x2))
        )
        inside = distance[label, rows, columns]
        assert not inside.numel() or inside.max() < 40, f"box {label} at {box} does not hold its colour"
        rows, columns = torch.nonzero(distance[label] < 60, as_tuple=True)
        if len(rows):
            assert columns.min() >= x1 - slack_px
            assert columns.max() + 1 <= x2 + slack_px
            assert rows.min() >= y1 - slack_px
            assert rows.max() + 1 <= y2 + slack_px


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_size", "wanted"),
    [((640, 480), (1066, 800)), ((640, 300), (1333, 625)), ((1000, 331), (1332, 441)), ((200, 2000), (133, 1330))],
)
def test_sizes_are_the_published_ones(given_size: tuple[int, int], wanted: tuple[int, int]):
    """Goldens from running facebookresearch/detr at 29901c5 with size 800 and max_size 1333."""
    assert resized_size(*given_size, 800, 1333) == wanted


@often
@given(SIZE, SIZE, SIZE, st.none() | SIZE)
def test_a_size_keeps_the_shape_and_its_bounds(width: int, height: int, size: int, max_size: int | None):
    new_width, new_height = resized_size(width, height, size, max_size)
    assert resized_size(height, width, size, max_size) == (new_height, new_width)
    short, long = min(new_width, new_height), max(new_width, new_height)
    assert short >= 1
    if max_size is None or long < max_size:
        assert short <= size
    if max_size is not None:
        # the short side is rounded by at most a half, and the long one follows it
        assert long <= max_size * short / (short - 0.5) + 1
    elif width != height:
        assert short == size
    if short > 1:
        assert long / short == pytest.approx(max(width, height) / min(width, height), rel=1.2 / short)


def test_a_strip_keeps_one_pixel_and_its_bound():
    assert resized_size(4000, 1, 800, 1333) == (1333, 1)
    assert resized_size(1, 4000, 800, 1333) == (1, 1333)


@pytest.mark.parametrize("size", [48, 64, 200, 333])
def test_a_resize_is_pils_antialiased_bilinear(size: int):
    rng = np.random.default_rng(size)
    picture = Image.fromarray(rng.integers(0, 256, (120, 170, 3), np.uint8))
    sample = Sample(functional.pil_to_tensor(picture), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    ours = resize(sample, size, 500).image.permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(picture.resize((ours.shape[1], ours.shape[0]), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


# Where boxes go -----------------------------------------------------------------------------------


@often
@given(pictures(), st.integers(40, 200), st.none() | st.integers(100, 200))
def test_boxes_follow_a_resize(sample: Sample, size: int, max_size: int | None):
    changed = resize(sample, size, max_size)
    assert changed.labels.tolist() == sample.labels.tolist()
    assert_boxes_lie_on_their_colours(changed, slack_px=3.0)


@often
@given(pictures(), st.booleans())
def test_boxes_follow_a_mirror_and_come_back(sample: Sample, horizontal: bool):
    once = mirror(sample, horizontal=horizontal)
    assert_boxes_lie_on_their_colours(once, slack_px=0)
    assert once.labels.tolist() == sample.labels.tolist()
    twice = mirror(once, horizontal=horizontal)
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.boxes, sample.boxes)


@often
@given(pictures(), st.data())
def test_boxes_follow_a_crop_and_those_outside_go(sample: Sample, data):
    left, top = data.draw(st.integers(0, 110)), data.draw(st.integers(0, 80))
    width, height = data.draw(st.integers(1, 120 - left)), data.draw(st.integers(1, 90 - top))
    changed = crop(sample, left, top, width, height)
    assert changed.image.shape == (3, height, width)
    assert_boxes_lie_on_their_colours(changed, slack_px=0)
    seen = {
        label
        for label in sample.labels.tolist()
        if (changed.image.float() - COLOURS[label][:, None, None]).abs().amax(0).min() == 0
    }
    assert set(changed.labels.tolist()) == seen, "a box stays exactly when some of its pixels do"


@often
@given(pictures(), seeds())
def test_boxes_follow_the_affine_recipe(sample: Sample, seed: int):
    data = with_recipe("affine", vertical_flip=0.5, min_visible=0.3)
    changed = augment(sample, data, np.random.default_rng(seed))
    assert (changed.image.shape[2], changed.image.shape[1]) in {
        resized_size(120, 90, size, data.max_size) for size in data.min_sizes
    }
    assert_boxes_lie_on_their_colours(changed, slack_px=3.0)


def one_box(label: int, box: tuple[int, int, int, int], width: int = 120, height: int = 90) -> Sample:
    """A picture with one rectangle, of the label's colour."""
    plain = rectangles([box], width, height)
    image = torch.where(plain.image == BACKGROUND, plain.image, COLOURS[label].to(torch.uint8)[:, None, None])
    return replace(plain, image=image, labels=torch.tensor([label]))


@often
@given(seeds())
def test_boxes_follow_a_mosaic(seed: int):
    rng = np.random.default_rng(seed)
    samples = [one_box(label, (20, 10, 70, 60), *rng.integers(90, 160, 2).tolist()) for label in range(4)]
    data = with_recipe("affine", vertical_flip=0.5)
    height, width = samples[0].image.shape[1:]
    changed = mosaic(samples, data, rng)
    sizes = {resized_size(width, height, size, data.max_size) for size in data.min_sizes}
    assert (changed.image.shape[2], changed.image.shape[1]) in sizes
    assert_boxes_lie_on_their_colours(changed, slack_px=3.0)


def test_a_mosaic_shows_all_four_pictures():
    samples = [one_box(label, (0, 0, 120, 90)) for label in range(4)]
    changed = mosaic(samples, with_recipe("affine", scale=(1.0, 1.0), aspect=0.0), np.random.default_rng(2))
    assert changed.labels.tolist() == [0, 1, 2, 3]
    height, width = changed.image.shape[1:]
    covered = ((changed.boxes[:, 2:] - changed.boxes[:, :2]).prod(1)).sum()
    assert covered == pytest.approx(height * width, rel=1e-3), "the four parts meet, without gaps or overlap"


def test_a_mosaic_of_strips_is_a_strip():
    strips = [rectangles([], width=1, height=300)] * 4
    assert mosaic(strips, with_recipe("affine"), np.random.default_rng(0)).image.shape == (3, 150, 1)


@pytest.mark.parametrize("recipe", ["published", "affine", "none"])
def test_with_square_every_recipe_stretches_images_and_boxes_to_a_square(recipe: str):
    sample = rectangles([(10, 10, 50, 40), (60, 20, 110, 80)])
    data = with_recipe(recipe, crop=0.0, scale=(1.0, 1.0), aspect=0.0).model_copy(
        update={"square": True, "min_sizes": (64,)}
    )
    changed = augment(sample, data, np.random.default_rng(1))
    assert changed.image.shape == (3, 64, 64)
    assert_boxes_lie_on_their_colours(changed, slack_px=3.0)


@often
@given(pictures(), seeds(), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_affine_recipe_drops_boxes_of_which_too_little_shows(sample: Sample, seed: int, least: float):
    zoomed = with_recipe("affine", scale=(2.0, 3.0), min_visible=least)
    kept = set(augment(sample, zoomed, np.random.default_rng(seed)).labels.tolist())
    with_all = augment(sample, with_recipe("affine", scale=(2.0, 3.0), min_visible=0.0), np.random.default_rng(seed))
    assert kept <= set(with_all.labels.tolist())
    height, width = with_all.image.shape[1:]
    for box, label in zip(with_all.boxes, with_all.labels.tolist(), strict=True):
        touches = box[0] == 0 or box[1] == 0 or box[2] == width or box[3] == height
        assert touches or label in kept, "a box that lies wholly inside stays"


def test_a_box_stays_when_enough_of_it_shows():
    sample = rectangles([(0, 0, 10, 10)] * 4)
    # of 100 square pixels, 29, 31, 100 and 0 lie in a picture of 50 x 40
    boxes = torch.tensor([(47.1, 5, 57.1, 15), (5, 36.9, 15, 46.9), (0, 0, 10, 10), (50, 0, 60, 10)])
    for least, kept in ((0.3, [1, 2]), (0.0, [0, 1, 2]), (0.32, [2]), (1.0, [2])):
        changed = augmentation._kept(sample, boxes, 50, 40, min_visible=least)
        assert changed.labels.tolist() == kept
        assert len(changed.boxes) == len(kept)


@often
@given(pictures(), seeds())
def test_boxes_follow_the_published_recipe(sample: Sample, seed: int):
    changed = augment(sample, with_recipe("published"), np.random.default_rng(seed))
    height, width = changed.image.shape[1:]
    assert max(width, height) <= SMALL.max_size + 1
    assert min(width, height) in SMALL.min_sizes or max(width, height) >= SMALL.max_size - 1
    # crops are taken from an image enlarged fivefold: its soft edges shrink again
    assert_boxes_lie_on_their_colours(changed, slack_px=4.0)


def test_zooming_out_fills_the_rest_with_the_mean_colour():
    sample = rectangles([(0, 0, 120, 90)])
    data = with_recipe("affine", scale=(0.5, 0.5), aspect=0.0, flip=0.0)
    changed = augment(sample, data, np.random.default_rng(3))
    neutral = (changed.image - torch.tensor(FILL, dtype=torch.uint8)[:, None, None]).abs().amax(0) == 0
    assert 0.7 < neutral.float().mean() < 0.76, "half the width and half the height: a quarter is the picture"
    assert_boxes_lie_on_their_colours(changed)


def test_crops_are_the_published_ones(monkeypatch):
    """Short side 400, 500 or 600 without a bound; then each side from 384 to 600, as far as there is one."""
    taken = []

    def spy(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
        taken.append((sample.image.shape[2], sample.image.shape[1], left, top, width, height))
        return crop(sample, left, top, width, height)

    monkeypatch.setattr(augmentation, "crop", spy)
    strip = rectangles([], width=400, height=80)
    for sample in (rectangles([], width=60, height=45), strip):
        for seed in range(40):
            augment(sample, with_recipe("published"), np.random.default_rng(seed))
    assert {min(width, height) for width, height, *_ in taken} == {400, 500, 600}
    assert {max(width, height) for width, height, *_ in taken} == {533, 666, 800, 2000, 2500, 3000}
    for width, height, left, top, crop_width, crop_height in taken:
        assert 384 <= crop_width <= min(width, 600)
        assert 384 <= crop_height <= min(height, 600)
        assert 0 <= left <= width - crop_width
        assert 0 <= top <= height - crop_height
    assert 20 < len(taken) < 60, "half of the time"
    assert len({(left, top) for *_, left, top, _, _ in taken}) > 20


def test_without_chance_the_recipe_is_a_resize():
    sample = rectangles([(10, 10, 40, 40)])
    for data in (with_recipe("none"), with_recipe("published", flip=0, crop=0)):
        one_size = data.model_copy(update={"min_sizes": (80,)})
        changed = augment(sample, one_size, np.random.default_rng(1))
        assert torch.equal(changed.image, resize(sample, 80, 150).image)


@pytest.mark.parametrize("recipe", ["published", "affine", "none"])
def test_the_original_is_never_written_to(recipe: str):
    sample = rectangles([(10, 10, 40, 40), (60, 20, 90, 70)])
    image, boxes = sample.image.clone(), sample.boxes.clone()
    data = with_recipe(recipe, brightness=0.5, contrast=0.5, saturation=0.5)
    for seed in range(6):
        augment(sample, data, np.random.default_rng(seed))
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.boxes, boxes)


@pytest.mark.parametrize("recipe", ["published", "affine", "none"])
def test_pictures_without_boxes_pass(recipe: str):
    changed = augment(rectangles([]), with_recipe(recipe), np.random.default_rng(0))
    assert changed.boxes.shape == (0, 4)
    assert changed.labels.shape == (0,)
    assert changed.labels.dtype == torch.int64


def test_colour_changes_values_and_nothing_else():
    sample = rectangles([(10, 10, 40, 40)])
    plain = augment(sample, with_recipe("affine"), np.random.default_rng(5))
    for name in ("brightness", "contrast", "saturation"):
        changed = augment(sample, with_recipe("affine", **{name: 0.9}), np.random.default_rng(5))
        assert torch.equal(changed.boxes, plain.boxes)
        assert not torch.equal(changed.image, plain.image), name


@often
@given(seeds(), st.floats(0, 2))
def test_contrast_is_torchvisions_to_a_grey_level(seed: int, factor: float):
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 20, 30), np.uint8))
    difference = augmentation._contrast(image, factor).int() - functional.adjust_contrast(image, factor).int()
    assert difference.abs().max() <= 1


def test_a_dark_picture_is_dark():
    assert rectangles([]).image.unique().tolist() == [BACKGROUND]
