"""Class ids that are counted from 0 in one place and from 1 in another."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import chain

from run_config.wording import shortened


def explain_shift(classes: Mapping[str, AbstractSet[int]], used: AbstractSet[int], unlisted: Mapping[int, int]) -> str:
    """A sentence if all ids of the annotations would be listed when they were shifted by one; otherwise empty.

    `classes`: name → listed ids; `used`: listed ids with annotations; `unlisted`: other ids → number of annotations.
    """
    listed = frozenset(chain.from_iterable(classes.values()))
    if not unlisted or not listed:
        return _explain_background(classes, used, listed)
    for shift in (1, -1):
        if all(one - shift in listed for one in chain(used, unlisted)):
            unused = sorted(repr(name) for name, ids in classes.items() if not ids & used)
            strange = shortened([f"{one} ({count:,} boxes)" for one, count in sorted(unlisted.items())], 3)
            return (
                f"the annotations' class ids are {'higher' if shift > 0 else 'lower'} by 1 than the listed ones: "
                f"id {strange} is not listed, and no box has the class {shortened(unused, 3)}. "
                "Every box would get the wrong class; count ids from the same number in both places and export again"
            )
    return ""


def _explain_background(
    classes: Mapping[str, AbstractSet[int]], used: AbstractSet[int], listed: AbstractSet[int]
) -> str:
    """A sentence if a class called background has boxes, and all classes would fit with ids that are higher by one."""
    background = next((name for name in classes if name.casefold().strip("_ ") == "background"), "")
    idle = sorted(repr(name) for name, ids in classes.items() if not ids & used)
    if not background or not classes[background] & used or not idle or not {one + 1 for one in used} <= listed:
        return ""
    return (
        f"the class {background!r} has boxes, and {shortened(idle, 3)} has none: the annotations' class ids seem to be "
        "lower by 1 than the listed ones. Every box would get the wrong class; count ids from the same number in both "
        "places, or rename the class if people did draw it"
    )
