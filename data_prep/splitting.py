"""Choose the images to hold back for validation. Pure: the same images and seed give the same split.

Images that belong together stay together: identical files, frames of one video track, videos and, where
possible, folders. Every class stays in training. It also gets into validation if enough of it is left for
training; the same holds for images without boxes. When everything belongs together (one video), a block of
neighbouring images is held back, as the best remaining choice.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256

NO_BOXES = ""
"""Stands for "image without boxes" when labels are counted; no class can have this name."""
_BLOCK_STARTS = 32


@dataclass(frozen=True, slots=True)
class Item:
    """What splitting needs to know about an image."""

    name: str
    """Sorts neighbouring images: folder, then frame."""
    digest: str
    """Digest of the content. Order and seed use it, so that the split does not depend on where an image lies."""
    labels: frozenset[str]
    """Classes on the image; empty for an image without boxes."""
    ties: frozenset[Hashable]
    """Images that share a tie are never separated, unless all images are tied together."""
    folder: str = ""
    """Empty for an image outside any folder."""


@dataclass(frozen=True)
class HeldBack:
    """The chosen images, as indices into the items, and how they were chosen."""

    indices: frozenset[int]
    method: str
    """`folder`, `image`, `block` or `none`."""
    sentence: str


@dataclass(frozen=True, slots=True)
class _Group:
    digest: str
    members: tuple[int, ...]
    labels: Counter[str]
    """label → number of members with it"""


def hold_back(items: Sequence[Item], fraction: float, seed: int) -> HeldBack:
    """Choose about `fraction` of the items for validation."""
    if fraction <= 0 or len(items) < 2:
        return HeldBack(frozenset(), "none", "No validation images were held back.")
    wanted = max(1, round(len(items) * fraction))
    singles = _choose(_group(items, [frozenset()] * len(items)), fraction, seed)
    tied = _choose(_group(items, [item.ties for item in items]), fraction, seed)
    # Groups may make the share too small or too large. Protecting classes may do so too; that is accepted.
    least, most = min(wanted, len(singles)), max(2 * wanted, len(singles) * 3 // 2)

    def fits(chosen: frozenset[int]) -> bool:
        return bool(chosen) and 2 * len(chosen) >= least and len(chosen) <= most

    if len({item.folder for item in items}) > 1:
        ties = [item.ties | {("folder", item.folder)} if item.folder else item.ties for item in items]
        by_folder = _choose(_group(items, ties), fraction, seed)
        if fits(by_folder) and _labels(items, by_folder) >= _labels(items, tied):
            return HeldBack(by_folder, "folder", "Images of one folder or video track were kept together.")
    if fits(tied):
        return HeldBack(tied, "image", "Images were drawn one by one; identical ones and video tracks together.")
    return HeldBack(
        _choose_block(items, wanted, seed),
        "block",
        "A block of neighbouring images was held back, because the images belong together (one video, or too "
        "few groups): validation results look better than they will on new footage.",
    )


def _labels(items: Sequence[Item], chosen: frozenset[int]) -> set[str]:
    return {label for index in chosen for label in items[index].labels or {NO_BOXES}}


def _group(items: Sequence[Item], ties: Sequence[frozenset[Hashable]]) -> list[_Group]:
    """Join items that share a tie, directly or through other items."""
    parent = list(range(len(items)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[Hashable, int] = {}
    for index, own in enumerate(ties):
        for tie in own:
            parent[find(index)] = find(first_with.setdefault(tie, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(items)):
        members[find(index)].append(index)
    # Most groups have one member and few kinds of labels: they share their counters.
    of_one = {labels: Counter(labels or {NO_BOXES}) for labels in {item.labels for item in items}}
    return [
        _Group(
            min(items[index].digest for index in own),
            tuple(own),
            of_one[items[own[0]].labels]
            if len(own) == 1
            else Counter(label for index in own for label in items[index].labels or {NO_BOXES}),
        )
        for own in members.values()
    ]


def _choose(groups: list[_Group], fraction: float, seed: int) -> frozenset[int]:
    """Starting with the rarest label, take groups until each label has its share; never take a label's last group."""
    groups = sorted(groups, key=lambda group: sha256(f"{seed}:{group.digest}".encode()).digest())
    having: dict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        for label in group.labels:
            having[label].append(position)
    total = {label: sum(groups[p].labels[label] for p in own) for label, own in having.items()}
    left = {label: len(own) for label, own in having.items()}
    held: Counter[str] = Counter()
    chosen: set[int] = set()

    def take(position: int) -> None:
        chosen.add(position)
        held.update(groups[position].labels)
        left.update({label: left[label] - 1 for label in groups[position].labels})

    for label in sorted(having, key=lambda label: (len(having[label]), label)):
        want = total[label] * fraction
        for position in having[label]:
            missing = want - held[label]
            if missing <= 0:
                break
            free = position not in chosen and all(left[other] > 1 for other in groups[position].labels)
            if free and groups[position].labels[label] <= 2 * missing:
                take(position)
        if not held[label]:
            # Every group with this label is larger than the label's share: the smallest group is better than none.
            free_ones = [
                position for position in having[label] if all(left[other] > 1 for other in groups[position].labels)
            ]
            if free_ones:
                take(min(free_ones, key=lambda position: groups[position].labels[label]))
    return frozenset(index for position in chosen for index in groups[position].members)


def _choose_block(items: Sequence[Item], wanted: int, seed: int) -> frozenset[int]:
    """Neighbours by name. The start that leaves most classes in training wins, then the block with most classes."""
    order = sorted(range(len(items)), key=lambda index: (items[index].name, items[index].digest))
    last_start = len(items) - wanted
    starts = sorted({last_start * step // (_BLOCK_STARTS - 1) for step in range(_BLOCK_STARTS)})
    starts.sort(key=lambda start: sha256(f"{seed}:{start}".encode()).digest())

    def merit(start: int) -> tuple[int, int]:
        block = frozenset(order[start : start + wanted])
        rest = frozenset(order) - block
        return len(_labels(items, rest)), len(_labels(items, block))

    best = max(starts, key=merit)  # max takes the first of equals, so the seed decides
    return frozenset(order[best : best + wanted])
