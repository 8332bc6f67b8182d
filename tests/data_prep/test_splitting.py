"""What is held back: by seed, by group, with every class on both sides where it can be."""

from collections import defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.checks.originals import find_originals, shared_originals
from data_prep.splitting import Item, hold_back


def item(number: int, labels: set[str], ties: set[str] | None = None, folder: str = "") -> Item:
    return Item(f"{folder}/{number:05}", f"{number:064x}", frozenset(labels), frozenset(ties or set()), folder)


LABELS = st.sets(st.sampled_from("abcde"), max_size=3)
SINGLES = st.lists(LABELS, min_size=2, max_size=60).map(lambda all_: [item(n, labels) for n, labels in enumerate(all_)])
GROUPED = st.lists(st.tuples(LABELS, st.integers(0, 12), st.integers(0, 3)), min_size=2, max_size=60).map(
    lambda all_: [item(n, labels, {f"track {t}"}, f"f{f}" if f else "") for n, (labels, t, f) in enumerate(all_)]
)
FRACTION = st.floats(0.02, 0.5)
SEED = st.integers(0, 1000)


def labels_of(items: list[Item]) -> set[str]:
    """The classes, and an empty text when some image has none."""
    return {label for one in items for label in one.labels or {""}}


def halves(items: list[Item], chosen: frozenset[int]) -> tuple[list[Item], list[Item]]:
    return [one for i, one in enumerate(items) if i not in chosen], [items[i] for i in chosen]


@given(GROUPED, FRACTION, SEED, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_images(items: list[Item], fraction: float, seed: int, random):
    shuffled = items.copy()
    random.shuffle(shuffled)
    first = {items[i].digest for i in hold_back(items, fraction, seed).indices}
    assert first == {shuffled[i].digest for i in hold_back(shuffled, fraction, seed).indices}


@given(GROUPED, FRACTION, SEED)
def test_something_is_held_back_and_something_is_left(items: list[Item], fraction: float, seed: int):
    chosen = hold_back(items, fraction, seed).indices
    assert 0 < len(chosen) < len(items)


@given(GROUPED, FRACTION, SEED)
def test_images_with_a_tie_in_common_stay_together(items: list[Item], fraction: float, seed: int):
    held = hold_back(items, fraction, seed)
    train, val = halves(items, held.indices)
    if held.method != "block":
        assert not {tie for one in train for tie in one.ties} & {tie for one in val for tie in one.ties}
    if held.method == "folder":
        assert not {one.folder for one in train} & {one.folder for one in val} - {""}


@given(SINGLES, FRACTION, SEED)
def test_no_class_leaves_training(items: list[Item], fraction: float, seed: int):
    held = hold_back(items, fraction, seed)
    if held.method == "image":
        train, _ = halves(items, held.indices)
        assert labels_of(train) == labels_of(items)


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=2, max_size=80), FRACTION, SEED)
@example(["a", "a", "a", "b", "c", ""], 0.4375, 0)
def test_each_class_with_two_images_and_empty_images_are_on_both_sides(names: list[str], fraction: float, seed: int):
    items = [item(n, {name} - {""}) for n, name in enumerate(names)]
    train, val = halves(items, hold_back(items, fraction, seed).indices)
    both = {name for name in names if names.count(name) >= 2}
    if both:
        assert both <= labels_of(val)
        assert set(names) == labels_of(train)


@given(st.integers(40, 300), FRACTION, SEED)
def test_about_the_wanted_share_is_held_back(count: int, fraction: float, seed: int):
    items = [item(n, {"a"} if n % 3 else {"a", "b"}) for n in range(count)]
    chosen = hold_back(items, fraction, seed).indices
    assert abs(len(chosen) - fraction * count) <= max(2, 0.1 * count * fraction)


def test_another_seed_holds_back_other_images():
    items = [item(n, {"a"}) for n in range(200)]
    choices = {hold_back(items, 0.15, seed).indices for seed in range(5)}
    assert len(choices) == 5


def test_more_images_later_do_not_shuffle_the_old_ones():
    items = [item(n, {"a"}) for n in range(200)]
    before = hold_back(items[:180], 0.15, 0).indices
    after = hold_back(items, 0.15, 0).indices
    assert len(before & after) >= 0.8 * len(before)


def test_folders_stay_together_when_there_are_enough_of_them():
    items = [item(n, {"a", "b"}, folder=f"day {n // 10}") for n in range(120)]
    held = hold_back(items, 0.15, 0)
    assert held.method == "folder"
    sides = defaultdict(set)
    for index, one in enumerate(items):
        sides[one.folder].add(index in held.indices)
    assert all(len(side) == 1 for side in sides.values())
    assert 10 <= len(held.indices) <= 36


def test_one_folder_for_everything_is_no_reason_to_take_a_block():
    held = hold_back([item(n, {"a"}, folder="photos") for n in range(100)], 0.15, 0)
    assert held.method == "image"


def test_a_folder_that_holds_a_class_alone_does_not_take_it_away():
    items = [item(n, {"a"}, folder="left") for n in range(50)]
    items += [item(n, {"b"}, folder="right") for n in range(50, 100)]
    held = hold_back(items, 0.15, 0)
    train, val = halves(items, held.indices)
    assert held.method == "image"
    assert labels_of(train) == labels_of(val) == {"a", "b"}


def test_of_one_long_video_a_block_of_neighbours_is_held_back():
    items = [item(n, {"a"}, {"video"}) for n in range(100)]
    held = hold_back(items, 0.15, 3)
    frames = sorted(held.indices)
    assert held.method == "block"
    assert frames == list(range(frames[0], frames[0] + 15))
    assert "video" in held.sentence


def test_the_block_is_where_classes_stay_in_training():
    # The rare class is in the first ten frames only: a block there would take it away.
    items = [item(n, {"a", "rare"} if n < 10 else {"a"}, {"video"}) for n in range(100)]
    for seed in range(10):
        train, _ = halves(items, hold_back(items, 0.2, seed).indices)
        assert "rare" in labels_of(train)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.15), (10, 0.0)])
def test_nothing_is_held_back_when_nothing_can_be(count: int, fraction: float):
    held = hold_back([item(n, {"a"}) for n in range(count)], fraction, 0)
    assert held.indices == frozenset()
    assert held.method == "none"


def test_many_images_and_classes_are_split_at_their_share():
    items = [item(n, {f"class {n % 80}", f"class {n % 7}"}) for n in range(30_000)]
    assert len(hold_back(items, 0.15, 0).indices) == pytest.approx(4_500, rel=0.05)


TILES = [f"{x}_{y}" for y in (0, 512) for x in (0, 512, 1024, 1360)]


@pytest.mark.parametrize(
    "names",
    [
        ["a_jpg.rf.0a1b.jpg", "a_jpg.rf.2c3d.jpg"],
        ["a.png", "a_hflip.png", "a_vflip.png", "a_rot90.png", "a_hflip_aug_2.png", "a-bright.jpg"],
        ["cam/left_001096.png", "cam/right_001096.png"],
        ["left/001096.png", "right/001096.png"],
        [f"flight0_{tile}_{x + 640}_{y + 640}.png" for tile in TILES for x, y in [map(int, tile.split("_"))]],
        [f"site__{tile}.png" for tile in TILES],
        ["P0001__1__0___0.png", "P0001__1__0___824.png", "P0001__1__824___0.png", "P0001__1__824___824.png"],
    ],
)
def test_names_show_which_images_were_made_of_one_picture(names: list[str]):
    found = find_originals([*names, "other.png", "b_001.png"])
    assert len({*found[: len(names)]}) == 1
    assert found[0] is not None
    assert found[len(names) :] == [None, None]


@pytest.mark.parametrize(
    "names",
    [
        ["part_000.png", "part_001.png", "part_002.png"],
        ["a_hflip.png", "b_hflip.png", "rot90.png", "dark.png"],
        ["left_001.png", "left_002.png", "right_003.png", "brightness.png"],
        [f"shot_2024_{day}.png" for day in range(1, 20)],
        [f"plot_{row}_{column}.png" for row in range(3) for column in range(3)],
        [f"photo{number}_640_480.png" for number in range(9)],
        [f"day_{date}_{time}.png" for date in (20240501, 20240502) for time in (101500, 101600)],
    ],
)
def test_numbers_and_words_in_names_of_single_pictures_join_nothing(names: list[str]):
    assert find_originals(names) == [None] * len(names)


@pytest.mark.parametrize(
    ("held", "trained", "count"),
    [
        (["a_jpg.rf.1.jpg", "b_jpg.rf.2.jpg"], ["a_jpg.rf.3.jpg"], 1),
        (["val/a_hflip.png"], ["train/a.png"], 1),
        ([f"s_{tile}.png" for tile in TILES[:2]], [f"s_{tile}.png" for tile in TILES[2:]], 2),
        (["a.png", "b.png"], ["a.png", "a_hflip.png"], 0),  # the names begin anew in each split
        (["left_001.png"], ["right_001.png"], 0),  # may be two signs
        (["a.png"], ["b.png"], 0),
        ([f"tile_{x}_0.png" for x in range(0, 64_000, 32)], [f"tile_{x}_0.png" for x in range(0, 64_000, 32)], 0),
    ],
)
def test_two_splits_share_a_picture_by_their_names(held: list[str], trained: list[str], count: int):
    assert len(list(shared_originals(held, trained))) == count
