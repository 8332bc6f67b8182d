"""Class ids that are counted from 0 in one place and from 1 in another."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain

from data_prep.checks.box_parts import LEAST_CASES
from run_config.wording import shortened


def explain_shift(
    classes: Mapping[str, AbstractSet[int]], used: AbstractSet[int], unlisted: Mapping[int, int], parent: str = ""
) -> str:
    """A sentence if all ids of the annotations would be listed when they were shifted by one; otherwise empty.

    `classes`: name → listed ids; `used`: listed ids with annotations; `unlisted`: other ids → number of annotations;
    `parent`: the class that all others name as their parent.
    """
    listed = frozenset(chain.from_iterable(classes.values()))
    if not unlisted or not listed:
        return _explain_background(classes, used, listed, parent)
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


def about_moved_splits(
    classes: Mapping[str, AbstractSet[int]], boxes: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    """A warning if val or test uses exactly the class ids of training after they are moved by one.

    `classes`: name → listed ids; `boxes`: split → class name → number of boxes.
    """
    if any(len(ids) != 1 for ids in classes.values()):
        return
    used = {split: {one for name in own for one in classes[name]} for split, own in boxes.items()}
    for split in ("val", "test"):
        if any(sum(boxes.get(one, {}).values()) < LEAST_CASES for one in ("train", split)):
            continue
        for shift, word in ((-1, "lower"), (1, "higher")):
            if used[split] == {one + shift for one in used["train"]}:
                mine, theirs = (shortened([str(one) for one in sorted(used[one])]) for one in (split, "train"))
                yield (
                    f"The class ids of {split} ({mine}) are those of train ({theirs}), {word} by 1: if they were "
                    f"counted from another number, every box of {split} has the wrong class."
                )


def _explain_background(
    classes: Mapping[str, AbstractSet[int]], used: AbstractSet[int], listed: AbstractSet[int], parent: str
) -> str:
    """A sentence if a class that is no object has boxes, and all classes would fit with ids that are higher by one.

    That is a class called background, or the parent of all others.
    """
    background = next((name for name in classes if name.casefold().strip("_ ") == "background"), "")
    name = background or (parent if parent in classes else "")
    idle = sorted(repr(one) for one, ids in classes.items() if not ids & used)
    if not name or not classes[name] & used or not idle or not {one + 1 for one in used} <= listed:
        return ""
    way = "rename the class" if background else "remove it as the supercategory of the others"
    return (
        f"the class {name!r} {'' if background else 'is the supercategory of all others and '}has boxes, and "
        f"{shortened(idle, 3)} has none: the annotations' class ids seem to be lower by 1 than the listed ones. Every "
        f"box would get the wrong class; count ids from the same number in both places, or {way} if people did draw it"
    )
