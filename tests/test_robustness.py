"""Attacks on the command line with one's own pictures: whatever is killed, full, damaged or odd, what was there stays
whole, and one line says what is wrong."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tomllib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_pictures import TRAIN, assert_all_whole, ends_well, fails, own, run, succeeds, write_pictures
from PIL import Image
from tiny import TINY, assert_same_arrays, tiny_model

from mrcnn_scratch import run_settings
from mrcnn_scratch.train import load_checkpoint, load_model, save_model
from mrcnn_scratch.train.metrics import read_metrics

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    monkeypatch.setattr(run_settings, "OWN_IMAGES", TINY)
    monkeypatch.setattr(run_settings, "SHAPES", TINY)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Two pictures, a network for them, and a run of one step: what is damaged below."""
    folder = tmp_path_factory.mktemp("good")
    write_pictures(folder)
    with Image.open(folder / "p1.png") as picture:
        picture.save(folder / "photo.jpg")
    save_model(tiny_model(config=replace(TINY, classes=("square", "circle"))), folder / "model.npz")
    shutil.copy(TESTS / "fixtures" / "thin_maskrcnn.pth", folder / "model.pth")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run_settings, "OWN_IMAGES", TINY)
        succeeds("train", *own(folder), *TRAIN, "--out", folder / "run")
    return folder


# Killed, and started twice

DRIVER = """
import os, sys
from dataclasses import replace
from pathlib import Path
from tiny import TINY
from mrcnn_scratch import cli, commands, run_settings
from mrcnn_scratch.train import loop, run
from mrcnn_scratch.weights import model_file

where, number, *arguments = sys.argv[1:]
calls = iter(range(1, 1000))

def die(*_):
    os.kill(os.getpid(), 9)

def half(file, **arrays):
    file.write(b"PK" + bytes(10_000))
    file.flush()
    die()

def at_call(function, instead):
    return lambda *a, **k: (instead if next(calls) == int(number) else function)(*a, **k)

if where == "in a step":
    loop.SGD.step = at_call(loop.SGD.step, die)
if where == "in the middle of a checkpoint":
    model_file.np.savez = at_call(model_file.np.savez, half)
if where == "before the rename":
    os.replace = at_call(os.replace, die)
run_settings.OWN_IMAGES = TINY
run_settings.OWN_TRAINING = replace(run_settings.OWN_TRAINING, checkpoint_every=3)
sys.exit(cli.main(arguments))
"""


def process(where, number, *arguments):
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, where, str(number), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def unbroken(good, tmp_path_factory):
    """A run of 8 steps with checkpoints at 3, 6 and 8, which nobody killed."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run_settings, "OWN_IMAGES", TINY)
        monkeypatch.setattr(run_settings, "OWN_TRAINING", replace(run_settings.OWN_TRAINING, checkpoint_every=3))
        succeeds("train", *own(good), "--out", out, "--steps", "8", "--batch-size", "2")
    return out


@pytest.mark.parametrize(
    ("where", "number", "last"),
    [
        ("in a step", 6, 3),
        ("in the middle of a checkpoint", 3, 3),  # the first one is that of step 0
        ("before the rename", 5, 3),  # checkpoint, config, metrics, checkpoint of step 3, of step 6
    ],
)
def test_kill_9_costs_only_the_steps_since_the_last_checkpoint(where, number, last, good, unbroken, tmp_path):
    out = tmp_path / "run"
    killed = process(where, number, "train", *own(good), "--out", out, "--steps", "8", "--batch-size", "2")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert load_checkpoint(out / "checkpoint.npz").step == last

    succeeds("train", "--resume", "--out", out)
    assert_same_arrays(load_model(out / "model.npz").state(), load_model(unbroken / "model.npz").state())
    assert [int(row["step"]) for row in read_metrics(out / "metrics.csv")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert_all_whole(out)  # what the killed process had half written is gone as well


def test_of_two_runs_started_at_once_in_one_folder_one_trains(good, tmp_path):
    arguments = ["train", *own(good), "--out", tmp_path / "run", "--steps", "20", "--batch-size", "2"]
    pair = [process("nowhere", 0, *arguments) for _ in range(2)]
    errors = [one.communicate(timeout=60)[1] for one in pair]
    assert sorted(one.returncode for one in pair) == [0, 2], errors
    [refused] = [error for one, error in zip(pair, errors, strict=True) if one.returncode == 2]
    assert "another run is working in" in refused or "holds a run already" in refused
    assert "Traceback" not in refused
    assert [int(row["step"]) for row in read_metrics(tmp_path / "run" / "metrics.csv")] == list(range(1, 21))
    assert_all_whole(tmp_path / "run")


# A full disk

KIB = 1024


@pytest.fixture
def small_disk(tmp_path):
    """Run a command with a folder on a disk of so many bytes: a real one where we may mount it, or the kernel's limit
    on a file's size, which refuses in the middle of a file as a full disk does."""
    resource = pytest.importorskip("resource", reason="this system limits neither disks nor files")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = []

    def on(size, command, *arguments):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.name == "posix" and os.geteuid() == 0 and shutil.which("mount"):
            mounted.append(subprocess.run(mount, capture_output=True, check=False).returncode == 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if not any(mounted):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            result = run(command, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert_all_whole(folder)
        return result

    yield folder, on
    for _ in filter(None, mounted):
        subprocess.run(["umount", str(folder)], check=True)


def no_space(result):
    code, _, lines = result
    assert code == 2
    assert len(lines) == 1, lines
    assert "cannot write" in lines[0]
    assert "No space left on device" in lines[0] or "File too large" in lines[0]


@pytest.mark.parametrize("size", [4 * KIB, 60 * KIB, 250 * KIB, 340 * KIB])
def test_training_on_a_full_disk_leaves_whole_files(size, good, small_disk):
    """At most sizes there is room for some files and not for the next, or for a checkpoint and not for two."""
    folder, on = small_disk
    no_space(on(size, "train", *own(good), "--out", folder / "run", *TRAIN))


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(good, tmp_path, monkeypatch):
    """The 5th fsync is that of step 6's checkpoint: those before are of checkpoint, config, metrics, checkpoint."""
    monkeypatch.setattr(run_settings, "OWN_TRAINING", replace(run_settings.OWN_TRAINING, checkpoint_every=3))
    calls, fsync = iter(range(1, 100)), os.fsync

    def full(handle):
        if next(calls) == 5:
            raise OSError(28, "No space left on device")
        fsync(handle)

    out = tmp_path / "run"
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        no_space(run("train", *own(good), "--out", out, "--steps", "8", "--batch-size", "2"))
    assert load_checkpoint(out / "checkpoint.npz").step == 3
    assert_all_whole(out)
    succeeds("train", "--resume", "--out", out)


@pytest.mark.parametrize("size", [4 * KIB, 12 * KIB])
@pytest.mark.parametrize("command", ["detect", "evaluate --json", "evaluate --results", "shapes", "inspect"])
def test_a_full_disk_leaves_no_half_written_file(command, size, good, small_disk):
    folder, on = small_disk
    arguments = {
        "detect": ["detect", good / "model.npz", good, "--out", folder / "seen"],
        "evaluate --json": ["evaluate", good / "model.npz", *own(good), "--json", folder / "ap.json"],
        "evaluate --results": ["evaluate", good / "model.npz", *own(good), "--results", folder / "found.json"],
        "shapes": ["shapes", "--images", "4", "--out", folder / "toy"],
        "inspect": ["inspect", own(good)[1], "--image-dir", good, "--sheet", folder / "sheet.png"],
    }[command]
    result = on(size, *arguments)
    if result[0] or (size < 12 * KIB and "--json" not in command):  # the figures of two pictures are small
        no_space(result)


# Damaged files

PIECES = [
    b"9",
    b"-",
    b"0",
    b"1e400",
    b"null",
    b"[",
    b"{}",
    b'"',
    b"true",
    b"NaN",
    b"\\ud800",
    b"\\u0000",
    b"\0",
    b"9" * 40,
]
changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(PIECES) | st.binary(max_size=4)), max_size=3
)


def damaged(content, cut, changed):
    """``content`` with bytes replaced here and there, then cut off at a part of its length."""
    damaged = bytearray(content)
    for where, piece in changed:
        start = int(where * len(damaged))
        damaged[start : start + max(1, len(piece))] = piece
    return bytes(damaged[: round(cut * len(damaged))])


def commands_on(folder, name):
    """Each command that reads the file ``name``."""
    data, model, out = own(folder), folder / "model.npz", folder / "out"
    sheet = ["--sheet", out / "sheet.png"]
    figures = ["--json", out / "ap.json", "--results", out / "found.json"]
    train = ["train", *data, *TRAIN, "--out", out / "run"]
    inspect = ["inspect", data[1], "--image-dir", folder, *sheet]
    evaluate = ["evaluate", model, *data, *figures]
    picture = [train, evaluate, inspect, ["detect", model, folder / name, "--out", out / "seen", "--masks"]]
    return {
        "p0.png": picture,
        "photo.jpg": picture[3:],
        "annotations.json": [train, [*train[:-1], out / "run2", "--skip-bad"], evaluate, inspect],
        "model.npz": [
            evaluate,
            [*picture[3][:2], folder / "p0.png", "--out", out / "seen"],
            [*train, "--start", model],
        ],
        "model.pth": [["detect", folder / "model.pth", folder / "p0.png", "--out", out / "seen"]],
        "run/config.toml": [[*train, "--config", folder / name], [*inspect, "--config", folder / name]],
        "run/checkpoint.npz": [["train", "--resume", "--out", folder / "run"], ["evaluate", folder / name, *data]],
        "run/metrics.csv": [["train", "--resume", "--out", folder / "run"]],
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "p0.png",
        "photo.jpg",
        "annotations.json",
        "model.npz",
        "model.pth",
        "run/config.toml",
        "run/checkpoint.npz",
        "run/metrics.csv",
    ],
)
def test_a_damaged_file_is_complained_of_in_one_line(name, good, tmp_path_factory):
    content = (good / name).read_bytes()
    folder = tmp_path_factory.mktemp("damaged")

    @given(cut=st.just(1.0) | st.floats(0, 1), changed=changes)
    @settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
    def check(cut, changed):
        shutil.copytree(good, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(damaged(content, cut, changed))
        (folder / "out").mkdir()
        for arguments in commands_on(folder, name):
            ends_well(*arguments)
        assert_all_whole(folder / "out")
        shutil.rmtree(folder)

    check()


def leaves(table, path=()):
    for name, value in table.items():
        yield from leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


HOSTILE = {int: [-1, 10**8, 10**40], float: ["-1.0", "1e30", "1e308", "inf", "nan", 10**40], str: ['"x"']}
LISTS = [
    "[]",
    "[0]",
    "[0.0, 0.0, 0.0]",
    "[-1.0]",
    "[nan, nan, nan, nan]",
    "[[0.0], [0.0], [0.0], [0.0], [0.0]]",
    "[10000000]",
]


def test_every_setting_of_a_configuration_at_hostile_values(good, tmp_path):
    """Those that no network can have are refused by name; none ends in a traceback, and none takes for ever."""
    settings = tomllib.loads((good / "run" / "config.toml").read_text())
    refused = 0
    for path, value in leaves(settings):
        if path[:2] in (("training", "steps"), ("training", "data")) or type(value) is bool:
            continue
        for hostile in HOSTILE.get(type(value), LISTS):
            (tmp_path / "c.toml").write_text(f"[{'.'.join(path[:-1])}]\n{path[-1]} = {hostile}\n")
            arguments = [own(good)[1], "--image-dir", good, "--config", tmp_path / "c.toml"]
            code, _, lines = run("inspect", *arguments, "--sheet", tmp_path / "sheet.png")
            assert len(lines) == (code == 2), lines
            if code == 2:
                assert str(tmp_path / "c.toml") in lines[0]
                assert path[-1] in lines[0]
                refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nlr = " + "9" * 5000, "is not TOML"),
        ("[training]\nlr = 0x" + "f" * 5000, "training.lr must be a number from"),
        ("[training]\nbatch_size = 100000000", "training.batch_size must be from 1 to 10000"),
        ("[network.transform]\nmean = [0.5]", "transform.mean must have 3 entries"),
        ("[network.transform]\nstd = [0.0, 1.0, 1.0]", "transform.std must be from 1e-06"),
        ("[network.roi]\nbox_weights = [1.0]", "roi.box_weights must have 4 entries"),
        ("[network.rpn]\npositive_fraction = inf", "rpn.positive_fraction must be"),
        ("[network.anchors]\nsizes = [[0.0], [1.0], [1.0], [1.0], [1.0]]", "anchors.sizes must be from 0.001"),
        ("[network.anchors]\naspect_ratios = [0.0]", "anchors.aspect_ratios must be from 0.001"),
    ],
)
def test_settings_that_no_run_can_have(text, message, good, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    line = fails("train", *own(good), "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert message in line
    assert str(tmp_path / "c.toml") in line
    assert not (tmp_path / "run").exists()


# Odd names


@pytest.mark.parametrize("odd", ['it\'s "so" $HOME\n[a-z]*?{x} ü 日本 €', "x" * 200], ids=["signs", "long"])
def test_every_path_may_have_an_odd_name(odd, good, tmp_path):
    folder = tmp_path / odd
    write_pictures(folder / odd)
    data, out = own(folder / odd), folder / "out"
    model, picture = folder / f"{odd}.npz", folder / odd / f"{odd}.png"
    shutil.copy(good / "model.npz", model)
    shutil.copy(good / "p0.png", picture)
    val = ["--val-data", data[1], "--val-image-dir", data[3]]
    out.mkdir()
    succeeds("train", *data, *val, *TRAIN, "--start", model, "--out", out / odd)
    succeeds("train", "--resume", "--out", out / odd)
    succeeds("train", "--config", out / odd / "config.toml", "--out", out / "again")
    succeeds("evaluate", model, *data, "--json", out / f"{odd}.json", "--results", out / f"{odd} found.json")
    succeeds("inspect", data[1], "--image-dir", data[3], "--sheet", out / f"{odd}.png")
    succeeds("detect", model, picture, "--out", out / f"{odd} seen", "--masks", "--score", "0")
    succeeds("shapes", "--images", "1", "--out", out / f"{odd} toy")
    rows = json.loads((out / f"{odd} seen" / f"{odd}.json").read_text())
    assert {row["image_id"] for row in rows} == {picture.name}
    assert_all_whole(folder)


def test_a_name_that_is_no_text(good, tmp_path):
    """A folder named in Latin 1, say: read and written like any, but a configuration in UTF-8 cannot hold its name."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        shutil.copytree(good, folder)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert "caf\\udce9/annotations.json' is not text in UTF-8: rename" in fails(
        "train", *own(folder), *TRAIN, "--out", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()
    succeeds("train", *own(good), *TRAIN, "--out", folder / "run2")
    succeeds("evaluate", folder / "model.npz", *own(folder), "--json", folder / "ap.json")
    succeeds("inspect", own(folder)[1], "--image-dir", folder, "--sheet", folder / "sheet.png")
    with process("nowhere", 0, "detect", folder / "model.npz", folder, "--out", folder / "seen") as detect:
        out, err = detect.communicate(timeout=60)
    assert (detect.returncode, err) == (0, "")
    assert "caf\\udce9/p0.png" in out  # what cannot be printed is printed as an escape


def test_a_terminal_that_knows_only_ascii(good, tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", classes=("kätzchen", "猫"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    arguments = ["inspect", own(tmp_path / "data")[1], "--image-dir", tmp_path / "data", "--sheet", tmp_path / "s.png"]
    with process("nowhere", 0, *arguments) as inspect:
        out, err = inspect.communicate(timeout=60)
    assert inspect.returncode == 0, err
    assert "k\\xe4tzchen" in out
    assert all(
        line.startswith(("checking", "inspecting")) for line in err.replace("\r", "\n").split("\n") if line.strip()
    )


def test_names_that_no_file_can_have(good, tmp_path):
    """Pathlib's own questions raise here: is_dir() and exists() are False only of what could be there."""
    long, data, model = tmp_path / ("x" * 300), own(good), good / "model.npz"
    for arguments in (
        ["train", "--data", long, "--image-dir", good, "--out", tmp_path / "run"],
        ["train", *data[:2], "--image-dir", long, "--out", tmp_path / "run"],
        ["train", *data, "--start", long, "--out", tmp_path / "run"],
        ["train", "--config", long, "--out", tmp_path / "run"],
        ["train", *data, *TRAIN, "--out", long],
        ["train", "--resume", "--out", long],
        ["evaluate", long],
        ["evaluate", model, *data, "--json", long],
        ["evaluate", model, *data, "--results", long / "found.json"],
        ["detect", model, long, "--out", tmp_path / "seen"],
        ["detect", model, good / "p0.png", "--out", long],
        ["inspect", long, "--image-dir", good],
        ["inspect", data[1], "--image-dir", long],
        ["inspect", data[1], "--image-dir", good, "--sheet", long],
        ["shapes", "--out", long],
    ):
        assert str(long) in fails(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "classes",
    [("x" * 300, "ü" * 300), ("${\\frac\n}", "$a_{b$"), ("日本\t\u2028", "%s {0}")],
    ids=["long", "signs", "foreign"],
)
def test_classes_of_any_name(classes, tmp_path):
    write_pictures(tmp_path / "data", classes=classes)
    data, model = own(tmp_path / "data"), tmp_path / "run" / "model.npz"
    table = succeeds("train", *data, *TRAIN, "--out", tmp_path / "run").split("\nMeasured on")[0]
    assert table.count("\n") == 6  # a heading, and two rows for all classes and for each
    assert load_model(model).config.classes == classes
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["network"]["classes"] == list(classes)
    succeeds("evaluate", model, *data, "--json", tmp_path / "ap.json")
    assert set(json.loads((tmp_path / "ap.json").read_text())["box"]["per_class"]) == set(classes)
    succeeds("inspect", data[1], "--image-dir", data[3], "--sheet", tmp_path / "sheet.png")
    succeeds("detect", model, tmp_path / "data", "--out", tmp_path / "seen", "--masks", "--score", "0")
    assert list((tmp_path / "seen" / "p0-masks").iterdir())
    assert_all_whole(tmp_path)


# Odd pictures


def bomb(path, width, height):
    """A PNG of a few bytes that claims to be so large."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_a_picture_that_claims_to_be_enormous(good, tmp_path):
    shutil.copytree(good, tmp_path / "data")
    bomb(tmp_path / "data" / "p0.png", 30_000, 30_000)
    data = json.loads((tmp_path / "data" / "annotations.json").read_text())
    data["images"][0] |= {"width": 30_000, "height": 30_000}
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(data))
    options, picture = own(tmp_path / "data"), tmp_path / "data" / "p0.png"
    refused = f"{picture} has more than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller first"
    assert refused in fails("train", *options, *TRAIN, "--out", tmp_path / "run")
    assert refused in fails("detect", good / "model.npz", picture, "--out", tmp_path / "seen")
    assert refused in fails("evaluate", good / "model.npz", *options)
    sheet = ["--sheet", tmp_path / "sheet.png"]
    code, printed, lines = run("inspect", options[1], "--image-dir", options[3], *sheet)
    assert (code, lines) == (1, [])
    assert "make it smaller first" in " ".join(printed.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "sheet.png"]


@pytest.mark.parametrize(
    ("sizes", "objects"),
    [
        ([(60, 80)], [0]),
        ([(60, 80)], [500]),
        ([(1, 1), (60, 80), (40, 5000), (5000, 40)], [1, 1, 0, 2]),
    ],
    ids=str,
)
def test_pictures_of_odd_sizes_and_with_any_number_of_objects(sizes, objects, good, tmp_path):
    write_pictures(tmp_path / "data", sizes, objects)
    data, model = own(tmp_path / "data"), good / "model.npz"
    succeeds("train", *data, *TRAIN, "--out", tmp_path / "run")
    assert np.isfinite(float(read_metrics(tmp_path / "run" / "metrics.csv")[0]["total"]))
    succeeds("evaluate", model, *data, "--json", tmp_path / "ap.json")
    counts = json.loads((tmp_path / "ap.json").read_text())["box"]["per_class"]
    assert sum(row["objects"] for row in counts.values()) == sum(objects)
    printed = succeeds("inspect", data[1], "--image-dir", data[3], "--sheet", tmp_path / "sheet.png")
    assert str(sum(objects)) in printed
    succeeds("detect", model, tmp_path / "data", "--out", tmp_path / "seen", "--masks", "--score", "0")
    assert len(list((tmp_path / "seen").glob("*.json"))) == len(sizes)
    assert_all_whole(tmp_path)
