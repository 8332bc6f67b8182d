"""How much memory a JPEG 2000 file takes to decode.

OpenJPEG keeps a record per code-block, and the file decides how small the code-blocks are.
"""

import re

_CODING = re.compile(
    rb"\xff\x52\x00[\x0c-\x2d](?P<style>.)....(?P<levels>.)(?P<x>.)(?P<y>.)..(?P<precincts>.{0,33})", re.DOTALL
)
_COMPONENT = re.compile(
    rb"\xff\x53\x00[\x09-\x2a].(?P<style>.)(?P<levels>.)(?P<x>.)(?P<y>.)..(?P<precincts>.{0,33})", re.DOTALL
)
"""The markers COD and COC (ISO/IEC 15444-1, A.6.1 and A.6.2)."""

DECODED_BYTES = 28
"""Bytes per pixel of an image with four components: 32-bit numbers, and the pixels made from them."""
BLOCK_BYTES = 4 * 340
"""Bytes per code-block, for four components. Measured with blocks of 4, 8 and 16 pixels a side."""


def bytes_per_pixel(data: bytes) -> int:
    """Upper bound of the bytes per pixel, for the smallest code-blocks that any marker in the file declares."""
    found = [*_CODING.finditer(data), *_COMPONENT.finditer(data)]
    return DECODED_BYTES + round(BLOCK_BYTES * max(map(_blocks_per_pixel, found), default=0))


def _blocks_per_pixel(marker: re.Match[bytes]) -> float:
    levels = min(marker["levels"][0], 32)
    width, height = (min(marker[side][0], 8) + 2 for side in ("x", "y"))
    blocks = 0.0
    for level in range(levels + 1):
        largest_x = largest_y = 15
        if marker["style"][0] & 1:
            # A precinct limits the size of code-blocks; at the finer levels the limit is half as large.
            size = marker["precincts"][level] if level < len(marker["precincts"]) else 0
            largest_x, largest_y = (max(0, (size >> shift & 15) - (level > 0)) for shift in (0, 4))
        share = 4.0 ** (level - levels)
        blocks += share / 2 ** (min(width, largest_x) + min(height, largest_y))
    return blocks
