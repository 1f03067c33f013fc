"""The demo's scenes, and how they are drawn."""
import numpy as np

from demo.shapes import long_exposure, make_group, make_split


def test_no_two_test_scenes_mean_the_same():
    scenes = [scene for scene, _ in make_split((0, 2, 0, 1), 300, unique=True)]
    assert len({scene.key for scene in scenes}) == len(scenes) == 300


def test_long_exposure_is_bright_where_it_happened_last():
    rng = np.random.default_rng(0)
    while (scene := make_group('move', rng)[0]).meaning[2] != 'left':
        pass
    empty = long_exposure((), scene.background, 40)
    seen = abs(long_exposure(scene.sprites, scene.background, 40) - empty).sum(axis=(0, 2))  # [width]
    x, _, radius = scene.sprites[0].at(np.array([0.0, 1.0]))[:, :3].T
    first, last = (seen[int(40 * (x[i] - radius[i])):int(40 * (x[i] + radius[i]))].sum() for i in (0, 1))
    assert last > 2 * first > 0
