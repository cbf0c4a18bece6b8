"""COCO's average precision: worked on paper, against slow loops, and against pycocotools."""

import contextlib
import io
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.evaluation import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    average_precision,
    evaluate,
    format_table,
    match_detections,
    precision_envelope,
    precision_recall,
)
from mrcnn_scratch.structures import Detections, Target

nan = float("nan")


def filled(boxes, size):
    """The masks (R, H, W) of boxes with whole coordinates."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes, int).reshape(-1, 4), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def target(boxes, labels=None, size=(20, 80), **more):
    labels = np.ones(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    return Target(np.array(boxes, np.float32).reshape(-1, 4), labels, filled(boxes, size), **more)


def detections(boxes, scores, labels=None, size=(20, 80)):
    one = target(boxes, labels, size)
    return Detections(one.boxes, one.labels, np.array(scores, np.float32), one.masks)


# On paper. Two objects and three detections, best first, in one image of one class:
#
#     object A   0, 0, 10, 10        .9   0, 0, 10, 10   is A, IoU 1
#     object B  20, 0, 30, 10        .8  50, 0, 60, 10   lies on nothing
#                                    .7  22, 0, 32, 10   is B moved by 2: IoU 8 x 10 / (12 x 10) = 2/3
#
# IoU .50, .55, .60, .65: right, wrong, right.     precision 1, 1/2, 2/3    recall 1/2, 1/2, 1
#     The envelope is 1, 2/3, 2/3. Of the 101 recall levels, the 51 of 0 to .50 read 1, the other 50 read 2/3:
#     AP = (51 + 50 x 2/3) / 101 = .835
# IoU .70 to .95, six of them: right, wrong, wrong. precision 1, 1/2, 1/3   recall 1/2, 1/2, 1/2
#     The 51 levels up to .50 read 1, the others are never reached: AP = 51 / 101 = .505
# AP = (4 x .835 + 6 x .505) / 10 = .637, AR = (4 x 1 + 6 x 1/2) / 10 = .7
BOTH_FOUND = (51 + 50 * 2 / 3) / 101
ONE_FOUND = 51 / 101


def worked_example():
    found = detections([[0, 0, 10, 10], [50, 0, 60, 10], [22, 0, 32, 10]], [0.9, 0.8, 0.7])
    found.masks[2] = filled([[20, 0, 30, 10]], (20, 80))[0]  # its mask is B to the pixel
    return found, target([[0, 0, 10, 10], [20, 0, 30, 10]])


def test_three_detections_and_two_objects_on_paper():
    found, truth = worked_example()
    result = evaluate([found], [truth], ["square"])
    ap = (4 * BOTH_FOUND + 6 * ONE_FOUND) / 10
    boxes = {"AP": ap, "AP50": BOTH_FOUND, "AP75": ONE_FOUND, "AR": 0.7}
    assert {key: result["box"][key] for key in boxes} == pytest.approx(boxes)
    assert result["box"]["per_class"]["square"] == pytest.approx({**boxes, "objects": 2})
    # The masks of the third detection and B are equal, so masks do at every IoU what boxes did at .50.
    masks = {"AP": BOTH_FOUND, "AP50": BOTH_FOUND, "AP75": BOTH_FOUND, "AR": 1.0}
    assert {key: result["mask"][key] for key in masks} == pytest.approx(masks)
    json.dumps(result)  # raises unless all are plain numbers
    # 100 square pixels are small; there is nothing of another size to find.
    sizes = {key: result["box"][key] for key in result["box"] if "_" in key and key != "per_class"}
    missing = dict.fromkeys(["AP_medium", "AR_medium", "AP_large", "AR_large"], nan)
    assert sizes == pytest.approx({"AP_small": ap, "AR_small": 0.7, **missing}, nan_ok=True)


def test_the_steps_of_the_worked_example():
    overlaps = np.array([[1, 0], [0, 0], [0, 2 / 3]])
    proper = np.zeros((1, 2), bool), np.zeros(2, bool)  # no object is ignored (A, G), none is a crowd (G,)
    correct, excused = match_detections(overlaps, *proper, np.array([0.5, 0.7]))
    assert correct[0].tolist() == [[True, False, True], [True, False, False]]
    assert not excused.any()
    precision, recall = precision_recall(correct[0, 0], excused[0, 0], 2)
    assert precision.tolist() == [1, 1 / 2, 2 / 3]
    assert recall.tolist() == [1 / 2, 1 / 2, 1]
    assert precision_envelope(precision).tolist() == [1, 2 / 3, 2 / 3]
    assert average_precision(precision, recall) == pytest.approx(BOTH_FOUND)


def test_an_object_is_found_once():
    twice = detections([[0, 0, 10, 10]] * 2, [0.9, 0.8])
    later = detections([[0, 0, 10, 10]], [0.7])
    square = target([[0, 0, 10, 10]])
    # right, wrong, right: as on paper above, since the data set is ranked as a whole
    assert evaluate([twice, later], [square, square], ["square"])["box"]["AP"] == pytest.approx(BOTH_FOUND)


def test_the_best_overlap_is_taken_and_of_equals_the_last():
    rest = np.zeros((1, 2), bool), np.zeros(2, bool), np.array([0.5])
    # The second detection needs the object that the first should leave to it.
    correct, _ = match_detections(np.array([[0.6, 0.7], [0.9, 0.4]]), *rest)
    assert correct.ravel().tolist() == [True, True]
    correct, _ = match_detections(np.array([[0.6, 0.6], [0.4, 0.9]]), *rest)
    assert correct.ravel().tolist() == [True, False]


def test_a_crowd_excuses_all_that_lies_in_it():
    # The crowd is 40 wide. Two detections lie in it whole: IoU 1/4, but all of their area; both are excused.
    # The last has 4 of its 10 columns inside, which is less than .5: wrong, but ranked below what is right.
    boxes = [[20, 0, 30, 10], [25, 0, 35, 10], [0, 0, 10, 10], [56, 0, 66, 10]]
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6])
    truth = target([[0, 0, 10, 10], [20, 0, 60, 10]], crowd=np.array([False, True]))
    result = evaluate([found], [truth], ["square"])
    for kind in ("box", "mask"):
        assert result[kind]["per_class"]["square"] == {"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "objects": 1}
    # With the crowd an object: wrong, wrong, right. The 51 levels up to .50 read 1/3.
    uncrowded = evaluate([found], [target(truth.boxes)], ["square"])
    assert uncrowded["box"]["AP"] == pytest.approx(51 / 3 / 101)


def test_an_object_is_preferred_to_an_ignored_one_that_overlaps_more():
    crowd = np.array([True, False])
    correct, excused = match_detections(np.array([[0.9, 0.6]]), crowd[None], crowd, np.array([0.5, 0.7]))
    assert correct.ravel().tolist() == [True, False]
    assert excused.ravel().tolist() == [False, True]


def test_sizes_are_those_of_target_areas():
    sizes = {1023: ["small"], 1024: ["small", "medium"], 1025: ["medium"]}
    sizes.update({9215: ["medium"], 9216: ["medium", "large"], 9217: ["large"]})
    for area, expected in sizes.items():
        truth = target([[0, 0, 20, 20]], areas=np.array([area], np.float64))
        figures = evaluate([detections(truth.boxes, [0.9])], [truth], ["square"])["box"]
        assert [size for size in ("small", "medium", "large") if figures[f"AP_{size}"] == 1] == expected


# The slow way, one detection, one object and one threshold at a time.


def match_slowly(overlaps, ignored, crowd, threshold):
    taken, verdicts = set(), []
    for row in overlaps:
        best, verdict = None, "wrong"
        for verdict_here, kind in (("correct", False), ("excused", True)):
            for g in np.flatnonzero(ignored == kind):
                free = g not in taken or crowd[g]
                if free and row[g] >= threshold and (best is None or row[g] >= row[best]):
                    best, verdict = g, verdict_here
            if best is not None:
                break
        taken.add(best)
        verdicts.append(verdict)
    return verdicts


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 8), st.integers(0, 5))
def test_matching_equals_the_slow_loop(seed, count, objects):
    rng = np.random.default_rng(seed)
    overlaps = rng.integers(8, 21, (count, objects)) / 20  # many are equal, many on a threshold
    crowd = rng.random(objects) < 0.2
    ignored = crowd | (rng.random((2, objects)) < 0.3)
    for array in (overlaps, crowd, ignored):
        array.setflags(write=False)
    correct, excused = match_detections(overlaps, ignored, crowd)
    assert correct.shape == excused.shape == (2, len(IOU_THRESHOLDS), count)
    for a in range(2):
        for t, threshold in enumerate(IOU_THRESHOLDS):
            verdicts = match_slowly(overlaps, ignored[a], crowd, threshold)
            assert correct[a, t].tolist() == [verdict == "correct" for verdict in verdicts]
            assert excused[a, t].tolist() == [verdict == "excused" for verdict in verdicts]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(["correct", "wrong", "excused"]), max_size=12), st.integers(0, 3))
def test_average_precision_equals_the_slow_loop(verdicts, missed):
    objects = max(verdicts.count("correct") + missed, 1)
    points, right, counted = [], 0, 0
    for verdict in verdicts:
        if verdict == "excused":
            continue
        counted += 1
        right += verdict == "correct"
        points.append((right / objects, right / counted))
    heights = [
        max((precision for recall, precision in points if recall >= level), default=0.0)
        for level in np.linspace(0, 1, 101)
    ]
    correct = np.array([verdict == "correct" for verdict in verdicts], bool)
    excused = np.array([verdict == "excused" for verdict in verdicts], bool)
    assert average_precision(*precision_recall(correct, excused, objects)) == pytest.approx(np.mean(heights))


# Properties, on random scenes of 3 classes in which much is equal: coordinates in halves, scores in tenths.

SIZE = (128, 160)
CLASSES = ["circle", "square", "triangle"]


def random_objects(rng, count):
    side = rng.choice([8, 20, 31, 40, 80, 105, 120], (count, 2)) + rng.integers(-2, 3, (count, 2))
    corner = (rng.random((count, 2)) * (np.array(SIZE[::-1]) - side)).astype(int)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def random_masks(rng, boxes):
    masks = filled(boxes, SIZE)
    masks[:, :: rng.integers(8, 20)] = False  # stripes: areas and overlaps are not those of the boxes
    return masks


def random_image(rng, *, objects, extra, crowds=0.0, labels=(1, 2, 3)):
    """A target of up to ``objects`` objects; detections: those moved a little, and up to ``extra`` others."""
    count = rng.integers(0, objects + 1)
    boxes = random_objects(rng, count)
    masks = random_masks(rng, boxes)
    areas = masks.sum(axis=(1, 2)) * rng.uniform(0.8, 1.6, count)
    crowd = rng.random(count) < crowds
    truth = Target(boxes, rng.choice(labels, count), masks, crowd=crowd, areas=areas)

    others = random_objects(rng, rng.integers(0, extra + 1))
    moved = np.concatenate([boxes, boxes[: count // 2]])
    moved = np.clip(moved + rng.integers(-3, 4, moved.shape), 0, np.tile(SIZE[::-1], 2))
    boxes = np.concatenate([moved, others]).astype(np.float32)
    named = np.concatenate([truth.labels, truth.labels[: count // 2], rng.choice(labels, len(others))])
    named = np.where(rng.random(len(named)) < 0.9, named, rng.choice(labels, len(named)))
    scores = rng.integers(1, 11, len(boxes)) / np.float32(10)
    masks = random_masks(rng, boxes)
    boxes[:, 2:] += rng.integers(0, 2, (len(boxes), 2)) / np.float32(2)
    return Detections(boxes, named, scores, masks), truth


def random_scenes(seed, images, **options):
    rng = np.random.default_rng(seed)
    pairs = [random_image(rng, **options) for _ in range(images)]
    return [found for found, _ in pairs], [truth for _, truth in pairs]


def flat(result):
    """Every figure of a result, by a name such as ``box/circle/AP``."""
    figures = {}
    for kind, measured in result.items():
        overall = {key: measured[key] for key in measured if key != "per_class"}
        rows = {"all": overall, **measured["per_class"]}
        figures.update({f"{kind}/{name}/{key}": row[key] for name, row in rows.items() for key in row})
    return figures


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_detections_equal_to_the_objects_score_one(seed):
    _, targets = random_scenes(seed, 3, objects=6, extra=0)
    perfect = [Detections(one.boxes, one.labels, np.ones(len(one), np.float32), one.masks) for one in targets]
    figures = flat(evaluate(perfect, targets, CLASSES))
    assert all(np.isnan(value) or value == 1 for key, value in figures.items() if "objects" not in key)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_only_the_order_of_the_scores_matters(seed):
    found, targets = random_scenes(seed, 3, objects=6, extra=6, crowds=0.2)
    squared = [Detections(one.boxes, one.labels, one.scores**2, one.masks) for one in found]
    figures = flat(evaluate(found, targets, CLASSES))
    assert all(np.isnan(value) or value >= 0 for value in figures.values())
    assert flat(evaluate(squared, targets, CLASSES)) == pytest.approx(figures, abs=0, rel=0, nan_ok=True)


# Against pycocotools.


def rle(mask):
    return mask_utils.encode(np.asfortranarray(mask, np.uint8))


def coco_box(box):
    x1, y1, x2, y2 = box.astype(float).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def coco_truth(targets, classes):
    coco = COCO()
    annotations = [
        {
            "image_id": image,
            "category_id": int(one.labels[g]),
            "bbox": coco_box(one.boxes[g]),
            "segmentation": rle(one.masks[g]),
            "area": float(one.areas[g]),
            "iscrowd": int(one.crowd[g]),
        }
        for image, one in enumerate(targets)
        for g in range(len(one))
    ]
    coco.dataset = {
        "info": {},
        "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in range(len(targets))],
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
        "annotations": [{"id": i, **one} for i, one in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def coco_found(coco, found, kind):
    results = [
        {
            "image_id": image,
            "category_id": int(one.labels[d]),
            "score": float(one.scores[d]),
            **({"bbox": coco_box(one.boxes[d])} if kind == "box" else {"segmentation": rle(one.masks[d])}),
        }
        for image, one in enumerate(found)
        for d in range(len(one))
    ]
    if results:
        return coco.loadRes(results)
    nothing = COCO()
    nothing.dataset = {**coco.dataset, "annotations": []}
    nothing.createIndex()
    return nothing


def coco_mean(values):
    return float(values[values > -1].mean()) if (values > -1).any() else nan


def coco_row(precision, recall):
    """The figures of a row from pycocotools' arrays (T, R, ...) and (T, ...)."""
    at = {"AP": slice(None), "AP50": 0, "AP75": 5}
    return {**{key: coco_mean(precision[t]) for key, t in at.items()}, "AR": coco_mean(recall)}


def pycocotools_figures(found, targets, classes, kind, max_detections):
    """What pycocotools measures, named as :func:`flat` names it, and its own summary of 12 numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_truth(targets, classes)
        run = COCOeval(coco, coco_found(coco, found, kind), {"box": "bbox", "mask": "segm"}[kind])
        run.params.maxDets = [1, 2, max_detections]
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision, recall = run.eval["precision"][..., -1], run.eval["recall"][..., -1]  # (T, R, K, A), (T, K, A)
    figures = coco_row(precision[..., 0], recall[..., 0])
    for a, size in enumerate(AREA_RANGES):
        if size != "all":
            figures[f"AP_{size}"] = coco_mean(precision[..., a])
            figures[f"AR_{size}"] = coco_mean(recall[..., a])
    figures = {f"{kind}/all/{key}": value for key, value in figures.items()}
    for k, name in enumerate(classes):
        row = coco_row(precision[:, :, k, 0], recall[:, k, 0])
        row["objects"] = len(coco.getAnnIds(catIds=[k + 1], iscrowd=False))
        figures.update({f"{kind}/{name}/{key}": value for key, value in row.items()})
    return figures, run.stats


def assert_equals_pycocotools(found, targets, classes=CLASSES, max_detections=100):
    figures = flat(evaluate(found, targets, classes, max_detections=max_detections))
    expected = {}
    for kind in ("box", "mask"):
        measured, summary = pycocotools_figures(found, targets, classes, kind, max_detections)
        expected.update(measured)
        if max_detections == 100:
            keys = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
            keys += [None, None, "AR", "AR_small", "AR_medium", "AR_large"]
            printed = {f"{kind}/all/{key}": value for key, value in zip(keys, summary, strict=True) if key}
            ours = {key: -1 if np.isnan(figures[key]) else figures[key] for key in printed}
            assert ours == pytest.approx(printed, abs=1e-9)
    assert figures == pytest.approx(expected, abs=1e-9, nan_ok=True)
    return figures


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3]), st.sampled_from([3, 100]))
def test_random_scenes_equal_pycocotools(seed, crowds, max_detections):
    found, targets = random_scenes(seed, 4, objects=8, extra=6, crowds=crowds)
    assert_equals_pycocotools(found, targets, max_detections=max_detections)


def test_every_figure_is_measured_and_equals_pycocotools():
    found, targets = random_scenes(0, 12, objects=10, extra=8, crowds=0.15)
    figures = assert_equals_pycocotools(found, targets)
    assert all(0 < value < 1 for key, value in figures.items() if "objects" not in key)


def nothing_found():
    return detections(np.zeros((0, 4)), [], size=SIZE)


def no_objects():
    return target(np.zeros((0, 4)), size=SIZE)


CASES = ["no images", "nothing found", "no objects", "neither", "some empty", "crowds only"]


@pytest.mark.parametrize("case", CASES)
def test_empty_images_equal_pycocotools(case):
    found, targets = random_scenes(1, 4, objects=8, extra=6, crowds=1.0 if case == "crowds only" else 0.1)
    if case == "no images":
        found, targets = [], []
    if case in ("nothing found", "neither"):
        found = [nothing_found()] * 4
    if case in ("no objects", "neither"):
        targets = [no_objects()] * 4
    if case == "some empty":
        found = [nothing_found(), *found, nothing_found()]
        targets = [no_objects(), *targets[:2], no_objects(), targets[3], targets[1]]
    figures = assert_equals_pycocotools(found, targets)
    measured = {"nothing found": 0.0, "some empty": pytest.approx(0.5, abs=0.49)}
    assert figures["box/all/AP"] == measured.get(case, pytest.approx(nan, nan_ok=True))


def test_absent_classes_equal_pycocotools():
    found, _ = random_scenes(2, 4, objects=8, extra=6)
    _, targets = random_scenes(2, 4, objects=8, extra=6, labels=(1, 3))
    figures = assert_equals_pycocotools(found, targets, [*CLASSES, "never seen"])
    assert np.isnan(figures["box/square/AP"])  # detected, yet there was none
    assert figures["box/never seen/objects"] == 0


@pytest.mark.parametrize("max_detections", [100, 130])
def test_more_detections_than_count_equal_pycocotools(max_detections):
    found, targets = random_scenes(3, 2, objects=60, extra=240, labels=(1, 2))
    assert max(np.bincount(one.labels).max() for one in found) > 100
    assert_equals_pycocotools(found, targets, max_detections=max_detections)


# Memory, the table, and bad input.


def test_large_masks_are_compared_in_little_memory():
    masks = np.zeros((100, 800, 1200), bool)  # 96 MB; as float32 four times that
    masks[np.arange(100), :, np.arange(100)] = True
    boxes = np.array([[i, 0, i + 1, 800] for i in range(100)], np.float32)
    labels = np.ones(100, np.int64)
    truth = Target(boxes[:20], labels[:20], masks[:20])
    found = Detections(boxes, labels, np.linspace(1, 0.1, 100, dtype=np.float32), masks)
    tracemalloc.start()
    result = evaluate([found], [truth], ["stripe"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result["mask"]["AP"] == 1
    assert peak < 32e6


def test_the_table():
    found, truth = worked_example()
    table = format_table(evaluate([found], [truth], ["square", "triangle"]), ["square", "triangle"])
    assert table.splitlines() == [
        "                       AP    AP50    AP75      AR",
        "all classes  box    0.637   0.835   0.505   0.700",
        "             mask   0.835   0.835   0.835   1.000",
        "square       box    0.637   0.835   0.505   0.700",
        "             mask   0.835   0.835   0.835   1.000",
        "triangle     box        -       -       -       -",
        "             mask       -       -       -       -",
    ]
    long = "a name that goes on and on, well beyond what any column could hold"
    lines = format_table(evaluate([found], [truth], [long]), [long]).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(set(map(len, lines))) == 1


def test_bad_input_is_named():
    found, truth = worked_example()

    def message(found, truth, classes=("square",)):
        with pytest.raises(InputError) as caught:
            evaluate(found, truth, classes)
        return str(caught.value)

    def with_(one, **changes):
        return type(one)(**{**vars(one), **changes})

    assert "2 images have detections, 1 have targets" in message([found, found], [truth])
    assert "share a name" in message([found], [truth], ["square", "square"])
    second = with_(truth, labels=np.array([1, 2]))
    assert "image 1: label 2 is not in 1..1" in message([found] * 2, [truth, second])
    assert "label 0" in message([with_(found, labels=np.array([1, 0, 1]))], [truth])
    assert "arrays of the detections differ" in message([with_(found, scores=found.scores[:2])], [truth])
    assert "arrays of the target differ" in message([found], [with_(truth, areas=np.ones(3))])
    assert "a score is nan" in message([with_(found, scores=np.array([1, nan, 0.5]))], [truth])
    assert "must be bool" in message([with_(found, masks=found.masks.astype(np.uint8))], [truth])
    assert "(20, 79)" in message([with_(found, masks=found.masks[:, :, 1:])], [truth])
