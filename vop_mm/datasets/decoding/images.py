"""Read image files as a viewer shows them."""
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from vop_mm.utils.paths import open_regular

from ..errors import VideoDecodeError
from .limits import Limits

# Not more: Pillow passes some formats to other programs (EPS to Ghostscript), or reads them with rarely reviewed code.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF')


def read_image(path_or_file: str | Path | BinaryIO, name: str | None = None) -> np.ndarray:
    """Read an image file: oriented by its EXIF data, 16 bits reduced to 8, transparency blended over white.

    Args:
        path_or_file (str | Path | BinaryIO): Image file; the first picture of an animation is used.
        name (str, optional): Name for error messages. Defaults to the path.

    Returns:
        np.ndarray: uint8 [H, W, 3] RGB.

    Raises:
        VideoDecodeError: The file is missing, not an image of a supported format, damaged, or exceeds the limits.
    """
    is_path = isinstance(path_or_file, (str, os.PathLike))
    name = name or (os.fspath(path_or_file) if is_path else 'the image')
    limits = Limits.current()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limits.image_pixels  # Pillow refuses at twice this number
    try:
        file = open_regular(path_or_file) if is_path else path_or_file
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                limits.check_image(name, size, image.height, image.width)
                return _rgb(ImageOps.exif_transpose(image))
        finally:
            if is_path:
                file.close()
    except (VideoDecodeError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise VideoDecodeError(name, f'an image of more than {limits.image_pixels:,} pixels is too large') from None
    except Image.UnidentifiedImageError:
        raise VideoDecodeError(name, f'not an image ({", ".join(_FORMATS)})') from None
    except Exception as e:  # Pillow's readers raise many types: SyntaxError, struct.error, TypeError ...
        raise VideoDecodeError(name, getattr(e, 'strerror', None) or 'damaged, or not an image') from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == 'F':
        raise VideoDecodeError('the image', 'floating-point pixels without a known white level')
    if image.mode.startswith('I'):  # 16-bit grayscale, which Pillow's own conversion clips
        gray = np.clip(np.asarray(image).astype(np.int64) // 257, 0, 255).astype(np.uint8)
        return gray[..., None].repeat(3, axis=-1)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert('RGB'))
