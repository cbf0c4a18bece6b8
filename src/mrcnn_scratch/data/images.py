"""Pictures from disk."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..backend import Array
from ..errors import InputError


def read_image(path: Path) -> Array:
    """Any picture that Pillow reads (grey, palette, with transparency, rotated by EXIF) as uint8 (H, W, 3) RGB.

    Raises:
        InputError: there is no such file, it is not a picture, it is damaged, or it is too large (Pillow's limit).
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # the last one set is asked first
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                return np.array(_without_transparency(_eight_bits(upright)).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller first") from None
    except Exception as error:  # Pillow's decoders raise all sorts on damaged files
        raise InputError(f"{path} is damaged or cannot be read: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits. Pillow's own conversion would make white of all that is over 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))


def _without_transparency(image: Image.Image) -> Image.Image:
    """Transparent pictures over white, which is what they are usually looked at on."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
