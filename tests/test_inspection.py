"""What a data set looks like to the network: counts, sizes, anchors that fit, hints, and the sheet of pictures."""

import json
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.contour import ContourSet
from PIL import Image
from tiny import TINY, tiny_model

from mrcnn_scratch import visualize
from mrcnn_scratch.boxes import box_iou
from mrcnn_scratch.config import SHAPES, AnchorConfig, RoIConfig, TransformConfig
from mrcnn_scratch.data.coco import CocoDataset, Problem
from mrcnn_scratch.data.shapes import CLASSES, ShapesDataset
from mrcnn_scratch.data.transforms import resize_boxes, resized_size
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.inspection import (
    best_anchor_iou,
    grid_sizes,
    inspect,
    padded_size,
)
from mrcnn_scratch.inspection_report import format_inspection
from mrcnn_scratch.rpn.anchors import AnchorGenerator, cell_anchors
from mrcnn_scratch.structures import Target
from mrcnn_scratch.visualize.labels import shorten

SQUARES = replace(
    SHAPES,
    transform=TransformConfig(64, 64),
    anchors=AnchorConfig(sizes=((4.0,), (16.0,), (32.0,), (64.0,), (128.0,)), aspect_ratios=(1.0,)),
)
"""64 x 64 pixels; the anchors of 16 lie on P3, a place every 8 pixels."""
SPARSE = AnchorConfig(sizes=((1.0, 2.0),) * 5, aspect_ratios=(0.2, 1.0))
"""Anchors with gaps between them, into which a small box falls: it has nothing in common with any."""


class Examples(list):
    """A data set written down by hand."""

    classes = ("square", "circle")


def example(boxes, size=(64, 64), labels=None, crowd=None):
    """A black image and rectangular objects."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    labels = np.ones(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd, bool)
    return np.zeros((*size, 3), np.uint8), Target(boxes, labels, masks, crowd)


# The anchors: on paper, by brute force, and the network's own


def test_four_squares_by_hand():
    """Squares of 16 and anchors of 16 every 8 pixels: [0, 16], [8, 24], [16, 32], ... along each axis.

    A square that is dx and dy off the nearest anchor shares (16 - dx)(16 - dy) pixels of 512 - that with it.
    """
    boxes = np.array(
        [
            [8, 8, 24, 24],  # on an anchor: 256 / 256
            [10, 40, 26, 56],  # 2 to the right of one: 14 * 16 = 224, of 288
            [42, 10, 58, 26],  # 2 to the right and 2 down: 14 * 14 = 196, of 316
            [44, 44, 60, 60],  # halfway between four: 12 * 12 = 144, of 368
        ],
        np.float32,
    )
    cells = [cell_anchors(sizes, (1.0,)) for sizes in SQUARES.anchors.sizes]
    iou = best_anchor_iou(boxes, cells, (64, 64))
    np.testing.assert_allclose(iou, [1, 224 / 288, 196 / 316, 144 / 368], rtol=1e-6)  # 1, .778, .620, .391

    total = inspect(Examples([example(boxes)]), SQUARES).total
    assert total.unmatched == 1  # the last
    assert total.low_quality == 2  # the last two are under .7
    assert (total.small, total.large) == (0, 0)
    assert total.sides == (16, 16, 16, 16, 16)


def test_sides_are_those_of_the_resized_image():
    """A photo of 32 x 16 becomes 64 x 32: an object of 9 x 4 pixels has 18 x 8 there, and the side 12."""
    found = inspect(Examples([example([[0, 0, 4, 9]], size=(32, 16))]), SQUARES)
    assert found.total.sides == (12, 12, 12, 12, 12)
    assert (found.heights, found.widths) == ((32, 32, 32), (16, 16, 16))


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([(32, 32), (64, 96), (160, 64)]),
    count=st.integers(0, 6),
    largest=st.sampled_from([1.0, 0.02]),
    anchors=st.sampled_from([SHAPES.anchors, SPARSE]),
)
def test_the_best_anchor_is_the_best_of_all(seed, size, count, largest, anchors):
    """To the bit: the greatest IoU in the row of each box, among all anchors that the generator lays out."""
    rng = np.random.default_rng(seed)
    sides = np.array([*size[::-1], *size[::-1]], np.float32)
    boxes = rng.uniform(0, 1, (count, 4)).astype(np.float32)
    boxes[:, 2:] = np.minimum(boxes[:, :2] + largest * boxes[:, 2:] + 1e-3, 1)
    boxes *= sides
    every = AnchorGenerator(anchors.sizes, anchors.aspect_ratios)(grid_sizes(size, 5), size)
    cells = [cell_anchors(level, anchors.aspect_ratios) for level in anchors.sizes]
    np.testing.assert_array_equal(best_anchor_iou(boxes, cells, size), box_iou(boxes, every).max(axis=1))


@pytest.mark.parametrize("size", [(64, 64), (20, 77), (200, 31)])
def test_the_anchors_are_the_networks_own(size):
    config = replace(TINY, transform=TransformConfig(64, 160))  # sides of 32, 64, 96 and 160 when padded
    model, image = tiny_model(config=config), np.zeros((*size, 3), np.uint8)
    pixels = model.batch([image]).pixels
    features, _ = model.features(pixels)
    assert padded_size(size, config.transform) == pixels.shape[1:3]
    assert grid_sizes(pixels.shape[1:3], 5) == [level.shape[1:3] for level in features]


def test_toy_scenes_object_by_object():
    """The slow way: every object against every anchor, and the counts by hand."""
    scenes, config = ShapesDataset(seed=3, length=12), replace(SHAPES, transform=TransformConfig(96, 96))
    best, sides, labels = [], [], []
    for image, target in scenes:
        size = image.shape[:2]
        every = AnchorGenerator(config.anchors.sizes, config.anchors.aspect_ratios)(grid_sizes((96, 96), 5), (96, 96))
        for box, label in zip(
            resize_boxes(target.boxes, size, resized_size(size, config.transform)), target.labels, strict=True
        ):
            best.append(max(float(iou) for iou in box_iou(box[None], every)[0]))
            sides.append(math.sqrt(float((box[2] - box[0]) * (box[3] - box[1]))))
            labels.append(int(label))
    found = inspect(scenes, config)
    assert found.total.objects == len(best)
    assert found.total.unmatched == sum(iou < 0.5 for iou in best)
    assert found.total.low_quality == sum(iou < 0.7 for iou in best)
    for label, report in enumerate(found.classes, start=1):
        own = [side for side, k in zip(sides, labels, strict=True) if k == label]
        assert report.name == CLASSES[label - 1]
        assert report.objects == len(own)
        assert report.images == sum(label in target.labels for _, target in scenes)
        np.testing.assert_allclose(report.sides, np.percentile(own, [0, 25, 50, 75, 100]), rtol=1e-5)
        assert report.unmatched == sum(iou < 0.5 for iou, k in zip(best, labels, strict=True) if k == label)
    assert found.most_objects == max(len(target) for _, target in scenes)


# What counts


def test_crowds_are_no_objects():
    """One square, and a crowd of circles that would be the largest, the only unmatched and the only circle."""
    pair = example([[8, 8, 24, 24], [30, 0, 33, 64]], labels=[1, 2], crowd=[False, True])
    alone = example([[0, 0, 64, 64]], labels=[2], crowd=[True])
    found = inspect(Examples([pair, alone]), SQUARES)
    square, circle = found.classes
    assert (square.objects, square.crowds, square.images) == (1, 0, 1)
    assert (circle.objects, circle.crowds, circle.images) == (0, 2, 0)
    assert all(math.isnan(side) for side in circle.sides)
    assert (found.total.objects, found.total.crowds, found.total.unmatched) == (1, 2, 0)
    assert found.images_without_objects == 1
    assert found.most_objects == 1


def test_an_empty_data_set():
    found = inspect(Examples(), SQUARES)
    assert (found.images, found.total.objects, found.most_objects) == (0, 0, 0)
    assert "there are no images to learn from" in format_inspection(found)


def test_images_without_objects():
    found = inspect(Examples([example([]), example([], size=(10, 30))]), SQUARES)
    assert (found.images, found.images_without_objects) == (2, 2)
    assert (found.heights, found.widths) == ((10, 37, 64), (30, 47, 64))
    report = format_inspection(found)
    assert "there are no objects to learn" in report
    assert "nan" not in report


def test_one_image_at_a_time():
    """When the next image is asked for, at most the last one is still there."""
    alive = weakref.WeakSet()

    class Witness(Examples):
        asked = ()

        def __getitem__(self, i):
            assert len(alive) <= 1
            self.asked += (i,)
            image, target = example([[0, 0, 9, 9]])
            mask = target.masks
            alive.add(Holder(mask))
            return image, target

    class Holder:  # lives as long as the mask does
        def __init__(self, mask):
            weakref.finalize(mask, alive.discard, self)

    data = Witness([None] * 5)
    inspect(data, SQUARES)
    assert data.asked == (0, 1, 2, 3, 4)


def test_a_bad_label_is_named():
    with pytest.raises(InputError, match=r"image 1: labels must be in 1\.\.2, got \[3\]"):
        inspect(Examples([example([]), example([[0, 0, 9, 9]], labels=[3])]), SQUARES)


def test_what_the_problems_name_is_left_out(tmp_path):
    """Of three images one is missing, and of the others' annotations one has no area."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    square = [[8, 8, 24, 8, 24, 24, 8, 24]]
    data = {
        "images": [
            {"id": i, "file_name": name, "height": 64, "width": 64}
            for i, name in enumerate(("a.png", "b.png", "gone.png"))
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [8, 8, 16, 16], "segmentation": square},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [8, 8, 0, 16], "segmentation": square},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [8, 8, 16, 16], "segmentation": square},
        ],
        "categories": [{"id": 1, "name": "square"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(data))
    dataset = CocoDataset(tmp_path / "labels.json", tmp_path)
    problems = dataset.find_problems()
    found = inspect(dataset, SQUARES, problems)
    assert (found.images, found.images_without_objects, found.total.objects) == (2, 1, 1)
    lines = format_inspection(found, problems).splitlines()
    start = lines.index("2 problems in the data:")
    assert sorted(line for line in lines[start:] if line.startswith("  ") and line[2] != " ") == [
        "  b.png",
        "  gone.png",
    ]


# The report


def hints(examples, config=SQUARES):
    return [line for line in format_inspection(inspect(Examples(examples), config)).splitlines() if line[:1] == "*"]


def test_objects_that_fit_need_no_hint():
    assert hints([example([[8, 8, 24, 24], [0, 0, 32, 32]], labels=[1, 2])]) == []


def whole_hint(examples, config=SQUARES):
    report = format_inspection(inspect(Examples(examples), config))
    return " ".join(report[report.index("\n*") :].split())


def test_small_objects():
    """2 px where the smallest anchor has 4: twice the image would do, or smaller anchors."""
    hint = whole_hint([example([[8, 8, 10, 10], [8, 8, 24, 24]], labels=[1, 2])])
    assert hint.startswith("* 1 of 2 objects match no anchor at IoU .5: they are smaller than 4 px (median 2.0); ")
    assert "raise --min-size to 128 and --max-size to 128, or add smaller anchor sizes" in hint


def test_specks_are_not_worth_enlarging_the_image():
    """From half a pixel to 4 it takes 8 times the image, 64 times the work."""
    image = example([[8, 8, 9, 9]], size=(128, 128))
    hint = whole_hint([image])
    assert "--min-size" not in hint
    assert "(median 0.5); add smaller anchor sizes" in hint


def test_large_objects():
    config = replace(SQUARES, anchors=replace(SQUARES.anchors, sizes=((4.0,), (8.0,), (12.0,), (16.0,), (20.0,))))
    assert "larger than 20 px (median 60); add larger anchor sizes" in whole_hint([example([[0, 0, 60, 60]])], config)


def test_elongated_objects():
    """Height over width 16, among square anchors."""
    hint = whole_hint([example([[20, 0, 24, 64]])])
    assert "height over width is 16 to 16, the anchors' 1 to 1; add aspect ratios" in hint


def test_objects_between_the_anchors():
    assert "between the anchors' sizes or places" in whole_hint([example([[44, 44, 60, 60]])])


def test_every_unmatched_object_has_one_reason():
    found = inspect(ShapesDataset(0, 40), replace(SHAPES, transform=TransformConfig(24, 24)))
    assert found.total.unmatched > 0
    assert sum(found.misfits.values()) == found.total.unmatched


def test_more_objects_than_the_network_reports():
    crowded = example([[8 * i, 0, 8 * i + 8, 8] for i in range(4)])
    config = replace(SQUARES, roi=RoIConfig(detections=3))
    assert any("has 4 objects, but at most 3 are detected" in hint for hint in hints([crowded], config))
    assert not any("detected" in hint for hint in hints([crowded], replace(SQUARES, roi=RoIConfig(detections=4))))


def test_classes_and_images_that_teach_nothing():
    report = " ".join(hints([example([[8, 8, 24, 24]]), example([]), example([])]))
    assert "no objects of circle: label some, or leave the class out" in report
    assert "2 of 3 images have no objects" in report


def test_the_table_is_at_most_100_columns_wide():
    class Long(Examples):
        classes = ("a class with\na very long name indeed", "b")

    many = [example([[0, 0, 64, 1]] * 30, size=(64, 64), labels=[1, 2] * 15)] * 3
    large = replace(SQUARES, transform=TransformConfig(6400, 9999))
    report = format_inspection(inspect(Long(many), large))
    assert "a class... indeed" in report
    assert max(map(len, report.splitlines())) <= 100


def test_the_table_has_the_numbers():
    boxes = [[8, 8, 24, 24], [10, 40, 26, 56], [42, 10, 58, 26], [44, 44, 60, 60]]
    lines = format_inspection(inspect(Examples([example(boxes)]), SQUARES)).splitlines()
    names = next(line for line in lines if "objects crowds" in line).split()
    assert names == ["objects", "crowds", "images", "min", "25%", "50%", "75%", "max", "<.5", "<.7", "<4", ">128"]
    (row,) = (line.split() for line in lines if line.startswith("square "))
    assert row == ["square", "4", "0", "1", "16.0", "16.0", "16.0", "16.0", "16.0", "1", "2", "0", "0"]


def listing(problems):
    return format_inspection(inspect(Examples(), SQUARES), problems).split("\n\n")[-1].splitlines()


def test_problems_are_listed_image_by_image():
    problems = [Problem("a.png", 7, "no area"), Problem("-", 9, "no\nimage"), Problem("a.png", None, "too small")]
    assert listing(problems) == [
        "3 problems in the data:",
        "  a.png",
        "    annotation 7: no area",
        "    too small",
        "  annotations of no image",
        "    annotation 9: no image",
    ]


@pytest.mark.parametrize(
    ("count", "last"), [(20, "annotation 19: bad"), (21, "... and 1 more"), (75, "... and 55 more")]
)
def test_at_most_20_problems_are_listed(count, last):
    lines = listing([Problem(f"{i // 3}.png", i, "bad") for i in range(count)])
    assert sum("annotation" in line for line in lines) == 20
    assert lines[-1].strip() == last


@given(st.text(max_size=40), st.integers(3, 30))
def test_shorten(name, length):
    short, whole = shorten(name, length), " ".join(name.split())
    assert short == whole if len(whole) <= length else len(short) == length
    assert "\n" not in short


# The contact sheet


def sheet(examples, titles=None, classes=("square", "circle"), **options):
    titles = [f"{i}.png" for i in range(len(examples))] if titles is None else titles
    figure = visualize.show_contact_sheet(examples, titles, classes, **options)
    FigureCanvasAgg(figure).draw()  # any warning is an error
    return figure


def boxes_on(ax):
    collections = [c for c in ax.collections if isinstance(c, PolyCollection)]
    paths = [path.vertices for c in collections for path in c.get_paths()]
    return [(*corners.min(axis=0), *corners.max(axis=0)) for corners in paths]


def words(ax):
    """Three lines above the picture, and the names in it."""
    lines = [text.get_text() for text in ax.texts]
    return lines[:3], lines[3:]


def test_one_picture_by_hand():
    ax = sheet([example([[8, 8, 24, 24], [30, 0, 33, 64]], labels=[2, 1], crowd=[False, True])]).axes[0]
    assert words(ax) == (["0.png", "64 × 64", "1 object, 1 crowd"], ["circle", "square (crowd)"])
    assert set(boxes_on(ax)) == {(8, 8, 24, 24), (30, 0, 33, 64)}
    circle, crowd = (text.get_position()[0] for text in ax.texts[-2:])
    assert (circle, crowd) == pytest.approx((8, 30), abs=1)  # each name begins where its box does


def test_only_crowds_are_hatched_and_dashed():
    boxes = [[8, 8, 24, 24], [30, 0, 50, 64]]
    for crowd in (False, True):
        ax = sheet([example(boxes, crowd=[False, crowd])]).axes[0]
        hatched = [c for c in ax.collections if isinstance(c, ContourSet) and any(c.hatches)]
        dashed = [c for c in ax.collections if isinstance(c, PolyCollection) and c.get_linestyle()[0][1] is not None]
        assert (len(hatched), len(dashed)) == (crowd, crowd)
        if crowd:
            np.testing.assert_array_equal(hatched[0].get_paths()[0].get_extents().extents.round(1), [30, 0, 50, 64])


def test_pictures_of_all_sizes_at_one_height():
    sizes = [(1, 1), (5000, 40), (40, 5000), (64, 64), (30, 40), (40, 30), (2000, 3000)]
    for boxes, objects in (([[0, 0, 1, 1]], "1 object"), ([], "0 objects")):
        figure = sheet([example(boxes, size=size) for size in sizes])
        heights = [ax.get_window_extent().height for ax in figure.axes]
        assert heights == pytest.approx([heights[0]] * len(sizes))
        assert all(words(ax)[0][2] == objects for ax in figure.axes)
        for ax, (height, width) in zip(figure.axes, sizes, strict=True):
            shape = ax.get_window_extent().width / heights[0]
            assert ("squeezed" in words(ax)[0][1]) == (max(height, width) == 5000)
            assert shape == pytest.approx(min(max(width / height, 0.6), 2.2))


def test_a_large_photo_is_shrunk_with_its_objects():
    """Half of it stays half of it; the line above tells its true size."""
    ax = sheet([example([[0, 1000, 1500, 2000]], size=(2000, 3000))]).axes[0]
    assert ax.images[0].get_array().shape[:2] == (640, 640)
    np.testing.assert_allclose(boxes_on(ax), [[0, 320, 320, 640]])
    assert words(ax)[0][1] == "3000 × 2000"


def test_the_names_in_a_full_picture():
    """More than 8 objects: the largest of each class is named."""
    boxes = [[0, 0, 4 + i, 4 + i] for i in range(10)]
    ax = sheet([example(boxes, labels=[1, 2] * 5)]).axes[0]
    assert words(ax)[1] == ["square", "circle"]
    assert len(boxes_on(ax)) == 10


def test_titles_keep_their_ends():
    title = "a very long name of a folder/and a very long name of a file 000123.png"
    lines, _ = words(sheet([example([])], titles=[title]).axes[0])
    assert lines[0].startswith("a very")
    assert lines[0].endswith("23.png")
    assert len(lines[0]) < 50
    assert words(sheet([example([])], titles=["$x_{$.png"]).axes[0])[0][0] == "$x_{$.png"  # no formula


def test_columns():
    lefts = [ax.get_position().x0 for ax in sheet([example([])] * 5, columns=2).axes]
    assert lefts[0] == lefts[2] == lefts[4] < lefts[1] == lefts[3]


def test_a_sheet_of_nothing():
    with pytest.raises(InputError, match="at least one: got 0 examples, 0 titles"):
        visualize.show_contact_sheet([], [], ())
    with pytest.raises(InputError, match="got 1 examples, 2 titles"):
        visualize.show_contact_sheet([example([])], ["a", "b"], ())
