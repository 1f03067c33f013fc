import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from vop_mm.datasets.transforms import ResizeFrames, short_side_size


def noise(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def resize(size, *images, **kwargs):
    return ResizeFrames(size=size, **kwargs)(dict(imgs=list(images), img_shape=images[0].shape[:2]))


@pytest.mark.parametrize('height, width', [(240, 320), (320, 240), (360, 641), (100, 333), (224, 500), (50, 50)])
def test_short_side_equals_torchvision(height, width):
    image = noise(height, width, 3)
    results = resize(224, image, image[::-1])
    expected = functional.resize(Image.fromarray(image), 224, functional.InterpolationMode.BICUBIC)
    assert results['img_shape'] == (expected.height, expected.width) == short_side_size(height, width, 224)
    np.testing.assert_array_equal(results['imgs'][0], np.asarray(expected))


def test_exact_size_is_height_and_width():
    image = noise(100, 60, 3)
    results = resize((40, 30), image)
    assert results['img_shape'] == (40, 30)
    by_hand = Image.fromarray(image).resize((30, 40), Image.BICUBIC)
    np.testing.assert_array_equal(results['imgs'][0], np.asarray(by_hand))


def test_views_and_frames_that_fit():
    image = noise(80, 90, 3)
    np.testing.assert_array_equal(resize((20, 20), image[10:70, 5:65])['imgs'][0],
                                  resize((20, 20), image[10:70, 5:65].copy())['imgs'][0])
    np.testing.assert_array_equal(resize((80, 90), image)['imgs'][0], image)


@pytest.mark.parametrize('args', [dict(size=0), dict(size=(1, 2, 3)), dict(interpolation='nearest')])
def test_wrong_arguments(args):
    with pytest.raises(ValueError):
        ResizeFrames(**args)
