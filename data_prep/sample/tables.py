"""Table tops for the sample pictures: textures made of noise, without parts on them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_prep.sample.parts import Field


@dataclass(frozen=True, slots=True)
class Table:
    """A kind of surface: its mean colour (0…1) and the relative brightness of its texture, (h, w)."""

    colour: tuple[float, float, float]
    texture: Callable[[int, int, np.random.Generator], Field]


def laminate(height: int, width: int, rng: np.random.Generator) -> Field:
    """A pale bench top with fine speckles."""
    speckle = noise(rng, height, width, 1.5, 1.5)
    texture: Field = 0.02 * noise(rng, height, width, 40, 40) - 0.05 * np.maximum(speckle - 1.2, 0.0)
    return texture


def cardboard(height: int, width: int, rng: np.random.Generator) -> Field:
    """Long fibres, and the corrugation showing through."""
    ribs = _waves(height, rng.uniform(7, 11), rng)[:, None]
    fibres = 0.035 * noise(rng, height, width, 1.2, 14)
    texture: Field = fibres + 0.02 * ribs + 0.03 * noise(rng, height, width, 30, 60)
    return texture


def mat(height: int, width: int, rng: np.random.Generator) -> Field:
    """A cutting mat with a ruled grid and scratches of the knife."""
    step = rng.uniform(26, 44)
    grid = np.maximum(_rules(height, step, rng)[:, None], _rules(width, step, rng)[None, :])
    scratches = np.maximum(noise(rng, height, width, 1.2, 60) - 1.9, 0.0)
    texture: Field = 0.20 * grid + 0.05 * scratches + 0.025 * noise(rng, height, width, 1.5, 1.5)
    return texture


def felt(height: int, width: int, rng: np.random.Generator) -> Field:
    """Woven cloth."""
    period = rng.uniform(3.2, 4.6)
    weave = _waves(height, period, rng)[:, None] * _waves(width, period, rng)[None, :]
    lint = 0.06 * np.maximum(noise(rng, height, width, 2, 2) - 1.8, 0.0)
    texture: Field = 0.05 * weave + 0.05 * noise(rng, height, width, 2, 2) + lint
    return texture


def tray(height: int, width: int, rng: np.random.Generator) -> Field:
    """A plastic tray with broad moulded ribs."""
    ribs = _waves(width, rng.uniform(34, 60), rng)[None, :]
    return 0.05 * ribs * np.abs(ribs) + 0.02 * noise(rng, height, width, 1.3, 1.3)


def wood(height: int, width: int, rng: np.random.Generator) -> Field:
    """Planed boards: curved growth rings, fine pores, the joint between two boards."""
    bend = noise(rng, height, width, 50, 160)
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(rng.uniform(9, 16))
    rings = np.abs((rows + bend * 1.6) % 1.0 - 0.5) * 2.0
    joint = _rules(height, rng.uniform(90, 150), rng)[:, None]
    grain: Field = (0.06 * rings + 0.03 * noise(rng, height, width, 1.2, 20) - 0.25 * joint).astype(np.float32)
    return grain


TABLES: dict[str, Table] = {
    "laminate": Table((0.80, 0.79, 0.76), laminate),
    "cardboard": Table((0.69, 0.55, 0.39), cardboard),
    "mat": Table((0.17, 0.37, 0.33), mat),
    "felt": Table((0.23, 0.25, 0.30), felt),
    "tray": Table((0.24, 0.37, 0.54), tray),
    "wood": Table((0.75, 0.61, 0.44), wood),
}


def draw_table(kind: str, height: int, width: int, rng: np.random.Generator) -> Field:
    """The empty surface, (height, width, 3) in 0…1, with its texture at a random angle."""
    table = TABLES[kind]
    side = math.ceil(math.hypot(height, width)) + 4
    texture = Image.fromarray(table.texture(side, side, rng).astype(np.float32))
    turned = texture.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    field = np.asarray(turned, np.float32)[top : top + height, left : left + width]
    tint = np.array(table.colour, np.float32) * rng.uniform(0.97, 1.03, 3).astype(np.float32)
    surface: Field = tint * (1.0 + field)[..., None]
    return surface


def noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> Field:
    """Smooth noise with a standard deviation of about 1; its grains are `cell_y` by `cell_x` pixels."""
    rows, columns = max(2, round(height / cell_y)), max(2, round(width / cell_x))
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _waves(length: int, period: float, rng: np.random.Generator) -> Field:
    phase = rng.uniform(0, 2 * math.pi)
    wave: Field = np.sin(np.arange(length) * (2 * math.pi / period) + phase).astype(np.float32)
    return wave


def _rules(length: int, step: float, rng: np.random.Generator) -> Field:
    """1 on thin lines `step` pixels apart, 0 between."""
    place = (np.arange(length) + rng.uniform(0, step)) % step
    lines: Field = np.clip(1.2 - np.abs(place - step / 2), 0.0, 1.0).astype(np.float32)
    return lines
