"""Long runs on one's own pictures: the memory that a process holds stays what it was after the first moments."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_pictures import own, write_pictures
from tiny import TINY, tiny_model

from mrcnn_scratch.train import save_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory"),
]

SIZES = [(60, 80), (50, 50), (40, 90), (90, 30), (64, 64)]
ALLOWED = 4.0
"""MiB that may come on top after the warm-up: what Python and the C library find no hole for."""

DRIVER = """
import json, os, resource, sys
from pathlib import Path
from tiny import TINY
from mrcnn_scratch import cli, commands, run_settings
from mrcnn_scratch.data import coco
from mrcnn_scratch.train import loop

where, report, *arguments = sys.argv[1:]
held = []

def watched(function):
    def call(*a, **k):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held.append(pages * resource.getpagesize() / 2**20)
        return function(*a, **k)
    return call

owner, name = {
    "steps": (loop.SGD, "step"),
    "pictures": (commands, "read_image"),
    "examples": (coco.CocoDataset, "__getitem__"),
}[where]
setattr(owner, name, watched(getattr(owner, name)))
run_settings.OWN_IMAGES = TINY
code = cli.main(arguments)
Path(report).write_text(json.dumps(held))
sys.exit(code)
"""


def memory(where, tmp_path, *arguments):
    """MiB that the process holds at each step, picture or example."""
    report = tmp_path / "held.json"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", DRIVER, where, str(report), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(report.read_text())


def assert_flat(held, warm_up):
    """The median of the last tenth is that of the tenth after the warm-up, within ``ALLOWED``."""
    tenth = len(held) // 10
    before, after = np.median(held[warm_up : warm_up + tenth]), np.median(held[-tenth:])
    print(f"{len(held)} times: {before:.1f} MiB after {warm_up}, {after:.1f} at the end, at most {max(held):.1f}")
    assert after - before < ALLOWED


def many_pictures(folder, count):
    sizes = list(itertools.islice(itertools.cycle(SIZES), count))
    write_pictures(folder, sizes, [number % 4 for number in range(count)])


def test_2000_training_steps(tmp_path):
    many_pictures(tmp_path / "data", 20)
    options = ["--steps", "2000", "--batch-size", "2", "--lr", "0.001", "--out", tmp_path / "run"]
    held = memory("steps", tmp_path, "train", *own(tmp_path / "data"), *options)
    assert len(held) == 2000
    assert_flat(held, warm_up=300)


def test_2000_detections(tmp_path):
    many_pictures(tmp_path / "data", 20)
    save_model(tiny_model(), tmp_path / "model.npz")
    (tmp_path / "many").mkdir()
    for number in range(2000):
        os.link(tmp_path / "data" / f"p{number % 20}.png", tmp_path / "many" / f"{number:04}.png")
    options = ["--out", tmp_path / "seen", "--masks", "--score", "0.5"]
    held = memory("pictures", tmp_path, "detect", tmp_path / "model.npz", tmp_path / "many", *options)
    assert len(held) == 2000
    assert_flat(held, warm_up=300)


def test_evaluate_on_500_images(tmp_path):
    """What is kept of an image are its matches. (With --results also the detections, 1 KB each.)"""
    many_pictures(tmp_path / "data", 500)
    save_model(tiny_model(config=replace(TINY, classes=("square", "circle"))), tmp_path / "model.npz")
    arguments = ["evaluate", tmp_path / "model.npz", *own(tmp_path / "data"), "--json", tmp_path / "ap.json"]
    held = memory("examples", tmp_path, *arguments)
    assert len(held) == 500
    assert_flat(held, warm_up=100)
