"""What a file is that was saved by mistake in place of another one, from its first bytes."""

NEEDED_BYTES = 512
"""How many bytes of the file's start are enough."""

_MARK = b"\xef\xbb\xbf"
"""Of UTF-8."""
_POINTERS = (b"version https://git-lfs",)
_PAGES = (b"<!doctype html", b"<html")


def saved_by_mistake(start: bytes, *, binary: bool) -> str:
    """What a file that begins with `start` is, and what to do about it; "" if nothing is known.

    binary: the right file is no text.
    """
    if not start:
        return "it is empty: download or export it again"
    start = start[:NEEDED_BYTES].removeprefix(_MARK).lstrip().lower()
    if start.startswith(_POINTERS):
        return "it is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`"
    if start.startswith(_PAGES):
        return "it is a web page, as servers send when they refuse a download: download the file itself"
    if binary and start.startswith(b"<"):
        return "it is a text with tags, such as SVG, or a server's refusal of a download: get the file itself"
    return ""
