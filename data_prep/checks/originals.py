"""Which images were made of one picture, by their names: copies, tiles, and the two pictures of a stereo camera."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import gcd

from data_prep.checks.subset_names import split_of_subset

# Roboflow appends the old extension and a hash: scene_jpg.rf.0123abcd.jpg.
_ROBOFLOW = re.compile(r"(?P<stem>.+?)(_(jpe?g|png|bmp|webp|tiff?))?\.rf\.[0-9A-Za-z]+")
_COPY = re.compile(
    r"(?i)(?P<stem>.*[^_-])[_-]+(?:[hv]{0,2}_?flip(?:ped)?(?:_?[a-z]{1,2})?|mirror(?:ed)?|rot(?:at(?:ed|ion|e))?_?\d*"
    r"|aug(?:mented)?_?\d*|bright(?:ness|er)?\d*|dark(?:er)?\d*|blur(?:red)?\d*|nois[ey]\d*|gr[ae]y(?:scale)?)"
)
# name_x_y_right_bottom, as SAHI writes it, or name_x_y, in pixels.
_TILES = tuple(re.compile(rf"(?P<base>.*[^_-])[_-]+{'_+'.join([r'([0-9]{1,6})'] * count)}") for count in (4, 2))
_SIDE = re.compile(r"(?i)(?<![a-z])(?:left|right)(?![a-z])")
_LEAST_STEP_PX = 16
"""Smaller numbers count rows and columns, days or anything else."""
_LEAST_TILES = 4
_MOST_COPIES = 8
"""Endings of a name that are looked at: a name may be long."""


def stem_of(name: str) -> str:
    """The name without its extension, and without what Roboflow appended."""
    folder, slash, stem = _split_name(name)
    match = _ROBOFLOW.fullmatch(stem) if ".rf." in stem else None
    return folder + slash + (match["stem"] if match else stem)


def _split_name(name: str) -> tuple[str, str, str]:
    folder, slash, base = name.rpartition("/")
    return folder, slash, base.rpartition(".")[0] or base


def is_of_roboflow(name: str) -> bool:
    """Whether Roboflow made the image, as one of several copies of a picture."""
    return _ROBOFLOW.fullmatch(_split_name(name)[2]) is not None


def find_originals(names: Sequence[str]) -> list[str | None]:
    """For each image the same text as for all others that were made of the same picture. None: nothing shows that."""
    stems = [stem_of(name) for name in names]
    is_copy = [is_of_roboflow(name) for name in names]
    known = frozenset(stems)
    keys = [_uncopied(stem, known) for stem in stems]
    tiles = _tiles(set(keys))
    keys = [tiles.get(key, key) for key in keys]
    pairs = _stereo_pairs(set(keys))
    keys = [pairs.get(key, key) for key in keys]
    members: dict[str, set[str]] = defaultdict(set)
    for key, stem in zip(keys, stems, strict=True):
        members[key].add(stem)
    return [key if len(members[key]) > 1 or copied else None for key, copied in zip(keys, is_copy, strict=True)]


def shared_originals(names: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a name and one of `others` that were made of one picture.

    A picture may have the same name as another one in a second split, so names that both have show nothing.
    """
    plain, plain_others = ([_without_split(name) for name in own] for own in (names, others))
    keys = find_originals([*plain, *plain_others])
    stems, other_stems = ([stem_of(name) for name in own] for own in (plain, plain_others))
    mine, theirs = frozenset(stems), frozenset(other_stems)
    copies: dict[str, list[str]] = defaultdict(list)
    by_key: dict[str, list[int]] = defaultdict(list)
    for index, (name, stem, key) in enumerate(zip(plain_others, other_stems, keys[len(names) :], strict=True)):
        if stem in mine:
            if is_of_roboflow(name):
                copies[stem].append(others[index])
        elif key is not None:
            by_key[key].append(index)
    for index, (name, stem, key) in enumerate(zip(plain, stems, keys[: len(names)], strict=True)):
        if stem in theirs:
            same = [other for other in copies[stem][:2] if other != names[index]] if is_of_roboflow(name) else []
            found = same[0] if same else None
        else:
            side = _SIDE.sub("", name)
            made = (other for other in by_key.get(key or "", ()) if _SIDE.sub("", plain_others[other]) != side)
            found = next((others[other] for other in made), None)
        if found is not None:
            yield names[index], found


def _without_split(name: str) -> str:
    """The name without folders that are named for a split."""
    *folders, base = name.split("/")
    return "/".join([*(folder for folder in folders if split_of_subset(folder) is None), base])


def _uncopied(stem: str, known: frozenset[str]) -> str:
    """The picture that a copy was made of by its name, if that is there."""
    found = stem
    for _ in range(_MOST_COPIES):
        match = _COPY.fullmatch(stem)
        if match is None:
            break
        stem = match["stem"]
        found = stem if stem in known else found
    return found


def _tiles(stems: Iterable[str]) -> dict[str, str]:
    """Tile → its picture, where the numbers in the names are places in a picture."""
    groups: dict[tuple[str, int], list[tuple[str, list[int]]]] = defaultdict(list)
    for stem in stems:
        for pattern in _TILES:
            match = pattern.fullmatch(stem)
            numbers = [int(one) for one in match.groups()[1:]] if match else []
            if match and (len(numbers) == 2 or _is_part(*numbers)):
                groups[match["base"], len(numbers)].append((stem, numbers))
                break
    found: dict[str, str] = {}
    for (base, numbers_each), own in groups.items():
        places = [numbers for _, numbers in own]
        are_tiles = numbers_each == 4 or (
            len(own) >= _LEAST_TILES and all(_is_grid({place[axis] for place in places}) for axis in (0, 1))
        )
        if are_tiles:
            found |= {stem: f"{base}_*" for stem, _ in own}
    return found


def _is_part(left: int, top: int, right: int, bottom: int) -> bool:
    return min(right - left, bottom - top) >= _LEAST_STEP_PX


def _is_grid(offsets: set[int]) -> bool:
    """Whether the numbers begin at 0 and have a step of some pixels; the last tile may end at the picture's edge."""
    first, *others = sorted(offsets)
    return first == 0 and (not others or gcd(*(others[:-1] or others)) >= _LEAST_STEP_PX)


def _stereo_pairs(stems: Iterable[str]) -> dict[str, str]:
    """Picture of the left or right camera → the same text for both, where both are there."""
    sides: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        if _SIDE.search(stem):
            sides[_SIDE.sub("*", stem)].append(stem)
    return {stem: key for key, own in sides.items() if len(own) > 1 for stem in own}
