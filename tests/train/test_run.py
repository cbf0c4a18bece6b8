"""A run in a folder: what it leaves, and that one which was stopped and gone on with ends as one that was not."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import SHORT, TINY, assert_same_arrays

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.train import data as data_module
from mrcnn_scratch.train import load_checkpoint, load_model
from mrcnn_scratch.train import run as run_module
from mrcnn_scratch.train.metrics import COLUMNS, keep_metrics, read_metrics
from mrcnn_scratch.train.run import FILES, Stopped, train

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def few_held_out_scenes(monkeypatch):
    monkeypatch.setattr(data_module, "HELD_OUT_SCENES", 8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was not stopped, and the table that it ended with."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(data_module, "HELD_OUT_SCENES", 8)
        table = train(out, TINY, SHORT)
    return out, table


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def steps_in(out):
    return [int(row["step"]) for row in read_metrics(out / "metrics.csv")]


def assert_same_runs(out, other):
    """The same weights, optimiser and figures, to the bit; only the seconds may differ."""
    some, others = load_checkpoint(out / "checkpoint.npz"), load_checkpoint(other / "checkpoint.npz")
    assert (some.step, some.config, some.training) == (others.step, others.config, others.training)
    assert_same_arrays(some.state, others.state)
    assert_same_arrays(some.velocity, others.velocity)
    assert_same_arrays(load_model(out / "model.npz").state(), load_model(other / "model.npz").state())
    assert (out / "config.toml").read_bytes() == (other / "config.toml").read_bytes()
    rows = [[row | {"seconds": ""} for row in read_metrics(folder / "metrics.csv")] for folder in (out, other)]
    assert rows[0] == rows[1]


# What a run leaves


def test_the_files_of_a_run(whole):
    out, table = whole
    assert files_in(out) == sorted(FILES)
    assert "AP50" in table
    assert tomllib.loads((out / "config.toml").read_text()) == {
        "network": json.loads(json.dumps(TINY.to_dict())),
        "training": asdict(SHORT),
    }
    checkpoint = load_checkpoint(out / "checkpoint.npz")
    assert checkpoint.step == SHORT.steps
    assert_same_arrays(load_model(out / "model.npz").state(), checkpoint.state)
    for name in ("curves.png", "detections.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(picture.size[0] * picture.size[1])) > 20


def test_the_figures_of_a_run(whole):
    out, _ = whole
    content = (out / "metrics.csv").read_bytes()
    assert b"\r" not in content
    header, *rows = csv.reader(content.decode().splitlines())
    assert header == [
        "step",
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
        "loss_objectness",
        "loss_rpn_box_reg",
        "total",
        "gradient_norm",
        "lr",
        "positive_anchors",
        "positive_rois",
        "seconds",
    ]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    for row in rows:
        numbers = dict(zip(header, map(float, row), strict=True))
        losses = [value for name, value in numbers.items() if name.startswith("loss_")]
        assert sum(losses) == pytest.approx(numbers["total"], rel=1e-4)


def test_fresh_scenes_for_ever(tmp_path):
    train(tmp_path, TINY, replace(SHORT, steps=2, images=0))
    assert steps_in(tmp_path) == [1, 2]


def test_the_seed_decides(whole, tmp_path):
    train(tmp_path / "other", TINY, replace(SHORT, seed=1))
    some, other = (load_model(out / "model.npz").state() for out in (whole[0], tmp_path / "other"))
    assert not np.array_equal(some["rpn_head.conv.weight"], other["rpn_head.conv.weight"])


# Stopped and gone on with

DRIVER = """
import os, signal, sys
from pathlib import Path
from tiny import SHORT, TINY
from mrcnn_scratch import cli
from mrcnn_scratch.train import loop, run

real = run.train

where, which, number, out = sys.argv[1:]

def interrupted(function):
    calls = iter(range(1, 1000))
    def call(*arguments, **options):
        if next(calls) == int(number):
            os.kill(os.getpid(), getattr(signal, which))
        return function(*arguments, **options)
    return call

module, name = {
    "in a step": (loop.SGD, "step"),
    "in the data": (loop, "augment"),
    "between row and checkpoint": (run, "save_checkpoint"),
    "in a checkpoint": (os, "fsync"),
    "before the rename": (os, "replace"),
}[where]
setattr(module, name, interrupted(getattr(module, name)))
run.train = lambda folder, network, config, **options: real(folder, TINY, SHORT, **options)
sys.exit(cli.main(["train", "--out", out]))
"""


def run_and_interrupt(where, signal_name, number, out):
    """Train in a process that sends itself a signal at call ``number`` of the function at ``where``."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", DRIVER, where, signal_name, str(number), str(out)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(whole, tmp_path):
    out = tmp_path / "run"
    process = run_and_interrupt("in a step", "SIGINT", 5, out)
    assert process.returncode == 130
    assert process.stdout == ""
    assert process.stderr.endswith("\nmrcnn-scratch: stopped after step 5; go on with --resume\n")
    assert "Traceback" not in process.stderr
    assert files_in(out) == ["checkpoint.npz", "config.toml", "metrics.csv"]
    assert load_checkpoint(out / "checkpoint.npz").step == 5

    assert train(out, TINY, SHORT, resume=True) == whole[1]
    assert_same_runs(out, whole[0])
    assert steps_in(out) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("where", "number", "last"),
    [
        ("in the data", 1, 0),  # before the first step is done
        ("in a step", 6, 3),
        ("between row and checkpoint", 3, 3),  # the third is step 6's; the first one stands for step 0
        ("in a checkpoint", 5, 3),  # files are synchronised in this order: checkpoint, config, metrics, checkpoints
        ("before the rename", 6, 6),
    ],
)
def test_kill_9_costs_only_the_steps_since_the_last_checkpoint(where, number, last, whole, tmp_path):
    out = tmp_path / "run"
    process = run_and_interrupt(where, "SIGKILL", number, out)
    assert process.returncode == -9
    assert load_checkpoint(out / "checkpoint.npz").step == last

    train(out, TINY, SHORT, resume=True)
    assert_same_runs(out, whole[0])
    assert steps_in(out) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_ctrl_c_twice_stops_at_once_and_the_last_checkpoint_stands(tmp_path, monkeypatch):
    def press_twice(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mrcnn_scratch.train.loop.SGD.step", press_twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", TINY, SHORT)
    assert load_checkpoint(tmp_path / "run" / "checkpoint.npz").step == 0


def test_ctrl_c_while_a_checkpoint_is_written_waits_for_the_next_step(whole, tmp_path, monkeypatch):
    write_checkpoint = run_module.save_checkpoint

    def press(checkpoint, path):
        if checkpoint.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        write_checkpoint(checkpoint, path)

    out = tmp_path / "run"
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run_module, "save_checkpoint", press)
    with pytest.raises(Stopped, match=r"^stopped after step 4; go on with --resume$"):
        train(out, TINY, SHORT)
    assert load_checkpoint(out / "checkpoint.npz").step == 4  # so that "step 4" is the truth
    assert signal.getsignal(signal.SIGINT) is handler
    train(out, TINY, SHORT, resume=True)
    assert_same_runs(out, whole[0])


def test_in_a_thread_ctrl_c_is_somebody_elses_business(tmp_path):
    thread = threading.Thread(target=train, args=(tmp_path / "run", TINY, replace(SHORT, steps=1)))
    thread.start()
    thread.join()
    assert files_in(tmp_path / "run") == sorted(FILES)


def test_a_finished_run_gone_on_with_only_reports_again(whole, tmp_path):
    out, table = whole
    (out / "curves.png").unlink()
    before = (out / "metrics.csv").read_bytes()
    assert train(out, TINY, replace(SHORT, steps=99), resume=True) == table  # a resumed run has its own settings
    assert (out / "metrics.csv").read_bytes() == before
    assert files_in(out) == sorted(FILES)


# Rows of metrics.csv after a stop

ROWS = [",".join([str(step), *["0.5"] * (len(COLUMNS) - 1)]) for step in range(1, 6)]
TEXT = "\n".join([",".join(COLUMNS), *ROWS]) + "\n"


def kept_of(path, text, steps):
    path.write_bytes(text.encode())
    keep_metrics(path, steps)
    header, *rows = path.read_text().splitlines()
    assert header == ",".join(COLUMNS)
    return rows


def test_rows_after_the_checkpoint_go(tmp_path):
    assert kept_of(tmp_path / "m", TEXT, 3) == ROWS[:3]
    assert kept_of(tmp_path / "m", TEXT, 0) == []
    assert kept_of(tmp_path / "m", TEXT, 9) == ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics")


@given(length=st.integers(len(ROWS[0]), len(TEXT)), steps=st.integers(1, 5))
def test_a_table_cut_off_anywhere_keeps_its_whole_rows(length, steps, folder):
    text = TEXT[: max(length, TEXT.index("\n") + 1)]
    rows = kept_of(folder / "m", text, steps)
    assert [row.split(",")[0] for row in rows] == [row.split(",")[0] for row in ROWS[: len(rows)]]
    complete = text[: text.rindex("\n") + 1].splitlines()[1:]
    assert rows[: len(complete)] == complete[:steps]
    assert len(rows) <= min(steps, len(complete) + 1)
    assert all(row.count(",") == len(COLUMNS) - 1 for row in rows)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"step\x00,\n"])
def test_what_is_no_table_of_a_run_is_refused(content, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv"):
        read_metrics(tmp_path / "metrics.csv")


# Refused


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refuses(match, out, **options):
    before = snapshot(out) if out.is_dir() else None
    with pytest.raises(InputError, match=match):
        train(out, TINY, SHORT, **options)
    assert (snapshot(out) if out.is_dir() else None) == before  # nothing half-written


def test_a_folder_with_a_run_is_not_written_over(whole):
    refuses("holds a run already: add --resume", whole[0])


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_a_file_of_that_name_is_not_written_over(name, tmp_path):
    (tmp_path / name).write_text("mine")
    refuses("holds a", tmp_path)


def test_other_files_in_the_folder_do_no_harm(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, TINY, replace(SHORT, steps=1))
    assert files_in(tmp_path) == sorted([*FILES, "notes.txt"])


def test_nothing_to_go_on_with(tmp_path):
    refuses("holds no run", tmp_path, resume=True)
    refuses("holds no run", tmp_path / "none", resume=True)
    assert files_in(tmp_path) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    refuses("cannot make the folder", tmp_path / "file")
    refuses("cannot make the folder", tmp_path / "file" / "run")
    refuses("holds no run", tmp_path / "file", resume=True)
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_no_gpu_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it then fails
    refuses("CuPy, which is not installed", tmp_path / "run", device="gpu")
    assert files_in(tmp_path) == []


def test_a_damaged_checkpoint(whole, tmp_path):
    content = (whole[0] / "checkpoint.npz").read_bytes()
    (tmp_path / "checkpoint.npz").write_bytes(content[:-100])
    refuses("checkpoint.npz is damaged", tmp_path, resume=True)


def test_a_checkpoint_with_settings_that_no_run_has(whole, tmp_path):
    checkpoint = load_checkpoint(whole[0] / "checkpoint.npz")
    for settings in ({"steps": "many"}, {"velocity": 3}, {"schedule": "sawtooth"}):
        run_module.save_checkpoint(replace(checkpoint, training=settings), tmp_path / "checkpoint.npz")
        refuses("training", tmp_path, resume=True)


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    losses = run_module.MaskRCNN.losses
    calls = iter(range(1, 100))

    def explode(self, *arguments):
        result, backward = losses(self, *arguments)
        if next(calls) == 5:
            result["loss_mask"] = np.float32("nan")
        return result, backward

    monkeypatch.setattr(run_module.MaskRCNN, "losses", explode)
    with pytest.raises(InputError, match=r"^step 5: the loss is nan on images \["):
        train(tmp_path, TINY, SHORT)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.npz")
    assert checkpoint.step == 3
    assert all(np.isfinite(array).all() for array in checkpoint.state.values())
    assert files_in(tmp_path) == ["checkpoint.npz", "config.toml", "metrics.csv"]
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def test_a_table_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "keep_metrics", lambda path, steps: path.mkdir())
    with pytest.raises(InputError, match=r"^cannot write .*metrics\.csv: Is a directory$"):
        train(tmp_path, TINY, SHORT)
