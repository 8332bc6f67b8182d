"""Which split a subset is for, by the usual spellings of its name: `train2017`, `Validation`, `test_set`."""

import re

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "minival"),
    "test": ("test", "testing", "tst"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
# Words that say nothing about the split. Anything else may be a name in which "test" means something different.
_NEUTRAL = frozenset(
    ("set", "sets", "data", "dataset", "split", "subset", "images", "image", "imgs", "img", "coco", "instances", "the")
)
_CHINESE = {
    f"{word}{end}": split
    for word, split in (("训练", "train"), ("验证", "val"), ("测试", "test"))
    for end in ("", "集", "数据", "数据集")
}
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_GLUED = re.compile(r"(?P<word>[a-z]+?)(?P<rest>set|data|dataset|split|images)")


def split_of_subset(name: str) -> str | None:
    """`train`, `val` or `test`, or None if the name is not a usual one."""
    if name in _CHINESE:
        return _CHINESE[name]
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    words: list[str] = []
    for token in tokens:
        glued = _GLUED.fullmatch(token)
        words += [glued["word"], glued["rest"]] if glued and glued["word"] in _SPLIT_OF else [token]
    splits = [_SPLIT_OF[word] for word in words if word in _SPLIT_OF]
    others = [word for word in words if word not in _SPLIT_OF and word not in _NEUTRAL and not word.isdigit()]
    if "test" in splits and "dev" in words:  # COCO's test-dev2017
        splits = ["test"]
    return splits[0] if len(set(splits)) == 1 and not others and name.isascii() else None
