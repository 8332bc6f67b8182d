"""One sample picture: parts on a table, seen from above by a slightly noisy camera, with their boxes.

The constants here decide how hard the pictures are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_prep.sample.parts import MATERIALS, SHAPES, Field, Light, Sprite, draw_part
from data_prep.sample.tables import TABLES, draw_table, noise

IMAGE_WIDTH, IMAGE_HEIGHT = 384, 288
EMPTY_SHARE = 0.07
"""Share of pictures without a part."""
PARTS_PER_IMAGE = (2, 14)
HALF_LENGTH_PX = (13.0, 62.0)
"""Half the long side of a part, from the smallest to the largest."""
SPREAD_OF_SIZES = 0.30
"""Spread of sizes in one picture, relative to the picture's typical size."""
TOUCHING_SHARE = 0.35
"""Share of parts that may lie on others."""
LEAST_VISIBLE = 0.45
"""Smallest share of a part that stays visible, whatever other parts and the frame hide."""
OCCLUDED_BELOW = 0.92
"""An annotator would tick "occluded" when less than this share is visible."""
LEAST_CONTRAST = 0.30
"""Smallest distance in RGB (0…1 each) between a material and the table."""
MATERIALS_PER_IMAGE = 3
CRUMBS = (0, 26)
"""Unlabelled specks and chips on the table."""
SENSOR_NOISE = (0.006, 0.020)
BLUR_PX = (0.35, 0.85)
PLACEMENT_TRIES = 30


@dataclass(frozen=True, slots=True)
class LabelledPart:
    """What an annotator would draw: the label and the whole part's box (xyxy pixels, clipped to the frame).

    `visible` is the share of the part that neither another part nor the frame hides.
    """

    label: str
    box: tuple[float, float, float, float]
    visible: float

    @property
    def occluded(self) -> bool:
        """Whether an annotator would tick "occluded"."""
        return self.visible < OCCLUDED_BELOW


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, 8-bit RGB (height, width, 3), and its parts in the order in which they were placed."""

    pixels: NDArray[np.uint8]
    parts: tuple[LabelledPart, ...]


@dataclass(slots=True)
class _Placed:
    label: str
    box: tuple[float, float, float, float]
    area: float
    visible: float


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw one picture with the random generator `rng`; the same random stream gives the same picture."""
    kind = str(rng.choice(list(TABLES)))
    canvas = draw_table(kind, IMAGE_HEIGHT, IMAGE_WIDTH, rng)
    light = Light.from_angles(rng.uniform(-2.9, -1.6), rng.uniform(0.75, 1.1))
    _scatter_crumbs(canvas, light, rng)
    placed: list[_Placed] = []
    if rng.random() >= EMPTY_SHARE:
        _lay_parts(canvas, placed, kind, light, rng)
    parts = tuple(LabelledPart(p.label, _cut_at_frame(p.box), p.visible / p.area) for p in placed)
    return Scene(_photographed(canvas, light, rng), parts)


def _lay_parts(canvas: Field, placed: list[_Placed], table: str, light: Light, rng: np.random.Generator) -> None:
    """Place parts one after the other, each on top of the earlier ones."""
    materials = _materials_that_show(table, rng)
    smallest, largest = HALF_LENGTH_PX
    typical = smallest * 1.15 * (largest / smallest / 1.3) ** rng.random()
    # No more parts than there is room for: nobody could label a heap.
    room = int(0.55 * IMAGE_WIDTH * IMAGE_HEIGHT / (2.6 * typical * typical))
    fewest, most = PARTS_PER_IMAGE
    count = int(rng.integers(fewest, max(fewest + 1, min(most, room) + 1)))
    owner = np.full(canvas.shape[:2], -1, np.int32)
    for _ in range(count):
        label = str(rng.choice(list(SHAPES)))
        size = typical * math.exp(rng.normal(0.0, SPREAD_OF_SIZES))
        half_length = min(max(size, smallest), largest)
        material = str(rng.choice(materials))
        angle = rng.uniform(0, 2 * math.pi)
        sprite = draw_part(label, material, half_length_px=half_length, angle=angle, light=light, rng=rng)
        corner = _find_place(sprite, owner, placed, rng)
        if corner is not None:
            _throw_shadow(canvas, sprite, corner, light)
            placed.append(_put_down(canvas, owner, placed, label=label, sprite=sprite, corner=corner))


def _materials_that_show(table: str, rng: np.random.Generator) -> list[str]:
    ground = np.array(TABLES[table].colour)
    clear = [
        name for name, colour in MATERIALS.items() if float(np.linalg.norm(np.array(colour) - ground)) >= LEAST_CONTRAST
    ]
    return [str(name) for name in rng.choice(clear, min(MATERIALS_PER_IMAGE, len(clear)), replace=False)]


def _find_place(
    sprite: Sprite, owner: NDArray[np.int32], placed: list[_Placed], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner (x, y) where neither the sprite nor a part below it is hidden too much, or None."""
    side = sprite.coverage.shape[0]
    mask = sprite.coverage >= 0.5
    area = float(mask.sum())
    may_touch = rng.random() < TOUCHING_SHARE
    overhang = side // 5
    for _ in range(PLACEMENT_TRIES):
        x = int(rng.integers(-overhang, max(IMAGE_WIDTH - side + overhang, 1 - overhang)))
        y = int(rng.integers(-overhang, max(IMAGE_HEIGHT - side + overhang, 1 - overhang)))
        rows, columns, sub_rows, sub_columns = _windows(x, y, side)
        inside = mask[sub_rows, sub_columns]
        if float(inside.sum()) < LEAST_VISIBLE * area:
            continue
        under = owner[rows, columns][inside]
        hidden = np.bincount(under[under >= 0], minlength=len(placed))
        if hidden.sum() and not may_touch:
            continue
        if all(p.visible - h >= LEAST_VISIBLE * p.area for p, h in zip(placed, hidden, strict=True)):
            return x, y
    return None


def _put_down(
    canvas: Field,
    owner: NDArray[np.int32],
    placed: list[_Placed],
    *,
    label: str,
    sprite: Sprite,
    corner: tuple[int, int],
) -> _Placed:
    """Paint the sprite, and subtract what it covers from the visible area of the parts below."""
    x, y = corner
    rows, columns, sub_rows, sub_columns = _windows(x, y, sprite.coverage.shape[0])
    coverage = sprite.coverage[sub_rows, sub_columns]
    inside = coverage >= 0.5
    under = owner[rows, columns][inside]
    for index, hidden in enumerate(np.bincount(under[under >= 0], minlength=len(placed))):
        placed[index].visible -= float(hidden)
    owner[rows, columns][inside] = len(placed)
    window = canvas[rows, columns]
    window += (sprite.colour[sub_rows, sub_columns] - window) * coverage[..., None]
    left, top, right, bottom = sprite.box
    whole = float((sprite.coverage >= 0.5).sum())
    return _Placed(label, (x + left, y + top, x + right, y + bottom), whole, float(inside.sum()))


def _throw_shadow(canvas: Field, sprite: Sprite, corner: tuple[int, int], light: Light) -> None:
    """Darken the contact area and a soft shadow away from the lamp."""
    reach = min(sprite.thickness_px, 14.0) * math.hypot(light.x, light.y) / light.z
    bearing = math.atan2(-light.y, -light.x)
    pad = math.ceil(reach) + 8
    padded = np.pad(sprite.coverage, pad)
    image = Image.fromarray((padded * 255).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(1.2 + 0.25 * reach))
    shift = (round(reach * math.cos(bearing)), round(reach * math.sin(bearing)))
    contact = image.filter(ImageFilter.GaussianBlur(2.0))
    for shadow, strength, (dx, dy) in ((blurred, 0.42, shift), (contact, 0.28, (0, 0))):
        field = np.asarray(shadow, np.float32) * np.float32(strength / 255)
        rows, columns, sub_rows, sub_columns = _windows(corner[0] - pad + dx, corner[1] - pad + dy, field.shape[0])
        canvas[rows, columns] *= 1.0 - field[sub_rows, sub_columns, None]


def _scatter_crumbs(canvas: Field, light: Light, rng: np.random.Generator) -> None:
    """Add specks and chips that are not labelled."""
    for _ in range(int(rng.integers(*CRUMBS))):
        size = int(rng.integers(3, 7))
        grown = noise(rng, 2 * size, 2 * size, size / 1.5, size / 1.5)
        axis = np.linspace(-1, 1, 2 * size, dtype=np.float32)
        coverage = np.clip((0.5 + 0.4 * grown - np.hypot(axis[:, None], axis[None, :])) * size, 0.0, 1.0)
        shade = np.float32(rng.choice([0.22, 0.45, 0.75]))
        colour = np.full((*coverage.shape, 3), shade, np.float32) * rng.uniform(0.85, 1.1, 3)
        sprite = Sprite(colour.astype(np.float32), coverage.astype(np.float32), (0, 0, 0, 0), 1.0)
        corner = (int(rng.integers(-size, IMAGE_WIDTH)), int(rng.integers(-size, IMAGE_HEIGHT)))
        _throw_shadow(canvas, sprite, corner, light)
        rows, columns, sub_rows, sub_columns = _windows(*corner, 2 * size)
        window = canvas[rows, columns]
        window += (sprite.colour[sub_rows, sub_columns] - window) * coverage[sub_rows, sub_columns, None]


def _photographed(canvas: Field, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Uneven lamp light, vignette, white balance, lens blur and sensor noise."""
    y = np.linspace(-1, 1, IMAGE_HEIGHT, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, IMAGE_WIDTH, dtype=np.float32)[None, :]
    lamp = 1.0 + rng.uniform(0.04, 0.16) * (x * light.x + y * light.y)
    vignette = 1.0 - rng.uniform(0.02, 0.12) * (x * x + y * y) / 2
    balance = rng.uniform(0.97, 1.03, 3) * rng.uniform(0.90, 1.10)
    lit = canvas * (lamp * vignette * np.float32(255))[..., None] * balance.astype(np.float32)
    eight_bit = np.clip(lit, 0.0, 255.0).astype(np.uint8)
    blurred = Image.fromarray(eight_bit).filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_PX)))
    # One noise field, shifted for each channel: it looks as good as three, in a third of the time.
    grain = rng.standard_normal((IMAGE_HEIGHT, IMAGE_WIDTH), dtype=np.float32)
    grain *= np.float32(255 * rng.uniform(*SENSOR_NOISE))
    grains = np.stack([np.roll(grain, (11 * c, 17 * c), axis=(0, 1)) for c in range(3)], axis=-1)
    grains += np.asarray(blurred)
    pixels: NDArray[np.uint8] = np.clip(grains, 0.0, 255.0).astype(np.uint8)
    return pixels


def _windows(x: int, y: int, side: int) -> tuple[slice, slice, slice, slice]:
    """Where a square sprite at (x, y) overlaps the frame: rows and columns of the frame, then of the sprite."""
    left, right = min(max(x, 0), IMAGE_WIDTH), max(min(x + side, IMAGE_WIDTH), 0)
    top, bottom = min(max(y, 0), IMAGE_HEIGHT), max(min(y + side, IMAGE_HEIGHT), 0)
    left, top = min(left, right), min(top, bottom)
    return (
        slice(top, bottom),
        slice(left, right),
        slice(top - y, bottom - y),
        slice(left - x, right - x),
    )


def _cut_at_frame(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, float(IMAGE_WIDTH)), min(bottom, float(IMAGE_HEIGHT))
