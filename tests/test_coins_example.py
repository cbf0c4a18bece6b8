"""``examples/coins.py``: from a photograph to COCO files."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_scratch.data.images import read_image
from mrcnn_scratch.data.rle import encode_rle

SCRIPT = Path(__file__).parent.parent / "examples" / "coins.py"


def load():
    """The script as a module; its ``main`` does not run."""
    spec = importlib.util.spec_from_file_location("coins_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def coins():
    return load()


@pytest.fixture(scope="module")
def labels(coins):
    return coins.label_coins(coins.data.coins())


@pytest.fixture(scope="module")
def out(coins, tmp_path_factory):
    """The folder that one run of the script leaves."""
    folder = tmp_path_factory.mktemp("coins") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["coins.py", "--out", str(folder)])
        coins.main()
    return folder


# By hand


def test_windows_with_slivers_are_left_out(coins, monkeypatch):
    """A coin 5 wide, windows 4 wide: 1 of 5 columns visible is a sliver, 2 of 5 are the 40 % that must be."""
    monkeypatch.setattr(coins, "TILE", (1, 4))
    strip = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]])
    windows = [columns.start for _, columns in coins.tiles(strip, slice(0, None), step=1)]
    assert windows == [2, 3, 4, 5, 6, 7]  # 0 shows no coin; 1 and 8 show a sliver


def test_annotations_of_a_small_tile(coins):
    first, second = coins.annotations(np.array([[0, 7, 7, 0], [0, 0, 7, 0], [3, 0, 0, 0]]), image_id=5)
    assert first["bbox"] == [0, 2, 1, 1]
    assert first["area"] == 1
    assert second["bbox"] == [1, 0, 2, 2]  # x, y, width, height
    assert second["area"] == 3
    assert second["segmentation"] == encode_rle(np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]))
    assert (second["image_id"], second["category_id"], second["iscrowd"]) == (5, 1, 0)


# The photograph


def test_24_coins(coins, labels):
    assert np.unique(labels).tolist() == list(range(25))
    areas = np.bincount(labels.reshape(-1))[1:]
    assert areas.min() > 1000  # no speck
    assert areas.max() < 3500  # no two coins in one
    assert coins.ndimage.label(labels == 0)[1] == 1  # the ground is one piece: no coin has a hole


def test_every_coin_is_round(labels):
    """An ellipse fills pi/4 = 78.5 % of its box; a coin that is torn or runs out into the ground does not."""
    for coin in range(1, 25):
        rows, columns = np.nonzero(labels == coin)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.7 < len(rows) / (height * width) < 0.83
        assert 0.8 < height / width < 1.25


def test_no_coin_and_no_pixel_in_both_splits(coins, labels):
    rows, numbers = {}, {}
    for split in ("train", "val"):
        windows = list(coins.tiles(labels, coins.ROWS[split], coins.STEP[split]))
        rows[split] = {y for window, _ in windows for y in range(window.start, window.stop)}
        numbers[split] = {number for window in windows for number in np.unique(labels[window]).tolist()} - {0}
    assert not rows["train"] & rows["val"]
    assert not numbers["train"] & numbers["val"]
    assert (len(numbers["train"]), len(numbers["val"])) == (18, 6)


def test_every_coin_is_seen_whole(coins, labels):
    areas = np.bincount(labels.reshape(-1))
    seen = np.zeros_like(areas)
    for split in ("train", "val"):
        for window in coins.tiles(labels, coins.ROWS[split], coins.STEP[split]):
            seen = np.maximum(seen, np.bincount(labels[window].reshape(-1), minlength=25))
    assert seen[1:].tolist() == areas[1:].tolist()


# The files, read by COCO's own code


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
def test_files(out, coins, labels, split):
    coco = COCO(out / f"{split}.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["coin"]
    assert len(list((out / split).iterdir())) == len(coco.imgs) > 10
    windows = coins.tiles(labels, coins.ROWS[split], coins.STEP[split])
    for image, window in zip(coco.imgs.values(), windows, strict=True):
        tile = read_image(out / split / image["file_name"])
        assert tile.shape == (image["height"], image["width"], 3) == (*coins.TILE, 3)
        assert np.array_equal(tile[:, :, 0], coins.data.coins()[window])
        objects = coco.imgToAnns[image["id"]]
        masks = [coco.annToMask(annotation) for annotation in objects]
        assert np.array_equal(sum(masks), labels[window] > 0)  # every coin, and no pixel twice
        for annotation, mask in zip(objects, masks, strict=True):
            check_annotation(annotation, mask)


def check_annotation(annotation, mask):
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    assert annotation["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
    assert annotation["area"] == mask.sum() > 0
    assert (annotation["category_id"], annotation["iscrowd"]) == (1, 0)


def test_numbers_start_at_one_and_are_unique(out):
    for split in ("train", "val"):
        dataset = COCO(out / f"{split}.json").dataset
        for kind in ("images", "annotations"):
            numbers = [entry["id"] for entry in dataset[kind]]
            assert numbers == list(range(1, len(numbers) + 1))


def test_picture_of_the_labels(out):
    picture = np.asarray(Image.open(out / "labels.png"))
    assert picture.shape == (3 * 303, 3 * 384, 3)
    blue, orange = ((picture == colour).all(axis=2).any(axis=1) for colour in [(80, 180, 255), (255, 160, 0)])
    assert np.flatnonzero(blue).max() < 3 * 227 < np.flatnonzero(orange).min()
    assert (picture[3 * 227] == 255).all()


# Bad input


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)  # what Python takes for "not installed"
    with pytest.raises(SystemExit, match=r"needs scikit-image: pip install scikit-image"):
        load()


def test_a_folder_that_cannot_be(coins, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["coins.py", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match=r"cannot write to .*file: .*choose another folder"):
        coins.main()
