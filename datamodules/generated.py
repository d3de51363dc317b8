"""Generated image-caption data: coloured shapes on textured grounds, for the demo and for tests.

Position, size, rotation, colours, texture and grain differ from picture to picture, so that only the outline shows the
class. Captions name the shape and, half of the time, its colour too.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..contracts import UserMistake
from .shards.encoded import EncodedPicture
from .shards.writer import Labelled, Pair, write_training_shards, write_zero_shot_set

TEMPLATES: tuple[str, ...] = (
    "a photo of a {c}.",
    "a photo of the {c}.",
    "a picture of a {c}.",
    "a picture of the {c}.",
    "an image of a {c}.",
    "an image of the {c}.",
    "a drawing of a {c}.",
    "a painting of a {c}.",
    "a sketch of the {c}.",
    "a snapshot of a {c}.",
    "this is a {c}.",
    "there is a {c} in the picture.",
)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "yellow": (250, 204, 60),
    "green": (56, 158, 84),
    "blue": (45, 98, 210),
    "purple": (128, 62, 176),
    "pink": (244, 143, 177),
    "brown": (124, 82, 52),
    "white": (240, 240, 236),
    "black": (38, 40, 46),
    "turquoise": (64, 196, 190),
}
MIN_CONTRAST = 150.0
"""Least Euclidean distance of the shape's and the ground's colours, in 8-bit RGB."""
GRAIN = 4.0
"""Standard deviation of the pixel noise, in 8-bit steps."""

Floats = npt.NDArray[np.float32]


class _Scenes(NamedTuple):
    """What N pictures show."""

    labels: npt.NDArray[np.int64]
    colours: npt.NDArray[np.int64]
    """``(N, 2)``: of the shape and of the ground, as indices into ``COLOURS``."""
    pictures: npt.NDArray[np.uint8]
    """``(N, S, S, 3)``."""


def write_generated_data(
    folder: Path,
    train_pairs: int,
    test_pairs: int,
    image_size: int = 32,
    seed: int = 0,
    shard_size: int = 1_000,
) -> None:
    """Write training shards to ``folder/train`` and a zero-shot set to ``folder``.

    Each class has the same share of either part, to within one picture.

    Args:
        folder: New or empty.
        train_pairs: Pictures with a caption.
        test_pairs: Pictures with a label.
        image_size: Side S of the pictures, in pixels, at least 16.
        seed: What everything random is drawn from.
        shard_size: Pictures per shard.

    Raises:
        UserMistake: If a number is too small or the folder is not empty.
    """
    for name, value, least in (
        ("train_pairs", train_pairs, 1),
        ("test_pairs", test_pairs, 1),
        ("image_size", image_size, 16),
    ):
        if value < least:
            raise UserMistake(f"{name} is {value}: it must be at least {least}")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserMistake(f"{folder} is not empty: give a folder for the generated data that is new or empty")
    test = _labelled(test_pairs, image_size, seed)
    write_zero_shot_set(folder, test, list(OUTLINES), TEMPLATES, shard_size=shard_size)
    write_training_shards(folder / "train", _pairs(train_pairs, image_size, seed), shard_size)


def _pairs(count: int, image_size: int, seed: int) -> Iterator[Pair]:
    draws = np.random.default_rng([seed, 0])
    for scenes in _scenes(count, image_size, np.random.default_rng([seed, 1])):
        for label, colours, picture in zip(scenes.labels, scenes.colours, scenes.pictures, strict=True):
            yield Pair(_jpeg(picture), _caption(draws, int(label), int(colours[0])), {"label": int(label)})


def _labelled(count: int, image_size: int, seed: int) -> Iterator[Labelled]:
    for scenes in _scenes(count, image_size, np.random.default_rng([seed, 2])):
        for label, picture in zip(scenes.labels, scenes.pictures, strict=True):
            yield Labelled(_jpeg(picture), int(label))


def _caption(draws: np.random.Generator, label: int, colour: int) -> str:
    template, coloured = draws.integers(len(TEMPLATES)), draws.random() < 0.5
    name = list(OUTLINES)[label]
    return TEMPLATES[template].replace("{c}", f"{list(COLOURS)[colour]} {name}" if coloured else name)


def _jpeg(picture: npt.NDArray[np.uint8]) -> EncodedPicture:
    height, width, _ = picture.shape
    stream = BytesIO()
    # Without subsampling: at this size colours would bleed over the outline.
    Image.fromarray(picture).save(stream, format="JPEG", quality=90, subsampling=0)
    return EncodedPicture(stream.getvalue(), "jpg", width, height)


def _scenes(count: int, image_size: int, draws: np.random.Generator) -> Iterator[_Scenes]:
    """Draw ``count`` scenes, about a quarter of a million pixels at a time."""
    step = max(1, 2**18 // image_size**2)
    palette = np.array(list(COLOURS.values()), np.float32)
    distances = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
    contrasts = np.argwhere(distances >= MIN_CONTRAST)
    labels = draws.permutation(np.arange(count) % len(OUTLINES))
    for start in range(0, count, step):
        chunk = labels[start : start + step]
        n = len(chunk)
        colours = contrasts[draws.integers(len(contrasts), size=n)]
        tinted = palette[colours] + draws.normal(0, 10, (n, 2, 3)).astype(np.float32)
        masks = np.stack([_mask(list(OUTLINES.values())[label], image_size, draws) for label in chunk])
        shape = tinted[:, 0, None, None] + 14 * _slope(n, image_size, draws)
        ground = tinted[:, 1, None, None] + _texture(n, image_size, draws)
        # A soft shadow lifts the shape off the ground.
        shift = max(1, image_size // 32)
        shadow = np.pad(masks, ((0, 0), (shift, 0), (shift, 0), (0, 0)))[:, :-shift, :-shift]
        pictures = ground * (1 - 0.25 * shadow)
        pictures += masks * (shape - pictures)
        pictures += np.asarray(draws.normal(0, GRAIN, pictures.shape), np.float32)
        yield _Scenes(chunk, colours, np.rint(np.clip(pictures, 0, 255)).astype(np.uint8))


def _mask(outline: list[Floats], image_size: int, draws: np.random.Generator) -> Floats:
    """Draw an outline at a random position, size and rotation: ``(S, S, 1)`` coverage in [0, 1]."""
    smooth = 4
    radius = draws.uniform(0.26, 0.42)
    centre = draws.uniform(radius + 0.02, 0.98 - radius, size=2)
    angle = np.deg2rad(draws.uniform(-25, 25))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    side = smooth * image_size
    canvas = Image.new("L", (side, side))
    brush = ImageDraw.Draw(canvas)
    for fill, polygon in zip((255, 0), outline, strict=False):
        points = ((radius * polygon @ turn + centre) * side).ravel()
        brush.polygon(points.tolist(), fill=fill)
    coverage: Floats = np.asarray(canvas.reduce(smooth), np.float32)[..., None] / np.float32(255)
    return coverage


def _slope(count: int, image_size: int, draws: np.random.Generator) -> Floats:
    """Linear ramps in random directions, from -1 to 1: ``(N, S, S, 1)``."""
    axis = np.linspace(-1, 1, image_size, dtype=np.float32)
    angles = draws.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    ramps = (np.cos(angles) * axis[None, None, :] + np.sin(angles) * axis[None, :, None]) / np.sqrt(2, dtype=np.float32)
    return np.asarray(ramps[..., None], np.float32)


def _texture(count: int, image_size: int, draws: np.random.Generator) -> Floats:
    """A ramp, clouds and stripes, each of random strength: ``(N, S, S, 3)`` in 8-bit steps."""
    strength = draws.uniform(0, 1, (3, count, 1, 1, 1)).astype(np.float32)
    ramps = _slope(count, image_size, draws)
    coarse = draws.normal(0, 1, (count, 5, 5, 3)).astype(np.float32)
    clouds = np.einsum("yi,xj,nijc->nyxc", *(2 * [_interpolation(image_size, 5)]), coarse, optimize=True)
    cycles = draws.uniform(2, 6, (count, 1, 1, 1)).astype(np.float32)
    stripes = np.sin(np.pi * cycles * _slope(count, image_size, draws))
    return np.asarray(
        22 * strength[0] * ramps + 16 * strength[1] * clouds + 10 * strength[2] ** 2 * stripes, np.float32
    )


def _interpolation(size: int, knots: int) -> Floats:
    """Weights ``(size, knots)`` of smooth interpolation between evenly spaced knots."""
    position = np.linspace(0, knots - 1, size, dtype=np.float32)[:, None]
    gap = np.clip(1 - np.abs(position - np.arange(knots, dtype=np.float32)), 0, 1)
    return np.asarray(gap * gap * (3 - 2 * gap), np.float32)


def _polar(radius: npt.ArrayLike, count: int) -> Floats:
    """A closed outline from ``count`` radii at even angles, the first one upwards: ``(count, 2)``, y down."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.asarray((np.stack([np.sin(angles), -np.cos(angles)]) * radius).T, np.float32)


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.asarray(np.stack([x, -y - 2.5]).T / 16.5, np.float32)


def _cross(arm: float) -> Floats:
    corner = [(-arm, -1), (arm, -1), (arm, -arm)]
    points = [np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), k).T @ p for k in range(4) for p in np.array(corner)]
    return np.asarray(points, np.float32)


_ROUND = _polar(1.0, 48)
OUTLINES: dict[str, list[Floats]] = {
    "bolt": [np.array([(0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25)], np.float32)],
    "bow": [np.array([(-1, -0.62), (0, -0.14), (1, -0.62), (1, 0.62), (0, 0.14), (-1, 0.62)], np.float32)],
    "circle": [_ROUND * 0.95],
    "crescent": [_ROUND, _ROUND * 0.85 + np.array([0.5, 0], np.float32)],
    "cross": [_cross(0.34)],
    "heart": [_heart()],
    "ring": [_ROUND, _ROUND * 0.5],
    "square": [np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], np.float32)],
    "star": [_polar(np.where(np.arange(10) % 2, 0.42, 1.05), 10)],
    "triangle": [_polar(1.05, 3) + np.array([0, 0.12], np.float32)],
}
"""By class name, the outline and where there is one a hole: ``(P, 2)`` within the unit circle, about."""
