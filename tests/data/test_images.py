"""Pictures from disk."""

import numpy as np
import pytest
from PIL import Image

from mrcnn_scratch.data.images import read_image
from mrcnn_scratch.errors import InputError

RED, GREEN, WHITE = [255, 0, 0], [0, 255, 0], [255, 255, 255]


@pytest.fixture
def saved(tmp_path):
    """Save a Pillow image (or bytes) and read it back."""

    def save(image, name="picture.png", **options):
        path = tmp_path / name
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        return path

    return save


# Kinds of pictures


def test_rgb(saved):
    """One row of a red and a green pixel: (H, W, 3), rows first."""
    pixels = np.array([[RED, GREEN]], np.uint8)
    image = read_image(saved(Image.fromarray(pixels)))
    assert image.dtype == np.uint8
    assert image.tolist() == [[RED, GREEN]]
    assert image.flags.writeable


def test_grey(saved):
    image = read_image(saved(Image.fromarray(np.array([[0, 128, 255]], np.uint8))))
    assert image.tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_black_and_white(saved):
    image = read_image(saved(Image.fromarray(np.array([[False, True]]))))
    assert image.tolist() == [[[0] * 3, WHITE]]


def test_sixteen_bit_grey(saved):
    """The upper 8 of 16 bits: 65535 is white, half of it grey, 1000 nearly black."""
    image = read_image(saved(Image.fromarray(np.array([[0, 1000, 32768, 65535]], np.uint16))))
    assert image[0, :, 0].tolist() == [0, 3, 128, 255]


def test_palette(saved):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    assert read_image(saved(palette)).tolist() == [[RED, GREEN]]


def test_transparent_pixels_are_white(saved):
    """Opaque red, half transparent black over white, and nothing at all, whatever its colour."""
    pixels = np.array([[[*RED, 255], [0, 0, 0, 128], [*GREEN, 0]]], np.uint8)
    assert read_image(saved(Image.fromarray(pixels))).tolist() == [[RED, [127] * 3, WHITE]]


def test_a_transparent_palette_entry_is_white(saved):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    assert read_image(saved(palette, transparency=1)).tolist() == [[RED, WHITE]]


def test_cmyk(saved):
    """A JPEG for the press: no ink is white."""
    image = read_image(saved(Image.new("CMYK", (8, 8)), "picture.jpg"))
    assert image.shape == (8, 8, 3)
    assert image.min() > 250


ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # the camera was held upright: a quarter turn clockwise
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turned_as_exif_says(saved, orientation):
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(stored), exif=exif)
    assert np.array_equal(read_image(path), ORIENTATIONS[orientation](stored))


# Files that are none


def refused(path, message):
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    refused(tmp_path / "nothing.png", "there is no file")


def test_a_folder(tmp_path):
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89", b"\x89PNG\r\n\x1a\n"])
def test_not_a_picture(saved, data):
    refused(saved(data), "not a picture|damaged")


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.gif", "picture.bmp", "picture.webp"])
def test_truncated(saved, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = saved(Image.fromarray(noise), name).read_bytes()
    refused(saved(whole[: len(whole) // 2], name), "damaged|not a picture")


def test_corrupt(saved):
    """A flipped bit amid the compressed pixels fails the checksum."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(saved(Image.fromarray(noise)).read_bytes())
    data[len(data) // 2] ^= 1
    refused(saved(bytes(data)), "damaged")


@pytest.mark.parametrize("side", [11, 15])
def test_a_picture_of_too_many_pixels(saved, monkeypatch, side):
    """Pillow warns over its limit and refuses over twice of it; here both are refused, before any pixel is read."""
    path = saved(Image.new("RGB", (side, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 if side == 11 else 70)
    refused(path, "more than .* pixels: make it smaller")


def test_a_picture_of_just_so_many_pixels(saved, monkeypatch):
    path = saved(Image.new("RGB", (10, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(path).shape == (10, 10, 3)
