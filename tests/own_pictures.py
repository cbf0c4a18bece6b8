"""A small data set of one's own, and the command line on it, for the tests that try to break both."""

import contextlib
import io
import json
import re

import numpy as np
from PIL import Image

from mrcnn_scratch import cli

BAR = re.compile(r"(training|evaluating|checking|inspecting): ")
TRAIN = ["--steps", "1", "--batch-size", "2"]


def write_pictures(folder, sizes=((60, 80), (50, 50)), objects=(2, 1), classes=("square", "circle")):
    """Pictures of noise p0.png, p1.png, ... of ``sizes`` (height, width), each with so many rectangles labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (size, count) in enumerate(zip(sizes, objects, strict=True)):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"p{number}.png")
        images.append({"id": number + 1, "file_name": f"p{number}.png", "height": size[0], "width": size[1]})
        for _ in range(count):
            w, h = (max(1, side // 3) for side in size[::-1])
            x, y = int(rng.integers(size[1] - w + 1)), int(rng.integers(size[0] - h + 1))
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1 + len(annotations) % 2}
            annotations.append({**entry, "bbox": [x, y, w, h], "area": w * h, "segmentation": [corners], "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(data))


def own(folder):
    """The options that name such a data set."""
    return ["--data", folder / "annotations.json", "--image-dir", folder]


def run(*arguments):
    """The command line in this process: its exit code, what it prints, and its complaints, bars left out."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    lines = [line for line in re.split(r"[\r\n]", err.getvalue()) if line.strip() and not BAR.match(line)]
    return code, out.getvalue(), lines


def succeeds(*arguments):
    """What the command prints; it complains of nothing."""
    code, out, lines = run(*arguments)
    assert (code, lines) == (0, [])
    return out


def fails(*arguments):
    """The one line of a command that ends with 2."""
    code, _, lines = run(*arguments)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("mrcnn-scratch: ")
    return lines[0]


def ends_well(*arguments):
    """Whatever is wrong: 0 or 1 without a complaint, or 2 with one line. (A traceback fails the test by itself.)"""
    code, _, lines = run(*arguments)
    assert code in (0, 1, 2)
    assert len(lines) == (code == 2), lines
    return code


def assert_all_whole(folder):
    """Every file below ``folder`` can be read to its end, and no writer left a part of one."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        assert not path.name.endswith(".part"), path
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                assert len(dict(arrays)) > 1
