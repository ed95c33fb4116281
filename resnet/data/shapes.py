"""Ten kinds of drawn shapes on busy backgrounds, with the mask of each object: a data set without a download."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

SIZE = 32  # pixels, square
Floats = NDArray[np.floating]  # float32 all the way
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _ring_of(corners: int, turn: float = 0.0, *radii: float) -> list[tuple[float, float]]:
    radii = radii or (1.0,)
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return [
        (float(radii[i % len(radii)] * np.sin(a)), float(-radii[i % len(radii)] * np.cos(a)))
        for i, a in enumerate(angles)
    ]


A, B = 0.36, 0.93  # the cross's arms: half width and length
POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": _ring_of(4, np.pi / 4),
    "triangle": _ring_of(3),
    "cross": [
        (-A, -B),
        (A, -B),
        (A, -A),
        (B, -A),
        (B, A),
        (A, A),
        (A, B),
        (-A, B),
        (-A, A),
        (-B, A),
        (-B, -A),
        (-A, -A),
    ],
    "star": _ring_of(10, 0.0, 1.05, 0.44),
    "arrow": [(0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.1), (-0.8, -0.1)],
    "hourglass": [(-0.75, -0.9), (0.75, -0.9), (0.14, 0), (0.75, 0.9), (-0.75, 0.9), (-0.14, 0)],
}


def _polygon(name: str, x: Floats, y: Floats) -> Floats:
    """Distance to the nearest edge, negative where a ray crosses an odd number of edges."""
    corners = POLYGONS[name]
    nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        dx, dy = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((dx * ex + dy * ey) * (1 / (ex * ex + ey * ey)), 0, 1)
        np.minimum(nearest, (dx - along * ex) ** 2 + (dy - along * ey) ** 2, out=nearest)
        if ey:
            inside ^= ((y >= ay) != (y >= by)) & (dx < dy * (ex / ey))
    return np.where(inside, -np.sqrt(nearest), np.sqrt(nearest))


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - np.float32(0.9)


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - np.float32(0.74)) - np.float32(0.21)


def _crescent(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.hypot(x, y) - np.float32(1), np.float32(0.8) - np.hypot(x - np.float32(0.5), y))


def _heart(x: Floats, y: Floats) -> Floats:
    """Quilez's exact heart (iquilezles.org/articles/distfunctions2d), scaled to the others' size and point down."""
    scale = np.float32(1.65)
    x, y = np.abs(x) / scale, 0.55 - y / scale
    lobe = np.hypot(x - np.float32(0.25), y - np.float32(0.75)) - np.float32(np.sqrt(2) / 4)
    corner = np.maximum(x + y, 0) / 2
    point = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - corner) ** 2 + (y - corner) ** 2)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, point) * scale


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    **{name: partial(_polygon, name) for name in POLYGONS},
}


def draw(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """`count` pictures (N, 3, 32, 32), labels (N,) as balanced as can be, and the objects' masks (N, 32, 32)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(SHAPES))
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    masks = np.empty((count, SIZE, SIZE), bool)
    for start in range(0, count, 100):  # 100 pictures at once stay in the cache
        part = slice(start, start + 100)
        images[part], masks[part] = _draw_part(labels[part], rng)
    return images, labels, masks


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return (rng.random(shape, np.float32) * np.float32(high - low)) + np.float32(low)


def _draw_part(labels: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    n = len(labels)
    colour, ground_colours = _colours(n, rng)
    cover = _coverage(labels, rng)  # (N, S, S) in 0..1
    pixels = _background(ground_colours, rng)  # (N, 3, S, S)
    shade = 1 + 0.12 * _slope(n, rng)[:, None]
    pixels += cover[:, None] * (colour * shade - pixels)
    pixels += _uniform(rng, 0.01, 0.05, n, 1, 1, 1) * rng.standard_normal(pixels.shape, np.float32)
    return (pixels.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8), cover > 0.5


def _coverage(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """How much of each pixel the object covers, from its signed distance in pixels: clip(1/2 - distance, 0, 1)."""
    n = len(labels)
    radius, angle = _uniform(rng, 7.5, 13.5, n), _uniform(rng, 0, 2 * np.pi, n)
    centre = SIZE / 2 + _uniform(rng, -1, 1, 2, n) * (SIZE / 2 - radius)
    x, y = _grid(centre[0], centre[1])
    cos, sin = (np.cos(angle) / radius)[:, None, None], (np.sin(angle) / radius)[:, None, None]
    x, y = cos * x + sin * y, cos * y - sin * x  # (N, S, S), in radii
    distance = np.empty_like(x)
    for label, shape in enumerate(SHAPES.values()):
        own = labels == label
        distance[own] = shape(x[own], y[own])
    return (np.float32(0.5) - distance * radius[:, None, None]).clip(0, 1)


def _grid(centre_x: Floats, centre_y: Floats) -> tuple[Floats, Floats]:
    pixels = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    shape = (len(centre_x), SIZE, SIZE)
    x = np.broadcast_to((pixels - centre_x[:, None])[:, None, :], shape)
    return x, np.broadcast_to((pixels - centre_y[:, None])[:, :, None], shape)


def _colours(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The object's colour (N, 3, 1, 1) and two of the ground (2, N, 3, 1, 1), 0.3 to 0.55 of luma away from it."""
    luma = _uniform(rng, 0.15, 0.85, n, 1)
    away = np.where(luma < 0.5, 1, -1) * _uniform(rng, 0.3, 0.55, n, 1)
    hue = _uniform(rng, 0, 2 * np.pi, n, 1)
    others = hue + _uniform(rng, 0.8, 2 * np.pi - 0.8, n, 1) + _uniform(rng, -0.5, 0.5, 2, n, 1)
    ground = np.clip(luma + away + _uniform(rng, -0.06, 0.06, 2, n, 1), 0.08, 0.92)
    return _tinted(luma, hue, _uniform(rng, 0.25, 0.45, n, 1)), _tinted(ground, others, _uniform(rng, 0.05, 0.3, n, 1))


def _tinted(luma: Floats, hue: Floats, chroma: Floats) -> Floats:
    """A colour (..., 3, 1, 1) of this luma, moved along its hue as far as the RGB cube allows."""
    wheel = np.cos(hue - np.array([0, 2 * np.pi / 3, 4 * np.pi / 3], np.float32))  # (..., 3)
    tint = chroma * (wheel - (wheel @ LUMA)[..., None])
    room = np.where(tint > 0, 1 - luma, luma) / np.maximum(np.abs(tint), 1e-6)
    return (luma + tint * np.minimum(1, room.min(-1, keepdims=True))).astype(np.float32)[..., None, None]


def _slope(n: int, rng: np.random.Generator) -> Floats:
    """A plane of random direction, -1..1 across the picture (N, S, S)."""
    angle = _uniform(rng, 0, 2 * np.pi, n, 1, 1)
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    return (np.cos(angle) * line[None, None, :] + np.sin(angle) * line[None, :, None]) / np.float32(np.sqrt(2))


def _background(colours: Floats, rng: np.random.Generator) -> Floats:
    """A gradient with waves between two colours (2, N, 3, 1, 1), and four small distractors over it: (N, 3, S, S)."""
    n = colours.shape[1]
    waves = np.sin(_slope(n, rng) * _uniform(rng, 2, 16, n, 1, 1) + _uniform(rng, 0, 6.3, n, 1, 1))
    mix = (0.5 + 0.5 * _slope(n, rng) + _uniform(rng, 0, 0.4, n, 1, 1) * waves).clip(0, 1)
    first, second = colours
    pixels = first + mix[:, None] * (second - first)
    for _ in range(4):
        colour = (first + second) / 2 + _uniform(rng, -0.22, 0.22, n, 3, 1, 1)
        pixels += _distractor(n, rng)[:, None] * (colour - pixels)
    return pixels


def _distractor(n: int, rng: np.random.Generator) -> Floats:
    """The coverage of a dot or a short stroke (N, S, S)."""
    x, y = _grid(*_uniform(rng, 0, SIZE, 2, n))
    angle = _uniform(rng, 0, 2 * np.pi, n, 1, 1)
    half = np.maximum(_uniform(rng, -5, 5, n, 1, 1), 0)  # every other one is a dot
    along = np.maximum(np.abs(np.cos(angle) * x + np.sin(angle) * y) - half, 0)
    across = np.cos(angle) * y - np.sin(angle) * x
    return (_uniform(rng, 1, 2.2, n, 1, 1) - np.sqrt(along**2 + across**2)).clip(0, 1)
