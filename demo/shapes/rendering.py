"""Rendering of colored shapes that change over time. All functions are pure."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Signed distance to the outline (negative inside) of a shape of radius about 1, at x (right) and y (down). No shape
# points left or right, so that a single frame never tells in which direction it moves.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    'circle': lambda x, y: np.hypot(x, y) - 1,
    'square': lambda x, y: np.maximum(abs(x), abs(y)) - 0.88,
    'triangle': lambda x, y: np.maximum(0.866 * abs(x) - 0.5 * y, y) - 0.6,
    'cross': lambda x, y: np.maximum(np.minimum(abs(x), abs(y)) - 0.3, np.maximum(abs(x), abs(y)) - 1.05),
    'ring': lambda x, y: abs(np.hypot(x, y) - 0.8) - 0.25,
}


class Sprite(NamedTuple):
    """Shape over the time 0 .. 1 of a clip, with linear interpolation between key times.

    Attributes:
        shape (str): One of ``SHAPES``.
        times (np.ndarray): Key times [K], ascending.
        values (np.ndarray): Values at the key times [K, 7]: center x and y and radius, as fractions of the image side
            (0 is left and top), red, green, blue and opacity in 0 .. 1.
    """
    shape: str
    times: np.ndarray
    values: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Interpolate the values at any times, [T] -> [T, 7]."""
        return np.stack([np.interp(times, self.times, column) for column in self.values.T], axis=1)

    def reversed(self) -> 'Sprite':
        """Return the sprite with time reversed."""
        return Sprite(self.shape, 1 - self.times[::-1], self.values[::-1])


def render(sprites: Sequence[Sprite], background: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
    """Draw frames.

    Args:
        sprites (Sequence[Sprite]): Sprites; later ones are drawn on top.
        background (np.ndarray): Colors in 0 .. 1 of the top and the bottom edge, blended in between, [2, 3].
        times (np.ndarray): Times of the frames in 0 .. 1 of the clip, [T].
        size (int): Side of the square frames in pixels.

    Returns:
        np.ndarray: float32 [T, size, size, 3] RGB in 0 .. 1.

    Raises:
        KeyError: Unknown shape.
    """
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    slope = grid[:, None, None]
    canvas = (background[0] * (1 - slope) + background[1] * slope).astype(np.float32)  # [size, 1, 3]
    frames = np.broadcast_to(canvas, (len(times), size, size, 3)).copy()
    for sprite in sprites:
        values = sprite.at(times).astype(np.float32)
        seen = np.flatnonzero(values[:, 6])
        if len(seen) == 0:
            continue
        x, y, radius, *_, opacity = (column[:, None, None] for column in values[seen].T)
        distance = SHAPES[sprite.shape]((grid[None, None] - x) / radius, (grid[None, :, None] - y) / radius)
        cover = np.clip(0.5 - distance * radius * size, 0, 1) * opacity  # one pixel of soft edge
        frames[seen] += cover[..., None] * (values[seen, None, None, 3:6] - frames[seen])
    return frames


def long_exposure(sprites: Sequence[Sprite], background: np.ndarray, size: int, steps: int = 9,
                  decay: float = 2.0) -> np.ndarray:
    """Draw a still image of a whole clip: the latest moment is bright, and the trail fades towards the past.

    Args:
        sprites (Sequence[Sprite]): Sprites; see :func:`render`.
        background (np.ndarray): Colors of the background, [2, 3].
        size (int): Side in pixels.
        steps (int): Number of exposed moments. Defaults to 9.
        decay (float): The last moment has exp(decay) times the weight of the first. Defaults to 2.

    Returns:
        np.ndarray: float32 [size, size, 3] RGB in 0 .. 1.
    """
    times = (np.arange(steps) + 0.5) / steps
    weights = np.exp(decay * times)
    frames = render(sprites, background, times, size)
    return np.tensordot((weights / weights.sum()).astype(np.float32), frames, axes=1)
