"""Events of the demo clips and their captions.

A scene has a kind and a meaning. Kinds that depend on order come in groups whose scenes share all frames and differ
only in their order: a scene and its reverse, or all six orders of three shapes. A method that averages over frames
can't tell them apart.
"""
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from .rendering import SHAPES, Sprite

COLORS = {
    'red': (0.90, 0.12, 0.12),
    'green': (0.10, 0.70, 0.15),
    'blue': (0.15, 0.25, 0.95),
    'yellow': (0.95, 0.90, 0.10),
    'purple': (0.70, 0.15, 0.80),
    'cyan': (0.10, 0.85, 0.90),
    'white': (0.97, 0.97, 0.97),
}
_OPPOSITE = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up', 'grows': 'shrinks', 'shrinks': 'grows'}
_STEP = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
_TEMPLATES = {
    'move': ('a {0} {1} moves {2}', 'a {0} {1} is going {2}'),
    'grows': ('a {0} {1} grows', 'a {0} {1} gets larger'),
    'shrinks': ('a {0} {1} shrinks', 'a {0} {1} gets smaller'),
    'turn': ('a {0} turns from {1} to {2}', 'a {1} {0} becomes {2}'),
    'then2': ('a {0} {1} then a {2} {3}', 'first a {0} {1} then a {2} {3}'),
    'then3': ('a {0} {1} then a {2} {3} then a {4} {5}', 'first a {0} {1} then a {2} {3} then a {4} {5}'),
    'left': ('a {0} {1} is left of a {2} {3}', 'a {2} {3} is right of a {0} {1}'),
    'above': ('a {0} {1} is above a {2} {3}', 'a {2} {3} is below a {0} {1}'),
    'still': ('a {0} {1}', 'there is a {0} {1}'),
}


class Scene(NamedTuple):
    """Event of a demo clip.

    Attributes:
        kind (str): One of ``KINDS``, or ``'still'``.
        template (str): Key of the caption templates.
        meaning (tuple[str, ...]): Words that fill the templates. Two scenes with the same template and meaning have the
            same captions.
        sprites (tuple[Sprite, ...]): Sprites to draw.
        background (np.ndarray): Colors of the top and bottom edge in 0 .. 1, [2, 3].
    """
    kind: str
    template: str
    meaning: tuple[str, ...]
    sprites: tuple[Sprite, ...]
    background: np.ndarray

    @property
    def key(self) -> tuple[str, ...]:
        """Content of the captions."""
        return (self.template, *self.meaning)


def paraphrases(scene: Scene) -> list[str]:
    """Return all captions that describe a scene; each describes only scenes of that meaning."""
    return [template.format(*scene.meaning) for template in _TEMPLATES[scene.template]]


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Choose one of the captions at random."""
    options = paraphrases(scene)
    return options[rng.integers(len(options))]


def vocabulary() -> list[str]:
    """Return all words that occur in captions, sorted."""
    words = {word for options in _TEMPLATES.values() for text in options for word in text.split() if '{' not in word}
    return sorted(words | set(COLORS) | set(SHAPES) | set(_STEP))


# -- looks ------------------------------------------------------------------------------------------------------------
def _background(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(0.05, 0.4, (2, 1))
    return np.clip(gray + rng.uniform(-0.04, 0.04, (2, 3)), 0, 1)


def _paint(color: str, rng: np.random.Generator) -> np.ndarray:
    return np.clip(COLORS[color] + rng.uniform(-0.06, 0.06, 3), 0, 1)


def _items(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Choose different (color, shape) pairs."""
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    return [pairs[i] for i in rng.choice(len(pairs), count, replace=False)]


def _sprite(shape: str, keys: list[tuple[float, ...]], paint: np.ndarray) -> Sprite:
    """Build a sprite of one color from keys of (time, x, y, radius, opacity)."""
    times, x, y, radius, opacity = np.array(keys, dtype=float).T
    red, green, blue = (np.full(len(times), channel) for channel in paint)
    return Sprite(shape, times, np.stack([x, y, radius, red, green, blue, opacity], axis=1))


def _places(rng: np.random.Generator, count: int, apart: float, margin: float) -> np.ndarray:
    """Draw points at least ``apart`` from each other by rejection sampling, [count, 2]."""
    while True:
        points = rng.uniform(margin, 1 - margin, (count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(count, 1)]
        if np.all(gaps >= apart):
            return points


# -- kinds: each function makes one group -----------------------------------------------------------------------------
def _reverse(scene: Scene, meaning: tuple[str, ...], template: str | None = None) -> Scene:
    return scene._replace(meaning=meaning, template=template or scene.template,
                          sprites=tuple(sprite.reversed() for sprite in scene.sprites))


def _move(rng: np.random.Generator) -> list[Scene]:
    (color, shape), = _items(rng, 1)
    way = ('left', 'right', 'up', 'down')[rng.integers(4)]
    radius, length = rng.uniform(0.14, 0.19), rng.uniform(0.45, 0.6)
    step = np.array(_STEP[way]) * length / 2
    center = rng.uniform(abs(step) + radius, 1 - abs(step) - radius)
    keys = [(0, *(center - step), radius, 1), (1, *(center + step), radius, 1)]
    scene = Scene('move', 'move', (color, shape, way), (_sprite(shape, keys, _paint(color, rng)), ), _background(rng))
    return [scene, _reverse(scene, (color, shape, _OPPOSITE[way]))]


def _grow(rng: np.random.Generator) -> list[Scene]:
    (color, shape), = _items(rng, 1)
    small, large = rng.uniform(0.07, 0.11), rng.uniform(0.27, 0.36)
    x, y = rng.uniform(large, 1 - large, 2)
    keys = [(0, x, y, small, 1), (1, x, y, large, 1)]
    scene = Scene('grow', 'grows', (color, shape), (_sprite(shape, keys, _paint(color, rng)), ), _background(rng))
    return [scene, _reverse(scene, (color, shape), 'shrinks')]


def _turn(rng: np.random.Generator) -> list[Scene]:
    (before, shape), = _items(rng, 1)
    after = rng.choice([color for color in COLORS if color != before]).item()
    radius = rng.uniform(0.17, 0.24)
    x, y = rng.uniform(radius, 1 - radius, 2)
    middle, half = rng.uniform(0.45, 0.55), rng.uniform(0.04, 0.1)
    one, two = ((x, y, radius, *_paint(color, rng), 1) for color in (before, after))
    sprite = Sprite(shape, np.array([0, middle - half, middle + half, 1]), np.array([one, one, two, two]))
    scene = Scene('turn', 'turn', (shape, before, after), (sprite, ), _background(rng))
    return [scene, _reverse(scene, (shape, after, before))]


def _then(rng: np.random.Generator, count: int) -> list[Scene]:
    """Show one shape after another, each at its own position; returns all orders."""
    items = _items(rng, count)
    places = _places(rng, count, 0.36, 0.2)
    looks = [(_paint(color, rng), rng.uniform(0.14, 0.19)) for color, _ in items]
    background = _background(rng)
    edges = np.linspace(0, 1, count + 1)
    group = []
    for order in permutations(range(count)):
        sprites = []
        for turn, i in enumerate(order):
            start, end = edges[turn], edges[turn + 1]
            place, (paint, radius) = places[i], looks[i]
            # jumps lie between the frame times, which are in the middle of equal parts of the clip
            keys = [(time, *place, radius, seen) for time, seen in
                    ((start - 1e-4, 0), (start + 1e-4, 1), (end - 1e-4, 1), (end + 1e-4, 0))]
            sprites.append(_sprite(items[i][1], keys, paint))
        meaning = tuple(word for i in order for word in items[i])
        group.append(Scene('then', f'then{count}', meaning, tuple(sprites), background))
    # each scene is followed by its reverse
    by_meaning = {scene.meaning: scene for scene in group}
    ordered = []
    while by_meaning:
        meaning, scene = next(iter(by_meaning.items()))
        mirror = tuple(word for k in range(count - 1, -1, -1) for word in meaning[2 * k:2 * k + 2])
        ordered += [scene, by_meaning[mirror]]
        del by_meaning[meaning], by_meaning[mirror]
    return ordered


def _relation(rng: np.random.Generator) -> list[Scene]:
    """Place two shapes that do not move, and the same two with swapped positions; order plays no role."""
    items = _items(rng, 2)
    relation = ('left', 'above')[rng.integers(2)]
    gap, drift = rng.uniform(0.42, 0.56), rng.uniform(-0.12, 0.12)
    offset = np.array((gap, drift) if relation == 'left' else (drift, gap)) / 2
    radii = rng.uniform(0.14, 0.19, 2)
    center = rng.uniform(abs(offset) + radii.max(), 1 - abs(offset) - radii.max())
    paints = [_paint(color, rng) for color, _ in items]
    background = _background(rng)
    group = []
    for first, second in ((0, 1), (1, 0)):
        sprites = tuple(
            _sprite(items[i][1], [(0, *place, radii[i], 1)], paints[i])
            for i, place in ((first, center - offset), (second, center + offset)))
        group.append(Scene('relation', relation, items[first] + items[second], sprites, background))
    return group


def _still(rng: np.random.Generator) -> list[Scene]:
    (color, shape), = _items(rng, 1)
    radius = rng.uniform(0.08, 0.35)
    place = rng.uniform(min(radius, 0.3), 1 - min(radius, 0.3), 2)
    sprite = _sprite(shape, [(0, *place, radius, 1)], _paint(color, rng))
    return [Scene('still', 'still', (color, shape), (sprite, ), _background(rng))]


class _Kind(NamedTuple):
    make: Callable[[np.random.Generator], list[Scene]]
    share: float  # share of the videos of a split
    ordered: bool  # the scenes of a group differ only in the order of frames; each is next to its reverse


KINDS = {
    'move': _Kind(_move, 0.14, True),
    'grow': _Kind(_grow, 0.12, True),
    'turn': _Kind(_turn, 0.2, True),
    'then2': _Kind(lambda rng: _then(rng, 2), 0.16, True),
    'then3': _Kind(lambda rng: _then(rng, 3), 0.24, True),
    'relation': _Kind(_relation, 0.12, False),
}
_STILL = _Kind(_still, 0.0, False)


def make_group(kind: str, rng: np.random.Generator) -> list[Scene]:
    """Make a group of scenes. Those of an ordered kind are listed as scene, reverse, scene, reverse ...

    Args:
        kind (str): One of ``KINDS``, or ``'still'``: a single shape, for pre-training.
        rng (np.random.Generator): Random generator.

    Returns:
        list[Scene]: 1, 2 or 6 scenes.
    """
    return (_STILL if kind == 'still' else KINDS[kind]).make(rng)


def make_split(seed: tuple[int, ...], count: int, unique: bool) -> Iterator[tuple[Scene, int | None]]:
    """Yield the scenes of one split, in the fixed shares of ``KINDS``.

    Args:
        seed (tuple[int, ...]): Random seed.
        count (int): Number of scenes.
        unique (bool): Make all scenes differ in meaning, so that every caption has exactly one right scene.

    Yields:
        tuple[Scene, int | None]: The scene and, for a kind that depends on order, the index of its reverse.

    Raises:
        ValueError: There are fewer different scenes than requested.
    """
    rng = np.random.default_rng(seed)
    seen: set[tuple[str, ...]] = set()
    made = 0
    for kind, target in _targets(count):
        end = made + target
        misses = 0
        while made < end:
            group = make_group(kind, rng)[:end - made]
            if unique and not seen.isdisjoint(scene.key for scene in group):
                misses += 1
                if misses > 1000:
                    raise ValueError(f'there are not enough different scenes of the kind {kind!r} for {count} clips; '
                                     'ask for fewer')
                continue
            seen.update(scene.key for scene in group)
            for i, scene in enumerate(group):
                yield scene, (made + i) ^ 1 if KINDS[kind].ordered else None
            made += len(group)


def _targets(count: int) -> list[tuple[str, int]]:
    """Return the number of scenes of each kind; even for ordered kinds, so that every scene has its reverse."""
    targets = {name: 2 * int(kind.share * count / 2) for name, kind in KINDS.items()}
    targets['relation'] += count - sum(targets.values())
    return list(targets.items())


def random_scene(rng: np.random.Generator) -> Scene:
    """Make a random scene of any kind."""
    names = list(KINDS)
    group = make_group(names[rng.choice(len(names), p=[kind.share for kind in KINDS.values()])], rng)
    return group[rng.integers(len(group))]
