"""The command line: what each command leaves and prints, and one clear line for everything that can be wrong."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny import TINY, assert_same_arrays, tiny_model

from mrcnn_scratch import __version__, cli, commands, run_settings
from mrcnn_scratch.data.images import read_image
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.train import data as data_module
from mrcnn_scratch.train import load_checkpoint, load_model, save_model
from mrcnn_scratch.train import run as run_module

TRAIN = ["--steps", "2", "--batch-size", "2", "--images", "5", "--seed", "4"]
FILES = ["checkpoint.npz", "config.toml", "curves.png", "detections.png", "metrics.csv", "model.npz"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files to read: a network with random weights, two scenes; and ones that cannot be read."""
    folder = tmp_path_factory.mktemp("files")
    save_model(tiny_model(), folder / "model.npz")
    save_model(tiny_model(config=replace(TINY, classes=("cat", "dog"))), folder / "two_classes.npz")
    for i in range(2):
        Image.fromarray(ShapesDataset(0, 2)[i][0]).save(folder / f"scene{i}.png")
    (folder / "text.npz").write_text("not a network")
    (folder / "text.png").write_text("not a picture")
    (folder / "picture.npz").write_bytes((folder / "scene0.png").read_bytes())
    (folder / "cut.npz").write_bytes((folder / "model.npz").read_bytes()[:-500])
    (folder / "cut.png").write_bytes((folder / "scene0.png").read_bytes()[:200])
    (folder / "text.pth").write_text("not a network")
    return folder


@pytest.fixture
def tiny_run(monkeypatch):
    """``train`` trains a tiny network, and looks at few scenes in the end."""
    monkeypatch.setattr(run_settings, "SHAPES", TINY)
    monkeypatch.setattr(data_module, "HELD_OUT_SCENES", 8)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def succeeds(capsys, *arguments):
    """What the command prints."""
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def fails(capsys, *arguments):
    """The one line that the command complains with; it prints nothing else."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mrcnn-scratch: ")
    assert printed.err.index("\n") == len(printed.err) - 1, printed.err
    return printed.err


# train


def test_train_leaves_a_run_and_prints_a_table(tmp_path, capsys, tiny_run):
    printed = succeeds(capsys, "train", "--out", tmp_path / "run", *TRAIN, "--lr", "0.01", "--schedule", "step")
    assert names_in(tmp_path / "run") == FILES
    assert "AP50" in printed
    assert str(tmp_path / "run" / "detections.png") in printed
    training = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["training"]
    given = {"steps": 2, "batch_size": 2, "images": 5, "seed": 4, "lr": 0.01, "schedule": "step"}
    assert training.items() >= given.items()


def test_resume_goes_on_whether_options_are_repeated_or_left_out(tmp_path, capsys, tiny_run, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as killed:
        killed.setattr(run_module, "run_steps", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            cli.main(["train", "--out", str(out), *TRAIN])
    succeeds(capsys, "train", "--out", out, "--resume")
    assert load_checkpoint(out / "checkpoint.npz").step == 2
    succeeds(capsys, "train", "--out", out, "--resume", *TRAIN)
    succeeds(capsys, "train", "--out", tmp_path / "other", *TRAIN)
    assert_same_arrays(load_model(out / "model.npz").state(), load_model(tmp_path / "other" / "model.npz").state())


def test_train_refuses(tmp_path, capsys, tiny_run, monkeypatch):
    out = tmp_path / "run"
    succeeds(capsys, "train", "--out", out, *TRAIN)
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert "--resume" in fails(capsys, "train", "--out", out, *TRAIN)
    message = fails(capsys, "train", "--out", out, "--resume", "--steps", "3")
    assert "has --steps 2, not 3: leave --steps out" in message
    assert "--batch-size 2, not 4" in fails(capsys, "train", "--out", out, "--resume", "--batch-size", "4")
    assert {path: path.read_bytes() for path in out.iterdir()} == before

    assert "holds no run" in fails(capsys, "train", "--out", tmp_path / "none", "--resume")
    (tmp_path / "file").write_text("mine")
    assert "cannot make the folder" in fails(capsys, "train", "--out", tmp_path / "file", *TRAIN)
    assert "cannot make the folder" in fails(capsys, "train", "--out", tmp_path / "file" / "run", *TRAIN)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy" in fails(capsys, "train", "--out", tmp_path / "gpu", "--device", "gpu")
    assert names_in(tmp_path) == ["file", "run"]


def test_a_run_whose_loss_explodes_ends_in_one_line(tmp_path, capsys, tiny_run):
    options = ["--steps", "60", "--batch-size", "1", "--images", "1", "--lr", "1e30"]
    assert cli.main(["train", "--out", str(tmp_path), *options]) == 2
    *_, last = capsys.readouterr().err.splitlines()  # before it the progress bar
    assert last.startswith("mrcnn-scratch: step ")
    assert "on images [0]" in last
    assert "lower learning rate" in last


# evaluate


def test_evaluate_prints_the_table_and_writes_every_figure(files, tmp_path, capsys):
    printed = succeeds(
        capsys, "evaluate", files / "model.npz", "--images", 4, "--seed", 3, "--json", tmp_path / "ap.json"
    )
    for word in ("AP", "AP50", "AP75", "AR", "square", "circle", "triangle", "box", "mask"):
        assert word in printed

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    result = json.loads((tmp_path / "ap.json").read_text(), parse_constant=refuse)
    assert set(result) == {"box", "mask"}
    assert {"AP", "AP50", "AP75", "AR"} <= set(result["box"])
    assert names_in(tmp_path) == ["ap.json"]


def test_one_scene_lacks_classes_and_is_json_all_the_same(files, tmp_path, capsys):
    succeeds(capsys, "evaluate", files / "model.npz", "--images", 1, "--json", tmp_path / "ap.json")
    assert "NaN" not in (tmp_path / "ap.json").read_text()


def test_the_same_scenes_give_the_same_table(files, capsys):
    arguments = ["evaluate", files / "model.npz", "--images", 3]
    assert succeeds(capsys, *arguments) == succeeds(capsys, *arguments)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none.npz", "there is no file"),
        ("text.npz", "damaged or not one of ours"),
        ("picture.npz", "damaged or not one of ours"),
        ("cut.npz", "damaged or not one of ours"),
        ("scene0.png", "damaged or not one of ours"),
        (".", "is a folder"),
        ("none.pth", "none.pth"),
        ("text.pth", "text.pth"),
        ("two_classes.npz", "knows 2 classes; toy scenes have 3"),
    ],
)
def test_evaluate_refuses_a_model(model, message, files, tmp_path, capsys):
    printed = fails(capsys, "evaluate", files / model, "--json", tmp_path / "ap.json")
    assert message in printed
    assert str(files / model) in printed
    assert names_in(tmp_path) == []


def test_evaluate_knows_before_the_work_that_it_cannot_write(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands.measure, "measure", None)
    message = fails(capsys, "evaluate", files / "model.npz", "--json", tmp_path / "none" / "ap.json")
    assert "cannot write" in message
    assert "it is a folder" in fails(capsys, "evaluate", files / "model.npz", "--json", tmp_path)
    assert names_in(tmp_path) == []


def test_no_gpu(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for command in (["evaluate"], ["detect", files / "scene0.png", "--out", tmp_path / "out"]):
        assert "CuPy" in fails(capsys, command[0], files / "model.npz", *command[1:], "--device", "gpu")
    assert names_in(tmp_path) == []


# detect


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
def test_detect_writes_an_overlay_and_coco_results(files, tmp_path, capsys):
    out = tmp_path / "some" / "folder"
    images = [files / "scene0.png", files / "scene1.png"]
    printed = succeeds(capsys, "detect", files / "model.npz", *images, "--out", out)
    assert names_in(out) == ["scene0.json", "scene0.png", "scene1.json", "scene1.png"]
    assert len(printed.splitlines()) == 2

    model = load_model(files / "model.npz")
    for path in images:
        image = read_image(path)
        with Image.open(out / path.name) as overlay:
            assert overlay.size == (512, 512)  # small pictures are enlarged, so that labels can be read
        found = model.detect([image])[0]
        rows = json.loads((out / path.with_suffix(".json").name).read_text())
        assert len(rows) == len(found) > 0
        for row, box, label, score, mask in zip(
            rows, found.boxes, found.labels, found.scores, found.masks, strict=True
        ):
            assert set(row) == {"image_id", "category_id", "bbox", "score", "segmentation"}
            assert row["image_id"] == path.name
            assert row["category_id"] == label
            assert row["score"] == pytest.approx(score)
            assert row["bbox"] == pytest.approx([box[0], box[1], box[2] - box[0], box[3] - box[1]], abs=1e-4)
            assert np.array_equal(coco_mask.decode(row["segmentation"]), mask)


def test_pictures_of_every_kind(files, tmp_path, capsys):
    scene = Image.open(files / "scene0.png")
    scene.convert("L").save(tmp_path / "grey.jpg")
    scene.convert("P").save(tmp_path / "palette.gif")
    scene.convert("RGBA").save(tmp_path / "alpha.png")
    scene.resize((1, 1)).save(tmp_path / "pixel.bmp")
    scene.resize((300, 2)).save(tmp_path / "strip.tiff")
    images = sorted(tmp_path.iterdir())
    succeeds(capsys, "detect", files / "model.npz", *images, "--out", tmp_path / "out")
    for path in images:
        with Image.open(path) as image, Image.open(tmp_path / "out" / f"{path.stem}.png") as overlay:
            assert overlay.size[0] * image.size[1] == overlay.size[1] * image.size[0]


def test_images_of_one_name_but_different_endings(files, tmp_path, capsys):
    for ending in ("png", "bmp"):
        Image.open(files / "scene0.png").save(tmp_path / f"a.{ending}")
    succeeds(capsys, "detect", files / "model.npz", tmp_path / "a.png", tmp_path / "a.bmp", "--out", tmp_path / "out")
    assert names_in(tmp_path / "out") == ["a.bmp.json", "a.bmp.png", "a.png.json", "a.png.png"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "there is no file"),
        ("text.png", "is not a picture"),
        ("cut.png", "damaged"),
    ],
)
def test_detect_refuses_an_image_and_does_the_others(image, message, files, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in fails(capsys, "detect", files / "model.npz", files / image, "--out", out)
    assert not out.exists()

    arguments = ["detect", files / "model.npz", files / image, files / "scene1.png", "--out", out]
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    assert "scene1.png: " in printed.out
    assert names_in(out) == ["scene1.json", "scene1.png"]


def test_detect_refuses_folders(files, tmp_path, capsys):
    scene = files / "scene0.png"
    (tmp_path / "file").write_text("mine")
    assert "cannot make the folder" in fails(capsys, "detect", files / "model.npz", scene, "--out", tmp_path / "file")
    before = scene.read_bytes()
    assert "would overwrite" in fails(capsys, "detect", files / "model.npz", scene, "--out", files)
    assert scene.read_bytes() == before
    out = tmp_path / "out"
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "scene0.png"
    copy.write_bytes(scene.read_bytes())
    assert "the same name" in fails(capsys, "detect", files / "model.npz", scene, copy, "--out", out)
    assert "there is no file" in fails(capsys, "detect", files / "none.npz", scene, "--out", out)
    assert names_in(tmp_path) == ["file", "other"]


def test_a_name_of_two_lines_is_complained_about_in_one(files, tmp_path, capsys):
    fails(capsys, "detect", files / "model.npz", tmp_path / "two\nlines.png", "--out", tmp_path / "out")


# Options


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", ["--out", "--steps", "--batch-size", "--images", "--seed", "--device", "--resume", "bit for bit"]),
        ("evaluate", ["MODEL", "shapes", "--images", "--seed", "--json", "--device", "default 200"]),
        ("detect", ["MODEL", "IMAGE", "--out", "--device", "COCO results", "overlay"]),
        (None, ["train", "evaluate", "detect", "--version"]),
    ],
)
def test_help_names_every_option(command, options, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*([command] if command else []), "--help"])
    assert end.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for option in options:
        assert option in printed


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mrcnn-scratch {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["train"], "--out"),
        (["train", "--out", "x", "--steps", "0"], "must be a whole number, at least 1, not '0'"),
        (["train", "--out", "x", "--steps", "many"], "must be a whole number, at least 1, not 'many'"),
        (["train", "--out", "x", "--batch-size", "1.5"], "whole number"),
        (["train", "--out", "x", "--images", "-1"], "at least 0"),
        (["train", "--out", "x", "--seed", "-1"], "at least 0"),
        (["train", "--out", "x", "--lr", "nan"], "must be a number above 0, not 'nan'"),
        (["train", "--out", "x", "--lr", "fast"], "must be a number above 0, not 'fast'"),
        (["train", "--out", "x", "--device", "tpu"], "tpu"),
        (["evaluate"], "MODEL"),
        (["evaluate", "shapes", "--images", "0"], "at least 1"),
        (["detect", "shapes", "--out", "x"], "IMAGE"),
        (["detect", "shapes", "a.png"], "--out"),
    ],
    ids=" ".join,
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: mrcnn-scratch")
    assert message in printed.splitlines()[-1]


# As a process of its own


def test_the_module_and_the_installed_script_end_with_the_code(files):
    commands = [[sys.executable, "-m", "mrcnn_scratch"]]
    script = Path(sys.executable).with_name("mrcnn-scratch")
    if script.exists():  # in a source tree that was not installed there is none
        commands.append([str(script)])
    for command in commands:
        process = subprocess.run(
            [*command, "evaluate", str(files / "text.npz")], capture_output=True, text=True, timeout=60, check=False
        )
        assert process.returncode == 2
        assert process.stdout == ""
        assert process.stderr.startswith(f"mrcnn-scratch: {files / 'text.npz'} is damaged")
        assert process.stderr.count("\n") == 1
