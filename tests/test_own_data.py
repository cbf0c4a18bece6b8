"""Own pictures through the command line alone: COCO data in, COCO results out, and what is told when they are bad."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny import TINY, tiny_model

from mrcnn_scratch import cli, run_settings
from mrcnn_scratch.files import alone_in
from mrcnn_scratch.train import load_checkpoint, load_model, save_model

TRAIN = ["--steps", "3", "--batch-size", "2"]
SMALL = ["--min-size", "48", "--max-size", "64"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools, with NumPy 2


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    """The networks that are trained here are tiny ones."""
    monkeypatch.setattr(run_settings, "OWN_IMAGES", TINY)
    monkeypatch.setattr(run_settings, "SHAPES", TINY)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """As another tool might make it: odd names, ids with gaps, three sizes, polygons, runs, a crowd, an empty one."""
    folder = tmp_path_factory.mktemp("meine Bilder ü")
    rng = np.random.default_rng(0)
    images, annotations = [], []

    def add(name, size, mode="RGB"):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name)
        images.append({"id": 10 * len(images) + 7, "file_name": name, "height": size[0], "width": size[1]})
        return images[-1]["id"]

    def label(image, category, segmentation, bbox, crowd=0):
        area = float(bbox[2] * bbox[3])
        entry = {"id": 100 + len(annotations), "image_id": image, "category_id": category, "iscrowd": crowd}
        annotations.append({**entry, "segmentation": segmentation, "bbox": bbox, "area": area})

    first = add("eins zwei.png", (60, 80))
    label(first, 90, [[10, 10, 40.5, 12, 38, 44, 11, 40]], [10, 10, 30.5, 34])
    label(first, 3, [[50, 5, 70, 5, 70, 25, 50, 25], [50, 30, 60, 30, 55, 45]], [50, 5, 20, 40])
    second = add("ä.jpg", (50, 50), "L")
    label(second, 3, {"size": [50, 50], "counts": [500, 10, 40, 10, 40, 10, 40, 10, 1840]}, [10, 0, 4, 10])
    label(second, 90, {"size": [50, 50], "counts": [0, 1000, 1500]}, [0, 0, 20, 50], crowd=1)
    add("leer.png", (40, 90), "P")
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "cup"}, {"id": 3, "name": "Löffel"}],
    }
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def own(pictures):
    return ["--data", pictures / "annotations.json", "--image-dir", pictures]


def changed(pictures, tmp_path, change):
    """The annotations file after ``change`` has been at it."""
    data = json.loads((pictures / "annotations.json").read_text())
    change(data)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(data))
    return path


# The whole way


def test_train_evaluate_detect(pictures, tmp_path, capsys):
    out = tmp_path / "mein Lauf"
    assert run("train", *own(pictures), "--out", out, *TRAIN, *SMALL) == 0
    printed = capsys.readouterr().out
    assert "Löffel" in printed
    assert "Measured on the pictures that it was trained on: --val-data gives it others" in printed
    model = load_model(out / "model.npz")
    assert model.config.classes == ("Löffel", "cup")  # by rising category id: 3, 90
    assert (model.config.transform.min_size, model.config.transform.max_size) == (48, 64)
    assert run("evaluate", out / "model.npz", *own(pictures), "--json", tmp_path / "ap.json") == 0
    assert json.loads((tmp_path / "ap.json").read_text())["box"]["per_class"]["cup"]["objects"] == 1
    assert run("detect", out / "model.npz", pictures, "--out", tmp_path / "seen", "--masks", "--score", "0") == 0
    assert sorted(p.name for p in (tmp_path / "seen").glob("*.png")) == ["eins zwei.png", "leer.png", "ä.png"]
    rows = json.loads((tmp_path / "seen" / "leer.json").read_text())
    masks = sorted((tmp_path / "seen" / "leer-masks").iterdir())
    assert len(masks) == len(rows) > 0
    with Image.open(masks[0]) as mask:
        assert (mask.mode, mask.size) == ("1", (90, 40))


def test_a_runs_own_configuration_does_it_again(pictures, tmp_path):
    """config.toml alone, from another folder, gives the same weights to the bit."""
    assert run("train", *own(pictures), "--out", tmp_path / "a", *TRAIN, *SMALL, "--no-flip", "--seed", "5") == 0
    settings = tomllib.loads((tmp_path / "a" / "config.toml").read_text())
    assert settings["training"]["flip"] is False
    assert settings["training"]["colours"] is False  # in photographs colours mean something
    assert run("train", "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b") == 0
    first, second = (load_model(tmp_path / name / "model.npz").state() for name in "ab")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "config.toml").read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()


def test_options_go_before_the_file(pictures, tmp_path):
    (tmp_path / "few.toml").write_text("[training]\nsteps = 9\nlr = 0.001\n[network]\nfpn_channels = 4\n")
    assert run("train", *own(pictures), "--config", tmp_path / "few.toml", "--out", tmp_path / "a", *TRAIN, *SMALL) == 0
    checkpoint = load_checkpoint(tmp_path / "a" / "checkpoint.npz")
    assert (checkpoint.step, checkpoint.training["lr"], checkpoint.config.fpn_channels) == (3, 0.001, 4)


def test_resume_remembers_the_data(pictures, tmp_path, capsys, monkeypatch):
    save_model(tiny_model(), tmp_path / "start.npz")
    monkeypatch.chdir(tmp_path)
    assert run("train", *own(pictures), "--start", "start.npz", "--out", tmp_path / "a", *TRAIN, *SMALL) == 0
    assert tomllib.loads(Path("a/config.toml").read_text())["training"]["start"] == str(tmp_path / "start.npz")
    assert run("train", "--out", "a", "--resume") == 0
    assert run("train", "--out", "a", "--resume", *own(pictures), "--start", "start.npz", *SMALL) == 0
    capsys.readouterr()
    assert run("train", "--out", "a", "--resume", "--min-size", "50") == 2
    assert "--min-size 48, not 50" in capsys.readouterr().err


def test_a_trained_network_is_trained_on(pictures, tmp_path):
    """With other classes the outputs are new, and all before them is as it was."""
    save_model(tiny_model(seed=3), tmp_path / "start.npz")
    start = ["--start", tmp_path / "start.npz"]
    assert run("train", *own(pictures), "--out", tmp_path / "a", *start, "--steps", "1", "--lr", "1e-9", *SMALL) == 0
    before, after = load_model(tmp_path / "start.npz").state(), load_model(tmp_path / "a" / "model.npz").state()
    assert np.allclose(before["fpn.lateral.0.weight"], after["fpn.lateral.0.weight"], atol=1e-6)
    assert after["box_head.class_logits.bias"].shape == (3,)
    assert before["box_head.class_logits.bias"].shape == (4,)


def test_settings_that_are_not_given_are_those_of_the_network_to_start_from(pictures, tmp_path, capsys):
    """Its thresholds and anchors; other sizes than its weights have are refused."""
    save_model(tiny_model(config=replace(TINY, roi=replace(TINY.roi, detections=7))), tmp_path / "start.npz")
    start = [*own(pictures), "--start", tmp_path / "start.npz", *TRAIN, *SMALL, "--config", tmp_path / "some.toml"]
    (tmp_path / "some.toml").write_text("[network.anchors]\nsizes = [[4.0], [8.0], [16.0], [32.0], [64.0]]\n")
    assert run("train", *start, "--out", tmp_path / "a") == 0
    config = load_model(tmp_path / "a" / "model.npz").config
    assert (config.roi.detections, config.anchors.sizes[0]) == (7, (4.0,))
    capsys.readouterr()
    (tmp_path / "some.toml").write_text("[network]\nfpn_channels = 5\n")
    assert run("train", *start, "--out", tmp_path / "b") == 2
    assert "is a network of other sizes" in capsys.readouterr().err


def test_val_data_are_measured_on(pictures, tmp_path, capsys):
    def only_cups(data):
        data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 90]

    val = changed(pictures, tmp_path, only_cups)
    arguments = ["--val-data", val, "--val-image-dir", pictures, "--out", tmp_path / "a"]
    assert run("train", *own(pictures), *arguments, *TRAIN, *SMALL) == 0
    rows = capsys.readouterr().out.splitlines()
    assert not any(row.startswith("Measured on the pictures") for row in rows)
    [spoon] = [row for row in rows if row.startswith("Löffel")]
    assert spoon.split()[2:] == ["-"] * 4  # there is none to find


# COCOeval over --results says what --json says


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cocoeval_over_results_gives_the_figures(pictures, tmp_path, seed):
    model = tiny_model(seed=seed)
    model.replace_predictors(["Löffel", "cup"], np.random.default_rng(seed))
    save_model(model, tmp_path / "model.npz")
    files = ["--json", tmp_path / "ap.json", "--results", tmp_path / "results.json"]
    assert run("evaluate", tmp_path / "model.npz", *own(pictures), *files) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["image_id"] for row in results} <= {7, 17, 27}
    assert {row["category_id"] for row in results} <= {3, 90}
    figures = json.loads((tmp_path / "ap.json").read_text())
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        stats = cocoeval(pictures / "annotations.json", tmp_path / "results.json", kind)
        for key, number in (("AP", 0), ("AP50", 1), ("AP75", 2), ("AP_small", 3), ("AP_medium", 4), ("AR", 8)):
            ours = -1 if figures[name][key] is None else figures[name][key]
            assert ours == pytest.approx(stats[number], abs=1e-6)


def test_cocoeval_on_what_is_found(pictures, tmp_path):
    """The truth, a little moved, as results: figures that are not 0."""
    from mrcnn_scratch.data.coco import CocoDataset
    from mrcnn_scratch.measure import measure
    from mrcnn_scratch.structures import Detections

    dataset = CocoDataset(pictures / "annotations.json", pictures)

    class Oracle:
        def detect(self, images):
            found = []
            for image in images:
                target = next(t for i, t in (dataset[k] for k in range(3)) if np.array_equal(i, image))
                scores = np.linspace(0.9, 0.5, len(target), dtype=np.float32)
                found.append(Detections(target.boxes + 1, target.labels, scores, np.roll(target.masks, 1, axis=2)))
            return found

    measured = measure(Oracle(), dataset, image_ids=dataset.image_ids, category_ids=dataset.category_ids)
    (tmp_path / "results.json").write_text(json.dumps(measured.results))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        stats = cocoeval(pictures / "annotations.json", tmp_path / "results.json", kind)
        assert stats[0] > 0.3
        assert measured.figures[name]["AP"] == pytest.approx(stats[0], abs=1e-6)
        assert measured.figures[name]["AR"] == pytest.approx(stats[8], abs=1e-6)


def cocoeval(annotations, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_toy_scenes_go_by_the_networks_names(tmp_path, capsys):
    save_model(tiny_model(config=replace(TINY, classes=("box", "ball", "tent"))), tmp_path / "model.npz")
    assert run("evaluate", tmp_path / "model.npz", "--images", "2", "--json", tmp_path / "ap.json") == 0
    assert "tent" in capsys.readouterr().out
    assert json.loads((tmp_path / "ap.json").read_text())["box"]["per_class"].keys() == {"box", "ball", "tent"}


# Toy scenes for other tools


def test_shapes_writes_what_evaluate_measures_on(tmp_path, capsys):
    """The held-out scenes through files give the figures that they give without."""
    assert run("shapes", "--out", tmp_path / "toy", "--images", "4", "--seed", "3", "--held-out") == 0
    model = tiny_model()
    save_model(model, tmp_path / "model.npz")
    data = ["--data", tmp_path / "toy" / "annotations.json", "--image-dir", tmp_path / "toy" / "images"]
    assert run("evaluate", tmp_path / "model.npz", *data, "--json", tmp_path / "files.json") == 0
    assert run("evaluate", tmp_path / "model.npz", "--images", "4", "--seed", "3", "--json", tmp_path / "toy.json") == 0
    files, toy = (json.loads((tmp_path / name).read_text()) for name in ("files.json", "toy.json"))
    assert files["box"]["AR"] == pytest.approx(toy["box"]["AR"], abs=1e-6)
    assert files["mask"]["AP"] == pytest.approx(toy["mask"]["AP"], abs=1e-6)
    assert len(COCO(str(tmp_path / "toy" / "annotations.json")).getImgIds()) == 4
    capsys.readouterr()
    assert run("shapes", "--out", tmp_path / "toy") == 2
    assert "is there already" in capsys.readouterr().err


# What is bad


def two_bad(data):
    data["annotations"][0]["bbox"][2] = 0
    data["images"].append({"id": 1, "file_name": "none.png", "height": 4, "width": 4})


def test_bad_annotations_stop_training_or_are_skipped(pictures, tmp_path, capsys):
    data = ["--data", changed(pictures, tmp_path, two_bad), "--image-dir", pictures]
    assert run("train", *data, "--out", tmp_path / "a", *TRAIN, *SMALL) == 2
    message = capsys.readouterr().err
    assert "1 bad image and 1 bad annotation" in message
    assert "mrcnn-scratch inspect" in message
    assert "--skip-bad" in message
    assert not (tmp_path / "a").exists()
    assert run("train", *data, "--out", tmp_path / "a", *TRAIN, *SMALL, "--skip-bad") == 0
    assert "going on without 1 bad image and 1 bad annotation" in capsys.readouterr().out
    assert run("evaluate", tmp_path / "a" / "model.npz", *data) == 2
    assert run("evaluate", tmp_path / "a" / "model.npz", *data, "--skip-bad") == 0


def test_inspect_lists_them(pictures, tmp_path, capsys):
    data = [changed(pictures, tmp_path, two_bad), "--image-dir", pictures, "--sheet", tmp_path / "sheet.png"]
    assert run("inspect", *data, *SMALL) == 1
    printed = capsys.readouterr().out
    assert "none.png" in printed
    assert "annotation 100" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100
    assert run("inspect", pictures / "annotations.json", *data[1:]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "x", "--data", "a.json"], "--data and --image-dir go together"),
        (["train", "--out", "x", "--val-data", "a.json", "--val-image-dir", "."], "--val-data is for your own"),
        (["train", "--out", "x", "--data", "none.json", "--image-dir", "."], "none.json"),
        (["train", "--out", "x", "--config", "none.toml"], "cannot read none.toml"),
        (["train", "--out", "x", "--start", "none.npz"], "none.npz: expected a .npz"),
        (["evaluate", "shapes", "--data", "a.json"], "go together"),
        (["evaluate", "shapes", "--data", "a.json", "--image-dir", ".", "--seed", "3"], "--seed chooses toy scenes"),
        (["evaluate", "shapes", "--results", "none/results.json"], "cannot write"),
        (["detect", "shapes", ".", "--out", "x"], "there is no picture in ."),
        (["detect", "shapes", "*.png", "--out", "x"], "no file matches *.png"),
        (["inspect", "none.json", "--image-dir", "."], "none.json"),
    ],
)
def test_one_line_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("mrcnn-scratch: ")
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training", "is not TOML"),
        ("steps = 3", "no table [steps]"),
        ("training = 3", "training must be a table"),
        ("[training]\nstep = 3", "no setting 'training.step'"),
        ("[training]\nsteps = 'many'", "training.steps must be like 1500"),
        ("[training]\nsteps = 0", "training.steps must be at least 1"),
        ("[network.transform]\nmin_size = 0", "transform.min_size must be at least 1"),
        ("[network]\nfpn_channels = -1", "there is no such network"),
        ("[network.anchors]\nsizes = [[8.0]]", "anchors.sizes must have 5 entries"),
        ("[training]\ndata = 3", "must be a table of settings"),
    ],
)
def test_what_is_wrong_with_a_configuration(text, message, tmp_path, capsys):
    (tmp_path / "wrong.toml").write_text(text)
    assert run("train", "--out", tmp_path / "a", "--config", tmp_path / "wrong.toml") == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_patterns_and_folders_name_each_picture_once(pictures, tmp_path):
    save_model(tiny_model(), tmp_path / "model.npz")
    given = [pictures / "*.png", pictures, pictures / "ä.jpg"]
    assert run("detect", tmp_path / "model.npz", *given, "--out", tmp_path / "seen") == 0
    assert len(list((tmp_path / "seen").glob("*.json"))) == 3


# Two at once


def test_the_second_run_in_a_folder_refuses(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "--out", out, *TRAIN, "--images", "4") == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    holder = "import sys, pathlib; from mrcnn_scratch.files import alone_in\n"
    holder += "with alone_in(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        capsys.readouterr()
        assert run("train", "--out", out, "--resume") == 2
        assert "another run is working in" in capsys.readouterr().err
        other.stdin.close()
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run("train", "--out", out, "--resume") == 0


def test_a_lock_goes_with_a_killed_process(tmp_path):
    killed = "import os, pathlib, sys; from mrcnn_scratch.files import alone_in\n"
    killed += "with alone_in(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], env=os.environ, check=False).returncode == -9
    with alone_in(Path(tmp_path)):
        assert list(tmp_path.iterdir()) == []
