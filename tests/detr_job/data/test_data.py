"""Batches: what is in them, in which order, and that neither workers nor restarts change it."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_job.data import batches as data_module
from detr_job.data.augmentation import Sample, resize
from detr_job.data.batches import (
    Batch,
    EpochBatches,
    EvaluationSamples,
    ReducedImages,
    TrainingSamples,
    collate,
    equal_shape_batches,
    evaluation_loader,
    largest_canvas,
    normalised,
    read_sample,
    training_loader,
    worker_count,
)
from prepared_set.reader import Split
from run_config.job.config import Augmentation, Data
from tests.detr_job.pictures import mixed_split, rectangles

CPU = torch.device("cpu")
SMALL = Data(batch_size=3, min_sizes=(48, 64), max_size=96, eval_size=64, augmentation=Augmentation(recipe="affine"))


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return mixed_split(tmp_path_factory.mktemp("mixed"))


class Shapes:
    """As much of a split as an order of batches needs."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.images = [type("Record", (), {"width": width, "height": height}) for width, height in sizes]

    def __len__(self) -> int:
        return len(self.images)


def first(batches: EpochBatches, count: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(batches, count))


def same(one: Batch, other: Batch) -> bool:
    if one.padding_mask is None or other.padding_mask is None:
        masks = one.padding_mask is other.padding_mask
    else:
        masks = torch.equal(one.padding_mask, other.padding_mask)
    return (
        one.indices == other.indices
        and torch.equal(one.images, other.images)
        and masks
        and torch.equal(one.targets.boxes, other.targets.boxes)
        and torch.equal(one.targets.labels, other.targets.labels)
        and one.targets.counts == other.targets.counts
    )


# Order --------------------------------------------------------------------------------------------

sizes = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=60)


@settings(max_examples=40)
@given(sizes, st.integers(1, 9), st.integers(0, 2**31 - 1), st.integers(0, 40))
def test_an_order_can_be_entered_at_any_batch(shapes, batch_size: int, seed: int, start: int):
    split = Shapes(shapes)
    whole = first(EpochBatches(split, batch_size, seed), start + 7)
    assert first(EpochBatches(split, batch_size, seed, start), 7) == whole[start:]


@settings(max_examples=40)
@given(sizes, st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_an_epoch_has_every_image_at_most_once(shapes, batch_size: int, seed: int):
    batches = EpochBatches(Shapes(shapes), batch_size, seed)
    seen = first(batches, 2 * batches.batches_per_epoch)
    for epoch, part in enumerate((seen[: len(seen) // 2], seen[len(seen) // 2 :])):
        indices = [index for batch in part for _, index in batch]
        assert {each for batch in part for each, _ in batch} == {epoch}
        assert len(set(indices)) == len(indices)
        assert len(indices) > len(shapes) - batches.batch_size
        assert set(indices) <= set(range(len(shapes)))
        assert all(len(batch) == min(batch_size, len(shapes)) for batch in part)


def test_epochs_and_seeds_differ_and_every_image_gets_its_turn():
    split = Shapes([(10, 10)] * 50)
    batches = EpochBatches(split, 8, seed=1)
    assert batches.epoch(0).tolist() != batches.epoch(1).tolist()
    assert batches.epoch(0).tolist() != EpochBatches(split, 8, seed=2).epoch(0).tolist()
    assert set(np.concatenate([batches.epoch(epoch).ravel() for epoch in range(10)]).tolist()) == set(range(50))


def test_similar_shapes_share_a_batch():
    rng = np.random.default_rng(0)
    shapes = [((1200, 400), (640, 480), (500, 500), (480, 640), (300, 900))[i] for i in rng.integers(0, 5, 400)]
    grouped = EpochBatches(Shapes(shapes), 4, seed=0).epoch(0)
    by_chance = rng.permutation(400).reshape(-1, 4)

    def padding(batches: np.ndarray) -> float:
        scaled = np.array([(w / min(w, h), h / min(w, h)) for w, h in shapes])[batches]
        return float(np.prod(scaled.max(1), axis=-1).sum() * 4 / np.prod(scaled, axis=-1).sum() - 1)

    assert padding(grouped) < 0.1 * padding(by_chance)
    assert len({tuple(sorted(batch)) for batch in grouped.tolist()}) == 100
    wide_first = [shapes[batch[0]][0] / shapes[batch[0]][1] for batch in grouped.tolist()]
    assert wide_first != sorted(wide_first), "batches come in no order of shape"


def test_the_order_and_the_first_image_draw_different_numbers(split, monkeypatch):
    """numpy reads (seed, epoch) as (seed, epoch, 0): one stream for two purposes."""
    asked = []
    monkeypatch.setattr(data_module.np.random, "default_rng", _recording(asked))
    EpochBatches(split, 3, seed=7).epoch(2)
    TrainingSamples(split, SMALL, seed=7)[2, 0]
    states = [tuple(np.random.SeedSequence(entropy).generate_state(4)) for entropy in asked]
    assert len(set(states)) == len(asked) == 2


def _recording(asked: list[object]):
    make = np.random.default_rng

    def default_rng(entropy: object) -> np.random.Generator:
        asked.append(entropy)
        return make(entropy)

    return default_rng


# Content ------------------------------------------------------------------------------------------


def test_a_batch_is_padded_at_the_right_and_the_bottom():
    samples = [rectangles([(0, 0, 60, 30)], 60, 30), rectangles([], 40, 50), rectangles([(10, 20, 20, 40)], 20, 40)]
    batch = collate([(7, samples[0]), (3, samples[1]), (5, samples[2])])
    assert batch.images.shape == (3, 3, 50, 60)
    assert batch.images.dtype == torch.uint8
    assert batch.indices == (7, 3, 5)
    assert batch.targets.counts == (1, 0, 1)
    for row, sample in enumerate(samples):
        height, width = sample.image.shape[1:]
        assert torch.equal(batch.images[row, :, :height, :width], sample.image)
        assert not batch.padding_mask[row, :height, :width].any()
        assert batch.padding_mask[row].sum() == 50 * 60 - height * width
        assert not batch.images[row][:, batch.padding_mask[row]].any()
    # boxes are parts of their own image, not of the padded one
    assert batch.targets.boxes.tolist() == [[0.5, 0.5, 1, 1], [0.75, 0.75, 0.5, 0.5]]
    assert batch.targets.boxes.dtype == torch.float32


def test_equal_shapes_are_not_padded_and_empty_images_are_welcome():
    batch = collate([(0, rectangles([])), (1, rectangles([]))])
    assert batch.padding_mask is None
    assert batch.targets.boxes.shape == (0, 4)
    assert batch.targets.counts == (0, 0)
    assert len(batch.targets) == 0


def test_pixels_are_normalised_as_published_and_padding_is_zero():
    batch = collate([(0, rectangles([(5, 5, 20, 20)], 30, 40)), (1, rectangles([(0, 0, 9, 9)], 50, 20))])
    pixels = normalised(batch)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    mean, deviation = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    wanted = (batch.images[0, :, :40, :30] / 255 - mean) / deviation
    assert torch.equal(pixels[0, :, :40, :30], wanted)
    assert not pixels[0, :, :, 30:].any()
    assert not pixels[1, :, 20:].any()
    assert batch.images.dtype == torch.uint8, "the batch itself stays as it was"


def test_a_smaller_batch_has_the_same_boxes_on_two_thirds_of_the_pixels():
    samples = [rectangles([(24, 48, 120, 96)], 144, 96), rectangles([], 96, 144)]
    batch = collate([(4, samples[0]), (9, samples[1])])
    small = batch.smaller()
    assert small.images.shape == (2, 3, 96, 96)
    assert small.images.dtype == torch.uint8
    assert (small.targets, small.indices) == (batch.targets, batch.indices)
    assert not small.padding_mask[0, :64].any()
    assert small.padding_mask[0, 64:].all()
    inside, background = small.images[0, :, 34:62, 18:78], small.images[0, :, :30, :96]
    assert torch.equal(inside, samples[0].image[:, 50:52, 30:32].amax((1, 2))[:, None, None].expand_as(inside))
    assert torch.equal(background, samples[0].image[:, :2, :2].amax((1, 2))[:, None, None].expand_as(background))


@pytest.mark.parametrize(("side", "wanted"), [(40, 40), (64, 64), (96, 64), (240, 160), (320, 224), (640, 416)])
def test_smaller_images_have_whole_strides_and_at_least_64_pixels(side: int, wanted: int):
    assert collate([(0, rectangles([], side, side))]).smaller().images.shape == (1, 3, wanted, wanted)


# Chance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["published", "affine"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_do_not_change_a_single_byte(split, recipe: str):
    settings = SMALL.model_copy(
        update={"augmentation": Augmentation(recipe=recipe, contrast=0.4, brightness=0.3, saturation=0.3)}
    )
    found = []
    for workers, cache in ((0, False), (2, False), (2, True), (0, True)):
        chosen = settings.model_copy(update={"workers": workers, "cache": cache})
        samples = TrainingSamples(split, chosen, seed=5)
        found.append(list(itertools.islice(training_loader(samples, EpochBatches(split, 3, 5), CPU), 6)))
    without_cache, with_cache = found[:2], found[2:]
    for one, other in (without_cache, with_cache):
        assert all(map(same, one, other))


def test_the_number_of_threads_does_not_change_a_single_byte(split):
    settings = SMALL.model_copy(
        update={"min_sizes": (333,), "max_size": 900, "augmentation": Augmentation(recipe="affine", contrast=0.5)}
    )
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            samples = TrainingSamples(split, settings, seed=5)
            found.append([samples[0, index][1].image for index in range(4)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_a_sample_depends_on_seed_epoch_and_index_alone(split, mosaic: float):
    data = SMALL.model_copy(update={"augmentation": Augmentation(recipe="affine", mosaic=mosaic)})
    samples, again = TrainingSamples(split, data, seed=5), TrainingSamples(split, data, seed=5)
    late = again[9, 2][1]
    early = samples[9, 2][1]
    assert torch.equal(early.image, late.image)
    assert not torch.equal(samples[8, 2][1].image, early.image)
    other = TrainingSamples(split, data, seed=6)[9, 2][1]
    assert other.image.shape != early.image.shape or not torch.equal(other.image, early.image)


# Cache --------------------------------------------------------------------------------------------


def test_the_cache_holds_what_a_resize_gives(split):
    reduced = ReducedImages(split, 50, 70)
    reduced.fill()
    for index in range(len(split)):
        wanted = resize(read_sample(split, index), 50, 70)
        if wanted.image.numel() >= read_sample(split, index).image.numel():
            wanted = read_sample(split, index)
        assert torch.equal(reduced[index].image, wanted.image)
        assert torch.allclose(reduced[index].boxes, wanted.boxes)
        assert torch.equal(reduced[index].labels, wanted.labels)
    assert reduced.size_bytes == sum(reduced[index].image.numel() for index in range(len(split)))


def test_the_cache_is_fine_enough_for_the_strongest_zoom(split):
    settings = SMALL.model_copy(update={"cache": True, "min_sizes": (20,), "max_size": 30})
    cache = TrainingSamples(split, settings, seed=1).cache
    assert cache is not None
    widest, height = split.images[0].width, split.images[0].height
    zoom = settings.augmentation.scale[1] * (1 + settings.augmentation.aspect) ** 0.5
    assert cache[0].image.shape[2] * height / widest >= 20 * zoom * 0.99
    assert cache[0].image.shape[2] < widest


def test_a_set_too_large_for_memory_is_read_each_time(split, monkeypatch):
    monkeypatch.setattr(data_module, "CACHE_LIMIT_BYTES", 1000)
    cached = SMALL.model_copy(update={"cache": True})
    assert TrainingSamples(split, cached, seed=1).cache is None
    assert EvaluationSamples(split, cached).kept is None


def test_samples_can_be_sent_to_processes_that_do_not_fork(split):
    samples = TrainingSamples(split, SMALL.model_copy(update={"cache": True}), seed=1)
    copy = pickle.loads(pickle.dumps(samples))
    assert torch.equal(copy[3, 1][1].image, samples[3, 1][1].image)


# Evaluation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("cache", [False, True])
def test_evaluation_sees_every_image_once_without_padding_or_chance(split, batch_size: int, cache: bool):
    samples = EvaluationSamples(split, SMALL.model_copy(update={"cache": cache}))
    for _ in range(2):
        batches = list(evaluation_loader(samples, batch_size, CPU))
        assert sorted(index for batch in batches for index in batch.indices) == list(range(len(split)))
        assert max(len(batch.indices) for batch in batches) <= batch_size
        for batch in batches:
            assert batch.padding_mask is None
            for row, index in enumerate(batch.indices):
                assert torch.equal(batch.images[row], resize(read_sample(split, index), 64, 96).image)


@pytest.mark.parametrize("cache", [False, True])
def test_with_square_all_images_have_one_shape(split, cache: bool):
    square = SMALL.model_copy(update={"square": True, "eval_size": 64, "min_sizes": (64,), "cache": cache})
    batches = list(evaluation_loader(EvaluationSamples(split, square), 4, CPU))
    assert len(batches) == -(-len(split) // 4)
    assert {tuple(batch.images.shape[1:]) for batch in batches} == {(3, 64, 64)}
    samples = TrainingSamples(split, square, 1)
    assert {tuple(samples[0, index][1].image.shape) for index in range(4)} == {(3, 64, 64)}
    assert largest_canvas(split, square) == (64, 64)


def test_batches_of_equal_shape_are_few():
    split = Shapes([(96, 64), (64, 96)] * 10 + [(192, 128)] * 3)
    batches = equal_shape_batches(split, SMALL, 4)
    assert sorted(index for batch in batches for index in batch) == list(range(23))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1, 4, 4, 2], "(192, 128) becomes (96, 64) too"


def test_workers_are_for_gpus():
    assert worker_count(Data(), CPU) == 0
    assert 1 <= worker_count(Data(), torch.device("cuda")) <= 8
    assert worker_count(Data(workers=3), CPU) == 3


def test_a_read_sample_does_not_share_memory_with_the_split(split):
    sample: Sample = read_sample(split, 0)
    sample.boxes.zero_()
    sample.labels.fill_(9)
    assert read_sample(split, 0).boxes.any()
    assert (read_sample(split, 0).labels < 2).all()
