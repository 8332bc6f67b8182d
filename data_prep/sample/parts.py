"""Machine parts for the sample pictures, each drawn as a relief and lit from one side.

A shape is two fields over its own plane: the signed distance to its outline, and its height. The distance is
for anti-aliasing, the height for light and gloss, so that a rotated part is lit from the same side as its
neighbours. Lengths inside a shape are in units of half its long side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]
"""Always float32; the type is wider because of numpy's stubs."""

SUPERSAMPLING = 2
"""A part is drawn at this multiple of its final size, then reduced."""

MARGIN_PX = 2
"""Empty pixels around a part's sprite, so that its soft edge is not cut off."""

REACH = 1.13
"""Distance of the farthest point of any part (the corner of a bolt's head) from the centre, in half lengths."""

MATERIALS: dict[str, tuple[float, float, float]] = {
    "zinc": (0.74, 0.76, 0.79),
    "steel": (0.55, 0.57, 0.60),
    "black oxide": (0.20, 0.20, 0.23),
    "brass": (0.82, 0.65, 0.32),
    "copper": (0.76, 0.43, 0.29),
    "white nylon": (0.92, 0.91, 0.87),
    "red nylon": (0.72, 0.20, 0.17),
}

MATTE = frozenset({"white nylon", "red nylon"})


@dataclass(frozen=True, slots=True)
class Relief:
    """A shape on a grid: distance to its outline (negative inside), height, and whether it was turned on a
    lathe.

    A turned face reflects light in a fan, because of the lathe's grooves.
    """

    distance: Field
    height: Field
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Light:
    """The direction to the lamp, a unit vector in image axes (x right, y down, z to the camera)."""

    x: float
    y: float
    z: float

    @classmethod
    def from_angles(cls, azimuth: float, elevation: float) -> "Light":
        """Angles in radians: `azimuth` from the x axis, `elevation` above the table."""
        flat = math.cos(elevation)
        return cls(flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation))


@dataclass(frozen=True, slots=True)
class Sprite:
    """A lit part in final pixels: colour (h, w, 3) in 0…1, coverage (h, w) in 0…1.

    `box` encloses the whole outline, xyxy in the sprite's own pixels. `thickness_px` sets the size of the
    shadow.
    """

    colour: Field
    coverage: Field
    box: tuple[float, float, float, float]
    thickness_px: float


def washer(u: Field, v: Field, rng: np.random.Generator) -> Relief:
    """A flat ring."""
    hole = rng.uniform(0.42, 0.60)
    radius = np.hypot(u, v)
    distance = np.maximum(radius - 1.0, hole - radius)
    return Relief(distance, 0.12 * _ramp(-distance, 0.09), turned=True)


def nut(u: Field, v: Field, rng: np.random.Generator) -> Relief:
    """A hexagon with a threaded hole and corners turned down to a cone."""
    hole = rng.uniform(0.42, 0.52)
    radius = np.hypot(u, v)
    flats = np.abs(u)
    for angle in (math.pi / 3, 2 * math.pi / 3):
        flats = np.maximum(flats, np.abs(u * math.cos(angle) + v * math.sin(angle)))
    distance = np.maximum(flats - math.cos(math.pi / 6), hole - radius)
    corner_cone = 0.9 * np.maximum(radius - 0.82, 0.0)
    countersink = 0.9 * np.maximum(hole + 0.12 - radius, 0.0)
    return Relief(distance, 0.42 * _ramp(-distance, 0.05) - corner_cone - countersink)


def gear(u: Field, v: Field, rng: np.random.Generator) -> Relief:
    """A spur gear: teeth, a rim, a thinner web with or without holes, a hub and a bore."""
    teeth = int(rng.integers(9, 16))
    root = rng.uniform(0.76, 0.82)
    bore = rng.uniform(0.15, 0.24)
    web_holes = int(rng.choice([0, 4, 5, 6]))
    radius = np.hypot(u, v)
    turn = np.arctan2(v, u) / np.float32(2 * math.pi)
    tooth = np.abs((turn * teeth) % 1.0 - 0.5) * 2.0
    outline = root + (1.0 - root) * _ramp(tooth - 0.32, 0.36)
    distance = np.maximum((radius - outline) * 0.85, bore - radius)
    web = _ramp(radius - bore - 0.16, 0.05) * _ramp(root - 0.14 - radius, 0.05)
    height = 0.26 * _ramp(-distance, 0.06) - 0.13 * web
    if web_holes:
        middle = (bore + 0.16 + root - 0.14) / 2
        along = ((turn * web_holes) % 1.0 - 0.5) * (2 * math.pi / web_holes) * middle
        hole = np.hypot(along, radius - middle)
        distance = np.maximum(distance, 0.10 - hole)
    return Relief(distance, height, turned=True)


def bolt(u: Field, v: Field, rng: np.random.Generator) -> Relief:
    """A hexagon bolt on its side: three facets of the head, a shank, and a thread."""
    half_head = rng.uniform(0.40, 0.52)
    half_shank = half_head * rng.uniform(0.50, 0.60)
    head_end = -1.0 + half_head * rng.uniform(0.70, 0.85)
    thread_start = rng.uniform(head_end, 0.2)
    across = np.abs(v)
    head = _box_distance(u, v, -1.0, head_end, half_head)
    tip = np.maximum(u - 0.90, 0.0)
    shank = np.maximum(_box_distance(u, v, head_end - 0.1, 1.0, half_shank), across - half_shank + tip)
    pitch = max(0.13, half_shank * 0.42)
    groove = np.abs(((u + 0.25 * v) / pitch) % 1.0 - 0.5) * 2.0
    threaded = _ramp(u - thread_start, 0.04)
    cylinder = np.sqrt(np.maximum(half_shank**2 - v * v, 0.0))
    shank_height = cylinder - threaded * 0.30 * pitch * groove
    head_height = 0.87 * half_head - 1.2 * np.maximum(across - half_head / 2, 0.0)
    head_height = head_height * _ramp(-head, 0.10)
    on_head = head < 0
    return Relief(np.minimum(head, shank), np.where(on_head, head_height, shank_height))


def spring(u: Field, v: Field, rng: np.random.Generator) -> Relief:
    """A compression spring on its side: slanted front windings over the back ones."""
    windings = int(rng.integers(5, 8))
    wire = rng.uniform(0.075, 0.095)
    half_width = rng.uniform(0.40, 0.52) - wire
    pitch = 2 * (1.0 - wire) / (windings - 0.5)
    front = _windings(u, v, start=-1.0 + wire, pitch=pitch, half_width=half_width, count=windings)
    middle = -1.0 + wire + pitch / 2
    back = _windings(u, -v, start=middle, pitch=pitch, half_width=half_width, count=windings - 1)
    front_height = np.sqrt(np.maximum(wire**2 - front * front, 0.0)) + 2 * wire
    back_height = np.sqrt(np.maximum(wire**2 - back * back, 0.0))
    distance = np.minimum(front, back) - np.float32(wire)
    return Relief(distance, np.where(front < wire, front_height, back_height))


SHAPES: dict[str, Callable[[Field, Field, np.random.Generator], Relief]] = {
    "bolt": bolt,
    "gear": gear,
    "nut": nut,
    "spring": spring,
    "washer": washer,
}
"""Every class of the sample, in label order."""


def draw_part(
    label: str, material: str, *, half_length_px: float, angle: float, light: Light, rng: np.random.Generator
) -> Sprite:
    """Draw one part, rotated by `angle` radians, with its centre at a random fraction of a pixel."""
    half = math.ceil(half_length_px * REACH) + MARGIN_PX
    unit = half_length_px * SUPERSAMPLING
    axis = (np.arange(2 * half * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING - half
    x = ((axis - rng.uniform(-0.5, 0.5)) / half_length_px).astype(np.float32)[None, :]
    y = ((axis - rng.uniform(-0.5, 0.5)) / half_length_px).astype(np.float32)[:, None]
    cosine, sine = math.cos(angle), math.sin(angle)
    u = x * cosine + y * sine
    v = y * cosine - x * sine
    relief = SHAPES[label](u, v, rng)
    coverage = np.clip(0.5 - relief.distance * unit, 0.0, 1.0)
    colour = _lit(relief, material, unit=unit, plane=(x, y), light=light, rng=rng)
    small = _reduced(coverage)
    colour = _reduced(colour * coverage[..., None]) / np.maximum(small, 1e-4)[..., None]
    return Sprite(colour, small, _outline_box(coverage), float(relief.height.max()) * half_length_px)


def _lit(
    relief: Relief,
    material: str,
    *,
    unit: float,
    plane: tuple[Field, Field],
    light: Light,
    rng: np.random.Generator,
) -> Field:
    """Colour of every point: ambient and diffuse light, a highlight and, for metal, the reflection of the room."""
    slope_y, slope_x = np.gradient(np.maximum(relief.height, 0.0) * np.float32(unit))
    normal_z = 1.0 / np.sqrt(1.0 + slope_x * slope_x + slope_y * slope_y)
    facing = np.maximum((light.z - slope_x * light.x - slope_y * light.y) * normal_z, 0.0)
    half = math.sqrt(light.x**2 + light.y**2 + (light.z + 1.0) ** 2)
    mirror = np.maximum((light.z + 1.0 - slope_x * light.x - slope_y * light.y) * normal_z / half, 0.0)
    highlight = mirror**2
    for _ in range(3):
        highlight = highlight * highlight
    matte = material in MATTE
    shade = 0.38 + 0.70 * facing
    if not matte:
        towards_window = -2.0 * normal_z * normal_z * slope_y
        shade = shade * (0.94 + 0.38 * np.clip(towards_window, -1.0, 1.0))
        if relief.turned:
            shade = shade * (1.0 + 0.26 * _lathe_fan(plane, light))
    shade = shade * (0.72 + 0.28 * _ramp(-relief.distance * np.float32(unit), 3.0))
    grain = rng.standard_normal(shade.shape, dtype=np.float32) * np.float32(0.02)
    base = np.array(MATERIALS[material], np.float32) * np.float32(rng.uniform(0.93, 1.07))
    gloss = np.float32(0.10 if matte else 0.42)
    lit = base * (shade + grain)[..., None] + (gloss * highlight)[..., None] * (0.5 + 0.5 * base)
    result: Field = lit.astype(np.float32)
    return result


def _lathe_fan(plane: tuple[Field, Field], light: Light) -> Field:
    """Light on concentric grooves: two bright sectors across the lamp's direction, in -1…1."""
    x, y = plane
    flat = math.hypot(light.x, light.y)
    along = x * (light.x / flat) + y * (light.y / flat)
    square = x * x + y * y + np.float32(1e-4)
    cosine_squared = along * along / square
    fan: Field = (2.0 * cosine_squared - 1.0).astype(np.float32)
    return fan * np.abs(fan)


def _windings(u: Field, v: Field, *, start: float, pitch: float, half_width: float, count: int) -> Field:
    """Distance to the nearest of `count` slanted segments, each from (start + k·pitch, half_width) down."""
    inside = np.clip(v, -half_width, half_width)
    shift = pitch / 2 * (half_width - inside) / (2 * half_width)
    offset = u - start - shift
    nearest = np.clip(np.round(offset / pitch), 0, count - 1)
    cosine = 2 * half_width / math.hypot(2 * half_width, pitch / 2)
    distance: Field = np.hypot((offset - nearest * pitch) * cosine, v - inside).astype(np.float32)
    return distance


def _box_distance(u: Field, v: Field, left: float, right: float, half_width: float) -> Field:
    distance: Field = np.maximum(np.maximum(left - u, u - right), np.abs(v) - half_width).astype(np.float32)
    return distance


def _ramp(value: Field, width: float) -> Field:
    """0 below zero, 1 above `width`, smooth between."""
    t = np.clip(value / np.float32(width), 0.0, 1.0)
    smooth: Field = (t * t * (3.0 - 2.0 * t)).astype(np.float32)
    return smooth


def _reduced(field: Field) -> Field:
    """The mean of each block of SUPERSAMPLING by SUPERSAMPLING points."""
    step = SUPERSAMPLING
    total = sum(field[row::step, column::step] for row in range(step) for column in range(step))
    reduced: Field = np.asarray(total) * np.float32(1 / step**2)
    return reduced


def _outline_box(coverage: Field) -> tuple[float, float, float, float]:
    inside = coverage >= 0.5
    columns = np.flatnonzero(inside.any(axis=0))
    rows = np.flatnonzero(inside.any(axis=1))
    scale = float(SUPERSAMPLING)
    return columns[0] / scale, rows[0] / scale, (columns[-1] + 1) / scale, (rows[-1] + 1) / scale
