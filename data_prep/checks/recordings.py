"""Which images are frames of one recording, learnt from their names and from how much neighbours look alike.

Photos have counters in their names too. They are frames of a recording only if neighbours by number look more alike
than other pairs.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median

import numpy as np

from data_prep.checks.originals import find_originals, stem_of

ALIKE_BITS = 28
"""Bits of 256: images whose difference hashes differ in at most this many look the same to a person.

Measured: neighbours in a slow pan (2 % of the width per frame) differ in 15 to 30 bits, unrelated photos in 90 to 150.
"""
LEAST_FRAMES = 6
_NEIGHBOURS, _CUT = 0.75, 0.85
"""Neighbours in a recording differ by less than this share of what other pairs differ by; a larger step is a cut."""
_LEAST_IN_SERIES = 3

# How CVAT names the frames of a video.
_VIDEO_FRAME = re.compile(r"frame_\d{6,}")
_VIDEO_FRAME_AFTER = re.compile(r"(?P<before>(?:.*_)?)frame_(?P<number>\d{6,18})")
# CVAT appends a number to the second image of the same name in a project.
_RENAMED = re.compile(r"(?P<stem>.*\d)_(?P<copy>\d{1,3})")
# The last number counts: "2026-05-01_cam2_000123" is number 123.
_COUNTER = re.compile(r"(?P<prefix>.*?)(?P<number>\d{1,18})(?P<suffix>\D*)")


@dataclass(frozen=True, slots=True)
class Frame:
    """What an image's name and neighbours say about its origin."""

    series: str
    """The same for images whose names differ only in a counter. Track ids are only comparable within it."""
    recording: str | None
    """The same for frames of one recording. None for a single image."""
    original: str | None
    """The same for images that were made of one picture."""
    order: str
    """Sorts frames of a recording by their number."""


def find_frames(names: Sequence[str], looks: Sequence[bytes]) -> list[Frame]:
    """A Frame for each image of one subset. `looks` are their difference hashes, empty for images without contrast."""
    known = frozenset(names)
    series: dict[str, list[tuple[int, int]]] = defaultdict(list)
    parsed = [_parse(name, known) for name in names]
    originals = find_originals(names)
    for index, (key, number) in enumerate(parsed):
        series[key].append((number, index))
    frames: list[Frame | None] = [None] * len(names)
    for key, members in series.items():
        members.sort()
        own = [index for _, index in members]
        folder = str(PurePosixPath(names[own[0]]).parent)
        is_video = "frame_" in key and all(_VIDEO_FRAME.match(PurePosixPath(names[index]).stem) for index in own)
        parts = [0] * len(own) if is_video else _recordings([looks[index] for index in own])
        scope = key if len(own) >= _LEAST_IN_SERIES else folder
        for (number, index), part in zip(members, parts, strict=True):
            plain = part is None or (is_video and key.endswith("#"))
            frames[index] = Frame(
                scope,
                None if part is None else folder if plain else f"{key}|{part}",
                originals[index],
                names[index] if plain else f"{key}/{number:020}",
            )
    return [frame for frame in frames if frame is not None]


def frames_between(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of `names` that are frames of a video directly before or after a frame of `others`, by their numbers.

    Only names like CVAT's, such as `cam1_frame_000012`: photographs have numbers that follow each other too.
    """
    known = {place for name in others if (place := _video_frame(name)) is not None}
    found: list[str] = []
    for name in names:
        place = _video_frame(name)
        if place is not None and place not in known:
            series, number = place
            if (series, number - 1) in known or (series, number + 1) in known:
                found.append(name)
    return found


def _video_frame(name: str) -> tuple[str, int] | None:
    """The video and the number of a frame, if the name says them."""
    match = _VIDEO_FRAME_AFTER.fullmatch(PurePosixPath(name).stem)
    return (f"{PurePosixPath(name).parent}/{match['before']}", int(match["number"])) if match else None


def _parse(name: str, names: AbstractSet[str]) -> tuple[str, int]:
    """The series, and the number in it."""
    folder, _, base = name.rpartition("/")
    dot, suffix = base.rpartition(".")[1:]
    stem, copy = stem_of(name).rpartition("/")[2], ""
    renamed = _RENAMED.fullmatch(stem)
    if renamed and (_VIDEO_FRAME.fullmatch(renamed["stem"]) or _beside(name, renamed["stem"] + dot + suffix) in names):
        stem, copy = renamed["stem"], renamed["copy"]
    counter = _COUNTER.fullmatch(stem)
    if not counter:
        return f"{folder}/", 0
    series = f"{folder}/{counter['prefix']}#{counter['suffix']}"
    return series + (f"~{copy}" if copy else ""), int(counter["number"])


def _beside(name: str, base: str) -> str:
    """The path of a file in the same folder."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash + base


def _recordings(looks: Sequence[bytes]) -> Sequence[int | None]:
    """For each image, in the order of their numbers: the number of its recording, or None if they are single images."""
    nothing: Sequence[int | None] = [None] * len(looks)
    if len(looks) < LEAST_FRAMES or not all(looks):  # too few to tell, or images without contrast
        return nothing
    hashes = np.frombuffer(b"".join(looks), np.uint64).reshape(len(looks), -1)
    steps = np.bitwise_count(hashes[1:] ^ hashes[:-1]).sum(axis=1)
    half = len(looks) // 2
    usual = float(median(np.bitwise_count(hashes[half:] ^ hashes[: len(looks) - half]).sum(axis=1).tolist()))
    if median(steps.tolist()) > max(ALIKE_BITS, _NEIGHBOURS * usual):
        return nothing
    return [0, *np.cumsum(steps > max(ALIKE_BITS, _CUT * usual)).tolist()]
