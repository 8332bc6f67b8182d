"""Pictures of machine parts with their boxes, drawn by the sample's own code: real JPEGs, a model can learn them."""

import functools
import io

import numpy as np
from PIL import Image

from data_prep.sample.parts import SHAPES
from data_prep.sample.scene import draw_scene
from tests.cvat_double.world import Frame

LABELS = tuple(SHAPES)


@functools.cache
def drawn(seed: int, index: int) -> tuple[Frame, tuple[tuple[str, tuple[float, ...], bool], ...]]:
    """One image, and label, corners (xyxy) and occlusion of each part in it."""
    scene = draw_scene(np.random.default_rng([seed, 7, index]))
    jpeg = io.BytesIO()
    Image.fromarray(scene.pixels).save(jpeg, "JPEG", quality=88)
    height, width = scene.pixels.shape[:2]
    parts = tuple((part.label, tuple(float(c) for c in part.box), bool(part.occluded)) for part in scene.parts)
    return Frame(f"parts_{seed:02d}_{index:05d}.jpg", width, height, jpeg.getvalue()), parts


def blank(name: str, *, width: int = 16, height: int = 12) -> Frame:
    """A small grey PNG."""
    png = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(png, "PNG")
    return Frame(name, width, height, png.getvalue())
