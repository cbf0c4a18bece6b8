"""Labelled images in COCO's format: what comes out, what is refused, and what is found to be wrong."""

import contextlib
import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_scratch.data.coco import CocoDataset, Problem
from mrcnn_scratch.data.coco_file import coco_dict
from mrcnn_scratch.data.rle import encode_rle, run_lengths
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.evaluation import evaluate
from mrcnn_scratch.structures import Detections, Target

SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]
"""In an image of 4 x 6: columns 1, 2, 3 of rows 1, 2."""


def content(**annotation):
    """A picture of 6 x 4 pixels with one object. Category ids have gaps and stand in no order."""
    first = {"id": 11, "image_id": 7, "category_id": 5, "bbox": [1, 1, 3, 2], "segmentation": SQUARE, **annotation}
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [{key: value for key, value in first.items() if value is not ...}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 5, "name": "cat"}, {"id": 18, "name": "owl"}],
    }


class Files:
    """A folder of pictures and a JSON file."""

    def __init__(self, folder):
        self.json, self.pictures = folder / "instances.json", folder / "pictures"
        self.pictures.mkdir()
        self.picture("a.png", (4, 6))

    def picture(self, name, size, mode="RGB", **options):
        Image.new(mode, size[::-1]).save(self.pictures / name, **options)

    def open(self, data, **options):
        self.json.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return CocoDataset(self.json, self.pictures, **options)


@pytest.fixture
def files(tmp_path):
    """A folder with the picture a.png of 4 rows and 6 columns, and a way to open a JSON file beside it."""
    return Files(tmp_path)


# By hand


def test_one_object(files):
    """bbox is x, y, width, height; a box is x1, y1, x2, y2. Category 5 is the smallest id, so its label is 1."""
    dataset = files.open(content(area=5.5, iscrowd=1))
    assert len(dataset) == 1
    assert dataset.classes == ("cat", "owl", "dog")
    assert dataset.category_ids == [5, 18, 90]
    assert (dataset.image_ids, dataset.file_names, dataset.problems) == ([7], ["a.png"], [])
    image, target = dataset[0]
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert target.boxes.tolist() == [[1, 1, 4, 3]]
    assert target.labels.tolist() == [1]
    assert target.masks.astype(int).tolist() == [[[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]]
    assert target.crowd.tolist() == [True]
    assert target.areas.tolist() == [5.5]
    assert [a.dtype for a in vars(target).values()] == [np.float32, np.int64, bool, bool, np.float64, np.float32]
    assert dataset.find_problems() == []


def test_what_may_be_absent(files):
    """The box is then the mask's extent, the area its pixels, and the object no crowd."""
    _, target = files.open(content(bbox=...))[-1]
    assert target.boxes.tolist() == [[1, 1, 4, 3]]
    assert target.areas.tolist() == [6]
    assert target.crowd.tolist() == [False]


def test_boxes_may_reach_beyond_the_image(files):
    _, target = files.open(content(bbox=[-2, -1, 20.5, 4.5]))[0]
    assert target.boxes.tolist() == [[-2, -1, 18.5, 3.5]]


@pytest.mark.parametrize("form", ["compressed", "list"])
def test_run_lengths(files, form):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    rle = encode_rle(mask) if form == "compressed" else {"size": [4, 6], "counts": run_lengths(mask)}
    _, target = files.open(content(segmentation=rle))[0]
    assert np.array_equal(target.masks[0], mask)


def test_images_without_objects_are_kept(files):
    data = content()
    files.picture("b.png", (5, 3))
    data["images"].insert(0, {"id": 3, "file_name": "b.png", "height": 5, "width": 3})
    dataset = files.open(data)
    assert len(dataset) == 2
    _, target = dataset[0]
    assert (len(target), target.boxes.shape, target.masks.shape) == (0, (0, 4), (0, 5, 3))
    assert [len(dataset[i][1]) for i in range(2)] == [0, 1]
    with pytest.raises(IndexError):
        dataset[2]


@pytest.mark.parametrize("size", [(1, 1), (5000, 40), (40, 5000)])
def test_odd_sizes(files, size):
    files.picture("a.png", size)
    height, width = size
    whole = [[0, 0, width, 0, width, height, 0, height]]
    data = content(segmentation=whole, bbox=[0, 0, width, height])
    data["images"][0].update(height=height, width=width)
    _, target = files.open(data)[0]
    assert target.masks.all()
    assert target.boxes.tolist() == [[0, 0, width, height]]


def test_five_hundred_objects(files):
    data = content()
    data["annotations"] = [{**data["annotations"][0], "id": i} for i in range(500)]
    dataset = files.open(data)
    assert dataset.find_problems() == []
    assert len(dataset[0][1]) == 500


# The classes of a trained network


def test_labels_of_a_network(files):
    """By name: the network's order counts, and it may know more."""
    dataset = files.open(content(), classes=["dog", "bird", "cat", "owl"])
    assert dataset.classes == ("dog", "bird", "cat", "owl")
    assert dataset.category_ids == [90, None, 5, 18]
    assert dataset[0][1].labels.tolist() == [3]


def test_categories_that_the_network_does_not_know(files):
    with pytest.raises(InputError, match=r"does not know: owl, dog \(.* the file lacks: Dog\)"):
        files.open(content(), classes=["cat", "Dog"])


# Kinds of pictures


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA", "1"])
def test_modes(files, mode):
    files.picture("a.png", (4, 6), mode)
    assert files.open(content())[0][0].shape == (4, 6, 3)


def test_cmyk(files):
    files.picture("a.jpg", (4, 6), "CMYK")
    data = content()
    data["images"][0]["file_name"] = "a.jpg"
    assert files.open(data)[0][0].shape == (4, 6, 3)


def test_turned_by_exif(files):
    """What is compared, and labelled, is the picture as one sees it: 4 rows of 6, stored as 6 rows of 4."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files.picture("a.png", (6, 4), exif=exif)
    assert files.open(content()).find_problems() == []
    data = content()
    data["images"][0].update(height=6, width=4)
    (problem,) = files.open(data).find_problems()
    assert "is 6 x 4 pixels, but 4 x 6 in" in problem.what
    assert "only the rotation differs" in problem.what


# Files that are none


def without_key(key):
    return {k: v for k, v in content().items() if k != key}


def with_entry(key, **changes):
    data = content()
    data[key][0].update(changes)
    return data


def twice(key, **changes):
    data = content()
    data[key].append({**data[key][0], **changes})
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"images": [}', "is not JSON"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        (b"\x89PNG", "not text in UTF-8"),
        (b"[" * 10**5, "nests lists deeper"),
        (b'{"images":' * 10**5, "nests lists deeper"),
        (b'{"images": NaN}', r"is not JSON \(NaN"),
        (b'{"images": [-Infinity]}', r"is not JSON \(-Infinity"),
        (b'{"images": 1' + b"0" * 5000 + b"}", "is not JSON"),
        ([], "holds a list"),
        (3, "holds 3"),
        (None, "holds None"),
        ({}, 'no list "images"'),
        (without_key("images"), 'no list "images"'),
        (without_key("annotations"), 'no list "annotations"'),
        (without_key("categories"), 'no list "categories"'),
        ({**content(), "images": {}}, 'no list "images"'),
        ({**content(), "annotations": None}, 'no list "annotations"'),
        ({**content(), "categories": []}, "no categories"),
        ({**content(), "images": [7]}, r"images\[0\]"),
        ({**content(), "annotations": [[]]}, r"annotations\[0\]"),
        ({**content(), "categories": ["cat"]}, r"categories\[0\]"),
        (with_entry("images", id="7"), r"images\[0\]"),
        (with_entry("images", id=None), r"images\[0\]"),
        (with_entry("annotations", id=1.5), r"annotations\[0\]"),
        (with_entry("categories", id=True), r"categories\[0\]"),
        (with_entry("images", file_name=None), "file_name None"),
        (with_entry("images", file_name=["a.png"]), "file_name"),
        (with_entry("images", file_name=""), "file_name ''"),
        (with_entry("images", file_name="a\0.png"), "file_name"),
        (with_entry("images", file_name="\ud800.png"), "file_name"),
        (with_entry("categories", name=3), "name 3"),
        (twice("images"), "two images have the id 7"),
        (twice("categories", name="cow"), "two categories have the id 90"),
        (twice("categories", id=4), "two categories have the name 'dog'"),
    ],
)
def test_no_instances_file(files, data, message):
    with pytest.raises(InputError, match=message) as error:
        files.open(data)
    assert str(files.json) in str(error.value)
    assert "\n" not in str(error.value)
    assert ": " in str(error.value)  # what is wrong: the cure


def test_a_byte_order_mark_is_no_harm(files):
    assert len(files.open(b"\xef\xbb\xbf" + json.dumps(content()).encode())) == 1


def test_no_file_no_folder(files):
    with pytest.raises(InputError, match="there is no file"):
        CocoDataset(files.json, files.pictures)
    with pytest.raises(InputError, match="cannot read"):
        CocoDataset(files.pictures, files.pictures)
    with pytest.raises(InputError, match="there is no folder"):
        CocoDataset(files.json, files.pictures / "x")


# Single annotations that are bad


BAD_ANNOTATIONS = [
    ({"category_id": 6}, "no category with the id 6"),
    ({"category_id": ...}, "no category with the id None"),
    ({"category_id": [5]}, "no category"),
    ({"bbox": None}, "bbox is None"),
    ({"bbox": [1, 1, 3]}, "four finite numbers"),
    ({"bbox": [1, 1, 3, "2"]}, "four finite numbers"),
    ({"bbox": [1, 1, 3, 10**400]}, "four finite numbers"),
    ({"bbox": {"x": 1}}, "four finite numbers"),
    ({"bbox": [1, 1, 0, 2]}, "has no area"),
    ({"bbox": [1, 1, 3, -2]}, "has no area"),
    ({"bbox": [6, 1, 3, 2]}, "no area inside the image of 6 x 4"),
    ({"bbox": [1, -2, 3, 2]}, "no area inside the image of 6 x 4"),
    ({"bbox": [5, 1, 1e-9, 1]}, "no area inside"),  # as float32, 5 + 1e-9 is 5
    ({"area": "6"}, "area is '6'"),
    ({"area": -1}, "area is -1"),
    ({"iscrowd": 2}, "iscrowd is 2"),
    ({"iscrowd": None}, "iscrowd is None"),
    ({"segmentation": ...}, "no segmentation"),
    ({"segmentation": None}, "no segmentation"),
    ({"segmentation": "polygon"}, "neither polygons nor run lengths"),
    ({"segmentation": []}, "no polygon"),
    ({"segmentation": [[1, 1, 4, 1, 4]]}, "odd"),
    ({"segmentation": [[1, 1, 4, 1]]}, "2 points"),
    ({"segmentation": [[1, 1, 4, 1, 4, 1e300]]}, "finite"),
    ({"segmentation": [[1.6, 1, 2.4, 1, 2.4, 4]]}, "mask is empty"),
    ({"segmentation": [[8, 1, 9, 1, 9, 4]]}, "mask is empty"),
    ({"segmentation": {}}, "run lengths must be"),
    ({"segmentation": {"size": [6, 4], "counts": [24]}}, r"of a mask of size \[6, 4\], not \[4, 6\]"),
    ({"segmentation": {"size": [4, 6], "counts": [3, 4]}}, "sum to 7"),
    ({"segmentation": {"size": [4, 6], "counts": "!"}}, "means nothing"),
    ({"segmentation": {"size": [4, 6], "counts": [24]}}, "mask is empty"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS)
def test_a_bad_annotation(files, change, message):
    """It is found, it is an error when its image is asked for, and it can be left out."""
    dataset = files.open(content(**change))
    (problem,) = dataset.find_problems()
    assert problem[:2] == ("a.png", 11)
    with pytest.raises(InputError, match=message) as error:
        dataset[0]
    for text in (problem.what, str(error.value)):
        assert "\n" not in text
    assert f"{files.json}: a.png: annotation 11: {problem.what}" in str(error.value)
    left = dataset.without([problem])
    assert (len(left), len(left[0][1]), left.problems, left.find_problems()) == (1, 0, [], [])
    assert len(dataset.find_problems()) == 1  # the data set itself is as it was


@pytest.mark.parametrize("image_id", [8, None, "7", [7], 7.0])
def test_an_annotation_of_no_image(files, image_id):
    dataset = files.open(content(image_id=image_id))
    (problem,) = dataset.problems
    assert problem[:2] == ("-", 11)
    assert "there is no image with the id" in problem.what
    assert dataset.find_problems() == [problem]
    assert dataset.without([problem]).problems == []
    assert len(dataset[0][1]) == 0


def test_two_annotations_of_one_id(files):
    data = twice("annotations")
    assert files.open(data).problems == [Problem("a.png", 11, "its id is another annotation's too")]


def test_what_the_json_shows_is_known_at_once(files):
    """A bad box takes no decoding; a polygon does. Each annotation is reported once."""
    data = content(bbox=[0, 0, 0, 0], segmentation=[[1]])
    data["annotations"].append({**content(segmentation=[[1]])["annotations"][0], "id": 12})
    dataset = files.open(data)
    assert [problem.annotation for problem in dataset.problems] == [11]
    assert [problem.annotation for problem in dataset.find_problems()] == [11, 12]


# Single images that are bad


def missing(files):
    (files.pictures / "a.png").unlink()


def damaged(files):
    data = (files.pictures / "a.png").read_bytes()
    (files.pictures / "a.png").write_bytes(data[: len(data) // 2])


def another_size(files):
    files.picture("a.png", (4, 7))


def nothing(files):
    pass


@pytest.mark.parametrize(
    ("harm", "change", "message"),
    [
        (missing, {}, "there is no file"),
        (damaged, {}, "damaged|not a picture"),
        (another_size, {}, "is 7 x 4 pixels, but 6 x 4 in"),
        (nothing, {"height": 6, "width": 4}, "is 6 x 4 pixels, but 4 x 6 in"),
        (nothing, {"height": None}, "not both numbers of pixels"),
        (nothing, {"width": 6.0}, "not both numbers of pixels"),
        (nothing, {"width": -6}, "not both numbers of pixels"),
        (nothing, {"width": 10**9, "height": 10**9}, "is 6 x 4 pixels, but 1000000000 x"),
        (nothing, {"file_name": "../pictures/a.png"}, "leads out of the image folder"),
        (nothing, {"file_name": "/etc/hostname"}, "leads out of the image folder"),
        (nothing, {"file_name": "x" * 5000}, "cannot be read"),
    ],
)
def test_a_bad_image(files, harm, change, message):
    """Its annotations go with it; the others stay."""
    data = content()
    data["images"][0].update(change)
    data["images"].append({"id": 8, "file_name": "b.png", "height": 2, "width": 2})
    files.picture("b.png", (2, 2))
    harm(files)
    dataset = files.open(data)
    (problem,) = dataset.find_problems()
    assert problem[:2] == (data["images"][0]["file_name"], None)
    with pytest.raises(InputError, match=message) as error:
        dataset[0]
    assert str(error.value) == f"{files.json}: {problem}: mend it or leave it out"
    assert "rotation" not in problem.what
    left = dataset.without([problem])
    assert (left.file_names, left.find_problems()) == (["b.png"], [])
    assert len(left[0][1]) == 0


def test_a_bar_where_it_is_asked_for(files, capsys):
    dataset = files.open(content())
    dataset.find_problems()
    assert capsys.readouterr() == ("", "")
    dataset.find_problems(progress=True)
    assert "checking" in capsys.readouterr().err


def test_a_picture_in_a_folder_of_its_own(files):
    (files.pictures / "sub").mkdir()
    files.picture("sub/b.png", (4, 6))
    data = content()
    data["images"][0]["file_name"] = "sub/b.png"
    assert files.open(data).find_problems() == []


# Writing


def test_written_by_hand():
    mask = np.zeros((1, 2, 3), bool)
    mask[0, 0, 1] = True
    target = Target(np.array([[1, 0, 2, 1]], np.float32), np.array([2]), mask, np.array([True]))
    assert coco_dict(["a.png"], [target], ["cat", "dog"]) == {
        "images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 3}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 2,
                "bbox": [1, 0, 1, 1],
                "area": 1,
                "iscrowd": 1,
                "segmentation": {"size": [2, 3], "counts": "213"},
            }
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def some_scenes(files):
    """Toy scenes with odd boxes and areas, a crowd, and one scene without objects; saved, and as targets."""
    rng = np.random.default_rng(0)
    names, targets = [], []
    for i, (image, scene) in enumerate(ShapesDataset(seed=1, length=6)):
        count = 0 if i == 2 else len(scene)
        boxes = np.clip(scene.boxes + rng.uniform(-0.4, 0.4, scene.boxes.shape), 0, 128).astype(np.float32)
        crowd, areas = rng.random(len(scene)) < 0.3, rng.uniform(1, 5000, len(scene))
        targets.append(Target(*(a[:count] for a in (boxes, scene.labels, scene.masks, crowd, areas))))
        names.append(f"{i}.png")
        Image.fromarray(image).save(files.pictures / names[-1])
    return names, targets


def same(one, other):
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_round_trip(files):
    names, targets = some_scenes(files)
    dataset = files.open(coco_dict(names, targets, ShapesDataset.classes))
    assert (dataset.classes, dataset.file_names, dataset.find_problems()) == (ShapesDataset.classes, names, [])
    for i, target in enumerate(targets):
        image, read = dataset[i]
        assert np.array_equal(image, ShapesDataset(seed=1, length=6)[i][0])
        assert same(read, target)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
def test_pycocotools_reads_it(files, capsys):
    names, targets = some_scenes(files)
    files.open(coco_dict(names, targets, ShapesDataset.classes))
    theirs = COCO(str(files.json))
    capsys.readouterr()
    for number, target in enumerate(targets, start=1):
        annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=[number]))
        assert len(annotations) == len(target)
        for annotation, mask in zip(annotations, target.masks, strict=True):
            assert np.array_equal(theirs.annToMask(annotation), mask)


def test_the_truth_scores_one(files):
    """Read back and handed to the evaluation as detections, crowds left out, the objects are all found."""
    names, targets = some_scenes(files)
    dataset = files.open(coco_dict(names, targets, ShapesDataset.classes))
    read = [dataset[i][1] for i in range(len(dataset))]
    proper = [target.without_crowds() for target in targets]
    found = [Detections(t.boxes, t.labels, np.ones(len(t), np.float32), t.masks) for t in proper]
    result = evaluate(found, read, dataset.classes)
    assert result["box"]["AP"] == result["mask"]["AP"] == 1


def test_targets_that_cannot_be_written(files):
    names, targets = some_scenes(files)
    with pytest.raises(InputError, match="5 file names but 6 targets"):
        coco_dict(names[1:], targets, ShapesDataset.classes)
    with pytest.raises(InputError, match=r"0.png: labels must be in 1\.\.1"):
        coco_dict(names, targets, ["square"])


# Corrupt files


def harmed(data, rng):
    """``data`` with a few bytes changed, a stretch cut out, or one stretch put over another."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, length = int(rng.integers(len(data))), int(rng.integers(1, 30))
        if (kind := rng.integers(4)) == 0:
            data[start] = rng.integers(256)
        elif kind == 1:
            data[start] = rng.choice(list(b'0123456789-.eE"[]{},:'))
        elif kind == 2:
            del data[start : start + length]
        else:
            other = int(rng.integers(len(data)))
            data[start : start + length] = data[other : other + length]
        if not data:
            break
    return bytes(data)


def several_objects():
    """Objects in all three forms."""
    data = content(area=6, iscrowd=0)
    compressed, listed = encode_rle(np.eye(4, 6, dtype=bool)), {"size": [4, 6], "counts": [3, 4, 17]}
    for number, rle in enumerate([compressed, listed], start=12):
        data["annotations"].append({**content(segmentation=rle)["annotations"][0], "id": number})
    return data


def open_and_mend(files, data):
    """Open a file that may be anything: at worst an InputError. What opens can be mended, and nothing takes long."""
    start = time.perf_counter()
    dataset = None
    with contextlib.suppress(InputError):
        dataset = files.open(data)
    if dataset is not None:
        mended = dataset.without(dataset.find_problems())
        assert mended.find_problems() == []
        for i in range(len(mended)):
            mended[i]
    assert time.perf_counter() - start < 1


FUZZING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)


@FUZZING
@given(seed=st.integers(0, 2**32 - 1))
def test_corrupt_bytes(files, seed):
    open_and_mend(files, harmed(json.dumps(several_objects()).encode(), np.random.default_rng(seed)))


def places(value):
    """Every container in ``value`` with every key or index of it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield value, key
        yield from places(item)


SCALARS = st.sampled_from(
    [None, True, 0, 1, 7, 11, -1, 2.5, 1e300, 10**9, 10**18, 10**400, "", "a.png", "..", "\ud800"]
)
ODD_VALUES = SCALARS | st.lists(SCALARS, max_size=8) | st.lists(st.lists(SCALARS, max_size=8), max_size=2)


@FUZZING
@given(value=ODD_VALUES, where=st.integers(0, 10**4), delete=st.booleans())
def test_odd_values(files, value, where, delete):
    """Anything in the place of any value, or a value missing."""
    data = several_objects()
    everywhere = list(places(data))
    container, key = everywhere[where % len(everywhere)]
    container[key] = value
    if delete:
        del container[key]
    open_and_mend(files, data)
