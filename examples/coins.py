"""Train on your own photographs, first half: from one photograph to COCO files.

    python examples/coins.py --out runs/coins

The photograph is scikit-image's ``coins``: 24 Greek coins from Pompeii on dark, unevenly lit ground. The coins are
labelled as scikit-image's segmentation tutorial labels them, by a watershed. The picture is cut into tiles; the three
upper rows of coins are for training, the lowest row is held out. To use a picture of your own, replace
:func:`label_coins` by whatever labels your objects; all that follows it needs is a number for every pixel.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mrcnn_scratch.data.rle import encode_rle
from mrcnn_scratch.data.shapes import mask_boxes

try:
    from scipy import ndimage
    from skimage import data, filters, segmentation
except ImportError:
    sys.exit("examples/coins.py needs scikit-image: pip install scikit-image")

BORDER = 227
"""First held-out row of pixels, between the third row of coins, which ends at 218, and the fourth, from 233 on."""
ROWS = {"train": slice(0, BORDER), "val": slice(BORDER, None)}
TILE = (72, 112)
"""Height and width. The tallest coin, 62 pixels, fits in; the network enlarges the width to its 128."""
STEP = {"train": 4, "val": 8}
"""Pixels from one window to the next. A few held-out tiles will do; training wants each coin in many places."""
LEAST_VISIBLE = 0.4
"""A coin that the edge of a tile cuts must still show this share of its pixels."""
SPECK = 200
"""Pixels. What is smaller is no coin: the smallest coin has over 1,000."""


def label_coins(photo: np.ndarray) -> np.ndarray:
    """Grey (H, W) to the number of the coin at each pixel: (H, W) int, 1 and up, 0 for the ground.

    No single threshold separates coins from ground, for the light is uneven. But some pixels are surely ground (under
    30) or surely coin (over 150); from these the watershed floods the gradient's relief until the two meet on its
    ridges, the rims.
    """
    seeds = np.zeros(photo.shape, np.int32)
    seeds[photo < 30] = 1
    seeds[photo > 150] = 2
    flooded = segmentation.watershed(filters.sobel(photo), seeds)
    pieces, _ = ndimage.label(ndimage.binary_fill_holes(flooded == 2))
    coins = np.bincount(pieces.reshape(-1)) >= SPECK
    coins[0] = False  # the ground
    return (np.cumsum(coins) * coins)[pieces]  # numbered anew, without gaps


def tiles(labels: np.ndarray, rows: slice, step: int) -> Iterator[tuple[slice, slice]]:
    """The windows (rows, columns) of TILE's size within ``rows`` whose labels are beyond doubt.

    Take a tile with the sliver of a coin at its edge. Unlabelled, the sliver teaches that a coin's rim is ground.
    Labelled, it teaches that any bright crescent is a coin. ``iscrowd: 1`` is for such things: training and evaluation
    pass over what lies in it. But one picture gives far more windows than are needed, and a window without any doubt is
    better still, so windows with slivers are not used at all.
    """
    height, width = TILE
    first, last, _ = rows.indices(labels.shape[0])
    whole = np.bincount(labels.reshape(-1))
    for y in range(first, last - height + 1, step):
        for x in range(0, labels.shape[1] - width + 1, step):
            window = slice(y, y + height), slice(x, x + width)
            seen = np.bincount(labels[window].reshape(-1), minlength=len(whole))
            visible = (seen / whole)[1:]
            if visible.any() and ((visible == 0) | (visible >= LEAST_VISIBLE)).all():
                yield window


def annotations(labels: np.ndarray, image_id: int) -> list[dict]:
    """COCO's description of each coin in a tile (H, W); ``id`` is still missing, which counts over all tiles."""
    masks = labels == np.unique(labels[labels > 0])[:, None, None]  # (G, H, W)
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(mask.sum()),
            "segmentation": encode_rle(mask),
            "iscrowd": 0,
        }
        for mask, (x1, y1, x2, y2) in zip(masks, mask_boxes(masks).tolist(), strict=True)
    ]


def write_split(out: Path, split: str, photo: np.ndarray, labels: np.ndarray) -> tuple[int, int, int]:
    """Write ``out/<split>/*.png`` and ``out/<split>.json``; return how many tiles, coins and views of coins."""
    (out / split).mkdir(parents=True, exist_ok=True)
    images, objects = [], []
    for number, window in enumerate(tiles(labels, ROWS[split], STEP[split]), start=1):
        name = f"{number:04d}.png"
        Image.fromarray(photo[window]).save(out / split / name)
        images.append({"id": number, "file_name": name, "height": TILE[0], "width": TILE[1]})
        objects += annotations(labels[window], number)
    for number, annotation in enumerate(objects, start=1):
        annotation["id"] = number  # from 1: pycocotools takes 0 for "no match"
    coco = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "coin"}]}
    (out / f"{split}.json").write_text(json.dumps(coco))
    return len(images), len(np.unique(labels[ROWS[split]])) - 1, len(objects)


def draw_labels(photo: np.ndarray, labels: np.ndarray, scale: int = 3) -> Image.Image:
    """The photograph, enlarged: training coins outlined in blue, held-out ones in orange, between them a white line."""
    photo, labels = (np.repeat(np.repeat(a, scale, axis=0), scale, axis=1) for a in (photo, labels))
    picture = np.stack([photo] * 3, axis=-1)
    outline = segmentation.find_boundaries(labels)  # two pixels wide, on both sides of the edge
    outline_of = {"train": (80, 180, 255), "val": (255, 160, 0)}
    for split, rows in ROWS.items():
        part = slice(rows.start * scale, rows.stop and rows.stop * scale)
        picture[part][outline[part]] = outline_of[split]
    picture[BORDER * scale] = 255
    return Image.fromarray(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scikit-image's coins as COCO files for training.")
    parser.add_argument("--out", type=Path, default=Path("runs/coins"), help="folder to write to (runs/coins)")
    out = parser.parse_args().out
    photo = data.coins()
    labels = label_coins(photo)
    print("split   tiles  coins  views of coins")
    try:
        for split in ROWS:
            print("{:6} {:6} {:6} {:15}".format(split, *write_split(out, split, photo, labels)))
        draw_labels(photo, labels).save(out / "labels.png")
    except OSError as error:
        sys.exit(f"cannot write to {out}: {error.strerror or error}; choose another folder with --out")
    print(f"In {out}: train.json and val.json, their tiles in train/ and val/; labels.png shows what was labelled.")


if __name__ == "__main__":
    main()
