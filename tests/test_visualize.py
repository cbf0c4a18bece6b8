"""Figures: the right things at the right places. How they look is for eyes; these tests count and measure."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import imread

from mrcnn_scratch import visualize
from mrcnn_scratch.data.shapes import CLASSES, ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.structures import Detections, Target

SCENES = [ShapesDataset(0, 5)[i] for i in range(5)]
IMAGES, TARGETS = [image for image, _ in SCENES], [target for _, target in SCENES]
NOTHING = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 128, 128), bool))


def seen(target):
    """Detections that are just what ``target`` says, with scores .99, .98, ..."""
    scores = 0.99 - 0.01 * np.arange(len(target), dtype=np.float32)
    return Detections(target.boxes, target.labels, scores, target.masks)


def draw(figure):
    """Draw as a reader would see it: any warning is an error."""
    FigureCanvasAgg(figure).draw()
    return figure


def of_kind(ax, kind):
    return [collection for collection in ax.collections if isinstance(collection, kind)]


def boxes_on(ax):
    """(R, 4): the boxes drawn on ``ax``, in drawing order."""
    paths = [path.vertices for c in of_kind(ax, PolyCollection) for path in c.get_paths()]
    return np.array([[*corners.min(axis=0), *corners.max(axis=0)] for corners in paths]).reshape(-1, 4)


def words(ax):
    return [text.get_text() for text in ax.texts]


# Objects


def test_two_objects_drawn_by_hand():
    ax = Figure().add_subplot()
    boxes = np.array([[2, 3, 8, 9], [0, 0, 20, 10]], np.float32)
    image = np.zeros((10, 20, 3), np.uint8)
    visualize.draw_objects(ax, image, boxes, np.array([3, 1]), scores=np.array([0.981, 1.0]), classes=CLASSES)
    draw(ax.figure)
    np.testing.assert_array_equal(boxes_on(ax), boxes[::-1])  # the best last, so on top
    assert words(ax) == ["triangle .98", "square 1.00"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 20), (10, 0))  # pixel i covers [i, i + 1]
    orange, green = visualize.PALETTE[0], visualize.PALETTE[2]
    edges = of_kind(ax, PolyCollection)[0].get_edgecolors()[:, :3]
    np.testing.assert_allclose(edges, [to_rgb(orange), to_rgb(green)])


def test_the_colour_of_a_mask():
    """Over black, a mask of opacity 115 / 255 in colour c shows as 115 / 255 c."""
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20:60, 20:60] = True
    box = np.array([[20, 20, 60, 60]], np.float32)
    found = Detections(box, np.array([2]), np.array([0.5], np.float32), mask)
    picture = visualize.overlay(np.zeros((64, 64, 3), np.uint8), found, CLASSES)
    assert picture.shape == (512, 512, 3)
    expected = np.array(to_rgb(visualize.PALETTE[1])) * 115
    np.testing.assert_allclose(picture[40 * 8, 40 * 8], expected, atol=1.5)
    assert not picture[:100].any()  # far above the object and its label


def test_a_contour_runs_along_the_edges_of_pixels():
    """Round a mask of one row it is as wide and as high as the tight box, also at the edge of the image."""
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 0, 0:3] = masks[1, 4, 5:8] = True
    boxes = np.array([[0, 0, 3, 1], [5, 4, 8, 5]])
    ax = Figure().add_subplot()
    visualize.draw_objects(ax, np.zeros((8, 8, 3), np.uint8), boxes, np.array([1, 2]), masks)
    outlines = [contour.get_paths()[0].vertices for contour in of_kind(ax, ContourSet)]
    corners = [[*line.min(axis=0), *line.max(axis=0)] for line in outlines]
    np.testing.assert_array_equal(corners, boxes[::-1])


def test_without_classes_the_number_is_written():
    ax = Figure().add_subplot()
    visualize.draw_objects(ax, IMAGES[0], np.array([[1, 2, 30, 40]]), np.array([17]))
    assert words(ax) == ["17"]


def test_a_label_without_a_name():
    with pytest.raises(InputError, match="label 4 has no name: classes names the labels 1 to 3"):
        visualize.draw_objects(Figure().add_subplot(), IMAGES[0], np.ones((1, 4)), np.array([4]), classes=CLASSES)
    with pytest.raises(InputError, match="got 1 boxes and 2 labels"):
        visualize.draw_objects(Figure().add_subplot(), IMAGES[0], np.ones((1, 4)), np.array([1, 2]))


@pytest.mark.parametrize(("size", "factor"), [((128, 128), 4), ((30, 77), 7), ((37, 803), 1), ((1111, 9), 1)])
def test_an_overlay_of_nothing_is_the_image_enlarged(size, factor, rng):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros((0, *size), bool))
    expected = image.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(visualize.overlay(image, found), expected)


def test_an_overlay_changes_nothing_far_from_the_objects():
    image, target = IMAGES[1], TARGETS[1]
    picture = visualize.overlay(image, seen(target), CLASSES)
    enlarged = image.repeat(4, axis=0).repeat(4, axis=1)
    changed = (picture != enlarged).any(axis=2)
    near = np.zeros_like(changed)
    for x1, y1, x2, y2 in (4 * target.boxes).astype(int):
        near[max(y1 - 40, 0) : y2 + 40, max(x1 - 40, 0) : max(x2, x1 + 130) + 40] = True
    assert changed.any()
    assert not (changed & ~near).any()


def test_the_pen_grows_with_a_large_picture():
    """Twice the picture, twice the height and width of the label: four times its pixels."""
    pixels = []
    for side in (1000, 2000):
        box = np.array([[side // 2, 90, side // 2 + 1, 91]])
        found = Detections(box, np.array([1]), np.array([0.9]), np.zeros((1, 100, side), bool))
        pixels.append(visualize.overlay(np.zeros((100, side, 3), np.uint8), found, CLASSES).any(axis=2).sum())
    assert 3.5 < pixels[1] / pixels[0] < 4.5


def test_an_empty_mask_does_no_harm():
    found = Detections(np.array([[5.0, 5, 9, 9]]), np.array([1]), np.array([0.9]), np.zeros((1, 20, 20), bool))
    assert visualize.overlay(np.zeros((20, 20, 3), np.uint8), found).any()


# Labels


def label_places(ax):
    """(R, 4): what the labels with their coloured background cover, in display pixels."""
    return np.array([text.get_bbox_patch().get_window_extent().extents for text in ax.texts])


def covered(a, b):
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return max(width, 0) * max(height, 0)


coordinates = st.tuples(*4 * [st.integers(0, 100)])


@settings(deadline=None, max_examples=25)
@given(coordinates, coordinates)
def test_labels_stay_inside_and_two_never_meet(first, second):
    boxes = np.array([[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in (first, second)])
    ax = Figure(figsize=(3, 3)).add_axes((0.1, 0.1, 0.8, 0.8))
    visualize.draw_objects(ax, np.zeros((101, 101, 3), np.uint8), boxes, np.array([1, 3]), classes=CLASSES)
    draw(ax.figure)
    places, frame = label_places(ax), ax.bbox.extents
    assert (places[:, :2] >= frame[:2] - 0.5).all()
    assert (places[:, 2:] <= frame[2:] + 0.5).all()
    assert covered(*places) < 1


def test_five_labels_of_one_place():
    ax = Figure(figsize=(3, 3)).add_axes((0, 0, 1, 1))
    visualize.draw_objects(ax, IMAGES[0], np.array(5 * [[40, 60, 50, 70]]), np.arange(1, 6), classes=tuple("vwxyz"))
    draw(ax.figure)
    places = label_places(ax)
    assert all(covered(places[i], places[j]) < 1 for i in range(5) for j in range(i))


# Scenes and detections


@pytest.mark.parametrize("count", [1, 4, 5])
def test_show_scenes(count):
    figure = draw(visualize.show_scenes(IMAGES[:count], TARGETS[:count], CLASSES))
    assert len(figure.axes) == count
    for ax, target in zip(figure.axes, TARGETS, strict=False):
        np.testing.assert_array_equal(boxes_on(ax), target.boxes[::-1])
        assert words(ax) == [CLASSES[label - 1] for label in target.labels]


def test_show_scenes_without_objects():
    figure = draw(visualize.show_scenes(IMAGES[:1], [NOTHING], CLASSES))
    assert len(boxes_on(figure.axes[0])) == 0


def test_show_scenes_without_scenes():
    with pytest.raises(InputError, match="got 0 images, 0 targets"):
        visualize.show_scenes([], [])
    with pytest.raises(InputError, match="got 2 images, 1 targets"):
        visualize.show_scenes(IMAGES[:2], TARGETS[:1])


def test_show_detections():
    found = [seen(TARGETS[0]), seen(NOTHING), seen(TARGETS[2])]
    figure = draw(visualize.show_detections(IMAGES[:3], TARGETS[:3], found, CLASSES))
    left, right = figure.axes[::2], figure.axes[1::2]
    assert [ax.get_title() for ax in left] == [f"labelled: {len(target)}" for target in TARGETS[:3]]
    assert [ax.get_title() for ax in right] == [f"detected: {len(objects)}" for objects in found]
    np.testing.assert_array_equal(boxes_on(right[2]), TARGETS[2].boxes[::-1])
    assert words(right[2])[0].endswith(" .99")
    assert words(left[2])[0] in CLASSES


# Stages


def test_show_anchors():
    """2 x 2 places 64 apart, 2 anchors each: shown are the dots of all and the 2 boxes at (64, 64)."""
    places = np.array([[x, y, x, y] for y in (0, 64) for x in (0, 64)])
    shapes = np.array([[-32, -16, 32, 16], [-16, -80, 16, 80]])
    anchors = (places[:, None] + shapes).reshape(-1, 4)
    figure = draw(visualize.show_anchors(IMAGES[0], [anchors, anchors[:0]], ["P5", "P6"]))
    ax, empty = figure.axes
    np.testing.assert_array_equal(boxes_on(ax), [[32, 48, 96, 80], [48, -16, 80, 144]])
    dots = of_kind(ax, PathCollection)[0].get_offsets()
    np.testing.assert_array_equal(dots, anchors[:, :2] / 2 + anchors[:, 2:] / 2)
    assert (ax.get_title(), empty.get_title()) == ("P5: 8 anchors", "P6: 0 anchors")
    assert ax.get_xlim() == empty.get_xlim() == (-2, 130)
    assert ax.get_ylim() == empty.get_ylim() == (146, -18)


def test_show_feature_maps(rng):
    fine, coarse = rng.normal(size=(16, 16, 6)), np.zeros((4, 4, 2))
    fine[..., [1, 4]] *= 9  # these two vary most
    figure = draw(visualize.show_feature_maps(IMAGES[0], [fine, coarse], ["P2", "P3"], channels=2))
    panels = [ax for ax in figure.axes if ax.get_ylabel()]
    assert [ax.get_ylabel() for ax in panels] == ["channel 1", "channel 4", "channel 0", "channel 1"]
    np.testing.assert_array_equal(panels[1].images[0].get_array(), fine[..., 4])
    limits = (fine[..., [1, 4]].min(), fine[..., [1, 4]].max())
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim() == limits
    assert panels[0].get_title() == "P2\n16 × 16 × 6"


def test_show_feature_maps_with_fewer_channels_than_asked_for():
    figure = draw(visualize.show_feature_maps(IMAGES[0], [np.ones((3, 5, 1), np.float32)], ["C1"]))
    assert sum(bool(ax.get_ylabel()) for ax in figure.axes) == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_show_proposals(count):
    before = np.array([[0, 0, 10, 10], [5, 5, 60, 70], [1, 0, 11, 10]], float)
    scores = np.array([0.9, 0.2, 0.5])
    figure = draw(visualize.show_proposals(IMAGES[0], before, before[:count], scores, scores[:count]))
    left, right, bar = figure.axes
    np.testing.assert_array_equal(boxes_on(left), before[[1, 2, 0]])  # the best last, so on top
    assert len(boxes_on(right)) == count
    assert left.get_title() == "proposals before NMS: 3"
    assert right.get_title() == f"proposals after NMS: {count}"
    assert bar.get_ylabel() == "objectness"


def test_show_proposals_without_scores():
    figure = draw(visualize.show_proposals(IMAGES[0], np.ones((4, 4)), np.ones((2, 4))))
    assert [len(boxes_on(ax)) for ax in figure.axes] == [4, 2]


# Curves


def metrics_of(rows, rng):
    names = ("loss_classifier", "loss_mask", "total", "lr", "seconds", "gradient_norm", "positive_rois")
    return {"step": np.arange(1, rows + 1), **{name: rng.uniform(0, 1, rows) for name in names}}


@pytest.mark.parametrize("rows", [1, 2, 19, 200])
def test_show_curves(rows, rng):
    metrics = metrics_of(rows, rng)
    figure = draw(visualize.show_curves(metrics))
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert list(panels) == ["losses", "learning rate", "positives per step", "gradient norm"]
    labels = [line.get_label() for line in panels["losses"].lines]
    assert [label for label in labels if not label.startswith("_")] == ["total", "classifier", "mask"]
    np.testing.assert_array_equal(panels["losses"].lines[0].get_ydata(), metrics["total"])
    (rate,) = panels["learning rate"].lines  # exact, so drawn once
    np.testing.assert_array_equal(rate.get_ydata(), metrics["lr"])


def test_the_strong_line_is_the_mean_of_the_steps_around():
    """40 steps, so a window of 40 // 20 + 1 = 3; at the ends only 2 steps are there."""
    total = np.arange(40.0) ** 2
    _, strong = draw(visualize.show_curves({"total": total})).axes[0].lines
    means = [total[max(i - 1, 0) : i + 2].mean() for i in range(40)]
    np.testing.assert_allclose(strong.get_ydata(), means)
    np.testing.assert_array_equal(strong.get_xdata(), np.arange(1, 41))


def test_curves_of_a_run_that_broke():
    losses = np.array([1.0, 2.0, np.inf, np.nan, np.nan])
    assert len(draw(visualize.show_curves({"total": losses, "lr": np.zeros(5)})).axes) == 2


@pytest.mark.parametrize("metrics", [{}, {"total": np.zeros(0)}, {"step": np.arange(3)}])
def test_no_curves_to_draw(metrics):
    with pytest.raises(InputError, match="no curves to draw"):
        visualize.show_curves(metrics)


# Files


def test_save_writes_a_png_and_nothing_else(tmp_path):
    for _ in range(2):  # the second replaces the first
        visualize.save(Figure(figsize=(2, 1), dpi=50), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert imread(tmp_path / "a.png").shape == (50, 100, 4)


def test_save_where_nothing_can_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "a.png", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"cannot write {path}: "):
            visualize.save(Figure(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_pyplot_stays_out():
    """pyplot keeps every figure alive and may open windows."""
    check = "import sys, mrcnn_scratch.visualize; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
