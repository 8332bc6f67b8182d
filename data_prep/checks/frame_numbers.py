"""Frames that are counted from 0 in one place and from 1 in another."""

from collections.abc import Collection

from data_prep.errors import AnnotationError


def refuse_shifted_frames(
    images: Collection[int], annotated: Collection[int], where: str, which: str, least_share: float = 0.5
) -> None:
    """Raise AnnotationError if every annotated frame has an image only after its number is moved by one.

    `images`: numbers of the frames that are there; `annotated`: those with boxes; `which`: the images, for the message.
    `least_share`: of the images, as many must be annotated; fewer boxes on missing frames look the same.
    """
    there = set(images)
    if set(annotated) <= there or len(annotated) < max(3, least_share * len(there)):
        return
    for shift in (1, -1):
        if {one + shift for one in annotated} <= there:
            raise AnnotationError(
                f"{where} counts frames from {min(annotated)} to {max(annotated)}, and {which} are numbered from "
                f"{min(there)} to {max(there)}: every box would be on the neighbour of its frame. Number the images so "
                "that both agree, and pack the export again"
            )
