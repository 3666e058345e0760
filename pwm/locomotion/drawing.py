"""Pictures of capsules on a chequered ground, drawn with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray

HEIGHT, WIDTH = 320, 480  # pixels, multiples of the 16 that video encoders take
_SKY = np.array([222, 232, 242], np.float32)
_TILES = np.array([[196, 203, 196], [171, 181, 174]], np.float32)
_SHADOW = 0.62
_TILE = 0.5  # m
_COLOURS = np.array([[214, 122, 66], [233, 175, 88]], np.float32)  # of capsules in turn
_LIGHT = np.array([-0.35, -0.65, 0.67])  # where it comes from, in the world
_AMBIENT = 0.45


@dataclass(frozen=True)
class Camera:
    """A view without perspective from the robot's right and above, with x to the right.

    Attributes:
        centre: (3,) m, what is in the middle of the picture.
        metres: height of the picture.
        azimuth, elevation: rad, from the side towards the front, and up.
    """

    centre: Array
    metres: float
    azimuth: float = 0.5
    elevation: float = 0.25

    @cached_property
    def axes(self) -> Array:
        """(3, 3): right, up, and away from the camera, in the world."""
        a, e = self.azimuth, self.elevation
        right = np.array([np.cos(a), np.sin(a), 0.0])
        away = np.array([-np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), -np.sin(e)])
        return np.stack([right, np.cross(right, away), away])

    @property
    def pixel(self) -> float:
        """Metres that a pixel covers."""
        return self.metres / HEIGHT

    @cached_property
    def grid(self) -> tuple[Array, Array]:
        """Metres right (1, WIDTH) and up (HEIGHT, 1) from the centre, of all pixels."""
        right = (np.arange(WIDTH) - (WIDTH - 1) / 2) * self.pixel
        up = ((HEIGHT - 1) / 2 - np.arange(HEIGHT)) * self.pixel
        return right[None], up[:, None]

    def window(self, ends: Array, margin: float) -> tuple[slice, slice]:
        """Rows and columns that contain all points (n, 3) with a margin in metres."""
        seen = (ends - self.centre) @ self.axes[:2].T / self.pixel
        wide = margin / self.pixel + 1
        low, high = seen.min(0) - wide, seen.max(0) + wide
        rows = np.clip([HEIGHT / 2 - high[1], HEIGHT / 2 - low[1]], 0, HEIGHT).astype(int)
        columns = np.clip([WIDTH / 2 + low[0], WIDTH / 2 + high[0]], 0, WIDTH).astype(int)
        return slice(*rows), slice(*columns)


def draw(ends: Array, radii: Array, camera: Camera) -> Array:
    """A picture of capsules and the shadows that they cast straight down.

    Args:
        ends: (capsules, 2, 3) m, in the world; of a sphere both are the same.
        radii: (capsules,) m.
        camera: where it is seen from.

    Returns:
        (HEIGHT, WIDTH, 3) uint8.
    """
    picture = _ground(ends, radii, camera)
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for index, (pair, radius) in enumerate(zip(ends, radii, strict=True)):
        window = camera.window(pair, radius)
        right, up = camera.grid
        seen = (pair - camera.centre) @ camera.axes.T
        near, normal = _surface(seen, radius, right[:, window[1]], up[window[0]])
        light = np.clip(normal @ (camera.axes @ _LIGHT), 0.0, 1.0)
        shade = _AMBIENT + (1 - _AMBIENT) * light
        shown = near < depth[window]
        depth[window][shown] = near[shown]
        colour = _COLOURS[index % len(_COLOURS)]
        picture[window][shown] = (shade[..., None] * colour)[shown]
    return picture.round().clip(0, 255).astype(np.uint8)


def _ground(ends: Array, radii: Array, camera: Camera) -> Array:
    """The plane z = 0 with shadows; (HEIGHT, WIDTH, 3)."""
    right, up = camera.grid
    away = camera.axes[2]
    start = camera.centre + right[..., None] * camera.axes[0] + up[..., None] * camera.axes[1]
    place = start - (start[..., 2] / away[2])[..., None] * away
    tiles = np.floor(place[..., :2] / _TILE).astype(int).sum(-1) % 2
    picture = _TILES[tiles]
    dark = np.zeros((HEIGHT, WIDTH), bool)
    for pair, radius in zip(ends, radii, strict=True):
        flat = pair * [1.0, 1.0, 0.0]
        window = camera.window(flat, radius)
        dark[window] |= _distance(place[window][..., :2], flat[:, :2]) < radius
    picture[dark] *= _SHADOW
    haze = np.clip((up[..., None] / camera.metres) * 1.6, 0.0, 1.0) ** 2
    mixed: Array = picture * (1 - haze) + _SKY * haze
    return mixed


def _distance(points: Array, segment: Array) -> Array:
    """Of points (..., 2) from a segment (2, 2)."""
    along = segment[1] - segment[0]
    share = (points - segment[0]) @ along / max(float(along @ along), 1e-12)
    nearest = segment[0] + share.clip(0, 1)[..., None] * along
    distance: Array = np.linalg.norm(points - nearest, axis=-1)
    return distance


def _surface(seen: Array, radius: float, right: Array, up: Array) -> tuple[Array, Array]:
    """Depths (h, w) at which a capsule is met, inf beside it, and its normals (h, w, 3) there.

    All is in the camera's axes: ``seen`` (2, 3) are the ends, and rays go along the third axis.
    """
    found = _ball(seen[0], radius, right, up)
    for depth, normal in (_ball(seen[1], radius, right, up), _side(seen, radius, right, up)):
        closer = depth < found[0]
        found = np.where(closer, depth, found[0]), np.where(closer[..., None], normal, found[1])
    return found


def _ball(centre: Array, radius: float, right: Array, up: Array) -> tuple[Array, Array]:
    x, y = np.broadcast_arrays(right - centre[0], up - centre[1])
    half = np.sqrt(np.maximum(radius**2 - x**2 - y**2, 0.0))
    depth = np.where(half > 0, centre[2] - half, np.inf)
    return depth, np.stack([x, y, -half], -1) / radius


def _side(seen: Array, radius: float, right: Array, up: Array) -> tuple[Array, Array]:
    """Of the cylinder between both ends, on the side towards the camera."""
    axis = seen[1] - seen[0]
    length, flat = np.linalg.norm(axis), np.linalg.norm(axis[:2])
    if flat < 1e-9:  # seen end on: a ball hides it
        return np.full(np.broadcast_shapes(right.shape, up.shape), np.inf), np.zeros(3)
    along, across = axis[:2] / flat, np.array([-axis[1], axis[0]]) / flat
    cosine, sine = flat / length, axis[2] / length
    x, y = right - seen[0, 0], up - seen[0, 1]
    sideways = x * across[0] + y * across[1]
    half = np.sqrt(np.maximum(radius**2 - sideways**2, 0.0))
    share = (x * along[0] + y * along[1] - half * sine) / cosine  # metres along the axis
    hit = (half > 0) & (share >= 0) & (share <= length)
    depth = np.where(hit, seen[0, 2] + share * sine - half * cosine, np.inf)
    towards = np.array([sine * along[0], sine * along[1], -cosine])
    normal = sideways[..., None] * np.array([*across, 0.0]) + half[..., None] * towards
    return depth, normal / radius
