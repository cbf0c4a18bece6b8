"""``model.to("gpu")`` on the double of CuPy: a training step, a detection, a checkpoint; and how often the host waits.

The double computes with NumPy, but not always in the same order: on a "GPU" the tiles are larger and nothing is shared
out among threads. So sums are alike to rounding, not to the bit.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cupy_double import LEDGER, strict_cupy
from PIL import Image
from reference import assert_close
from tiny import TINY, assert_same_arrays, tiny_model, tiny_trainer

from mrcnn_scratch import cli, run_settings
from mrcnn_scratch.backend import array_module, load_cupy, to_host
from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.train import data as data_module
from mrcnn_scratch.train.checkpoint import load_checkpoint, save_checkpoint
from mrcnn_scratch.weights import load_shapes

WAITS_OF_A_STEP = {
    "rpn/proposals.py propose": 1,  # how many boxes are left of each image: sizes are the host's business
    "nms.py _keep_mask": 40,  # whether a pass of suppression changed anything: once a pass and level, for all images
    "mask_rcnn.py MaskRCNN.rpn_branch": 2,  # proposals and anchors come to the host, where targets are made from labels
    "roi/pooler.py pool": 2,  # which level each box reads; for the box head and for the mask head
    "ops/roi_align.py _groups": 8,  # the window that the boxes of an image read: once per level that is read and head
    "train/loop.py Trainer._step": 1,  # the five losses, to be shown and to be looked at for NaN
    "train/optim.py gradient_norm": 1,  # the length of the gradient, to be clipped
}
"""The most that a training step of any batch may wait for the GPU, by place. None grows with images, boxes or RoIs."""

WAITS_OF_A_DETECTION = {
    "rpn/proposals.py propose": 1,
    "roi/pooler.py pool": 2,
    "ops/roi_align.py _groups": 8,
}
"""The same for one call of detect, whatever the number of images; then, once more for each image:"""

WAITS_OF_EACH_IMAGE = {
    "roi/postprocess.py box_detections": 1,  # how many boxes pass the score threshold
    "nms.py batched_nms": 4,  # how many classes there are and how large the largest is; how many boxes stay
    "nms.py _keep_mask": 8,  # a pass of suppression
    "mask_rcnn.py MaskRCNN._in_original_image": 4,  # boxes, labels, scores and masks come to the host
}


def scenes(count):
    return tuple(zip(*(ShapesDataset(0, count)[i] for i in range(count)), strict=True))


def assert_all_on(xp, model):
    assert {array_module(array.value) for _, array in model.named_arrays()} == {xp}


# The same numbers


def test_a_training_step_gives_numpys_losses_and_gradients():
    images, targets = scenes(2)

    def run(model):
        losses, backward = model.astype(np.float64).losses(images, targets, np.random.default_rng(0))
        backward()
        return losses, {name: p.grad for name, p in model.named_parameters()}

    losses, gradients = run(tiny_model())
    with strict_cupy() as xp:
        gpu_losses, gpu_gradients = run(tiny_model().to("gpu"))
        for name, loss in losses.items():
            assert array_module(gpu_losses[name]) is xp
            assert_close(gpu_losses[name], loss, 1e-12)
        for name, gradient in gradients.items():
            assert array_module(gpu_gradients[name]) is xp
            assert_close(gpu_gradients[name], gradient, 1e-9)


def test_eight_training_steps_give_numpys_weights():
    on_cpu = tiny_trainer()
    rows = [on_cpu.step() for _ in range(8)]
    with strict_cupy() as xp:
        on_gpu = tiny_trainer(model=tiny_model().to("gpu"))
        gpu_rows = [on_gpu.step() for _ in range(8)]
        assert_all_on(xp, on_gpu.model)
        state = on_gpu.model.state()
    for row, gpu_row in zip(rows, gpu_rows, strict=True):
        assert gpu_row["total"] == pytest.approx(row["total"], rel=1e-3)
        assert gpu_row["positive_rois"] == row["positive_rois"]
    for name, array in on_cpu.model.state().items():
        assert_close(state[name], array, 1e-3)


def test_a_detection_gives_numpys():
    images, _ = scenes(3)
    expected = tiny_model().astype(np.float64).detect(images)
    with strict_cupy():
        found = tiny_model().astype(np.float64).to("gpu").detect(images)
    assert sum(len(one) for one in expected) > 5
    for one, other in zip(expected, found, strict=True):
        for name in ("boxes", "labels", "scores", "masks"):
            assert isinstance(getattr(other, name), np.ndarray)
            assert_close(getattr(other, name), getattr(one, name), 1e-9)


def test_a_checkpoint_goes_from_one_to_the_other_and_back(tmp_path):
    with strict_cupy():
        on_gpu = tiny_trainer(model=tiny_model().to("gpu"))
        for _ in range(3):
            on_gpu.step()
        save_checkpoint(on_gpu.checkpoint({}), tmp_path / "gpu.npz")
        state = on_gpu.model.state()
    on_cpu = tiny_trainer()
    on_cpu.restore(load_checkpoint(tmp_path / "gpu.npz"))
    assert_all_on(np, on_cpu.model)
    assert_same_arrays(on_cpu.model.state(), state)
    save_checkpoint(on_cpu.checkpoint({}), tmp_path / "cpu.npz")
    with strict_cupy() as xp:
        again = tiny_trainer(model=tiny_model(seed=1).to("gpu"))
        again.restore(load_checkpoint(tmp_path / "cpu.npz"))
        assert_all_on(xp, again.model)
        assert {array_module(v) for v in again.optimiser.velocity.values()} == {xp}
        assert_same_arrays(again.model.state(), state)
        assert again.step()["step"] == 4
    assert_all_on(np, on_cpu.model.to("cpu"))


# How often the host waits


def test_waits_of_a_training_step():
    """Of the trained network, 8 images: within the budget, and no place that it does not name."""
    with strict_cupy():
        trainer = Trainer(load_shapes().to("gpu"), ShapesDataset(0, 8), 8, TrainingConfig(images=8))
        LEDGER.clear()
        trainer.step()
        assert_within(LEDGER.count("wait"), WAITS_OF_A_STEP)
        assert sum(LEDGER.count("wait").values()) <= 30
        assert sum(LEDGER.count("copy").values()) <= 40


def test_waits_of_a_step_do_not_grow_with_the_batch():
    def waits(batch_size):
        config = TrainingConfig(images=9, batch_size=batch_size)
        with strict_cupy():
            trainer = Trainer(tiny_model().to("gpu"), ShapesDataset(0, 9), 9, config)
            LEDGER.clear()
            trainer.step()
            counts = LEDGER.count("wait")
        counts.pop("nms.py _keep_mask")  # the passes: as many as the longest chain of suppressions
        return counts

    assert waits(1) == waits(9)


@pytest.mark.parametrize("count", [1, 4])
def test_waits_of_a_detection(count):
    images, _ = scenes(count)
    budget = dict(WAITS_OF_A_DETECTION)
    for place, waits in WAITS_OF_EACH_IMAGE.items():
        budget[place] = budget.get(place, 0) + count * waits
    budget["nms.py _keep_mask"] += WAITS_OF_A_STEP["nms.py _keep_mask"]  # of the proposals of all images together
    with strict_cupy():
        model = load_shapes().to("gpu")
        LEDGER.clear()
        assert all(model.detect(images))
        assert_within(LEDGER.count("wait"), budget)


def assert_within(counts, budget):
    over = {place: count for place, count in counts.items() if count > budget.get(place, 0)}
    assert not over, f"waits for the GPU beyond the budget: {over}"


def test_the_docs_state_this_budget():
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text()
    step, image = page.split("| per image in `detect`")
    for budget, table in ((WAITS_OF_A_STEP, step), (WAITS_OF_EACH_IMAGE, image)):
        for place, waits in budget.items():
            assert f"| `{place}` | {waits} |" in table


def test_the_budget_notices_a_loop_over_boxes(monkeypatch):
    """Planted: suppression that asks box by box."""
    import mrcnn_scratch.rpn.proposals as module

    def box_by_box(boxes, valid, threshold):
        kept = [bool(one.sum() >= 0) for one in valid[0]]
        assert all(kept)
        return valid

    monkeypatch.setattr(module, "keep_mask", box_by_box)
    with strict_cupy():
        trainer = tiny_trainer(model=tiny_model().to("gpu"))
        LEDGER.clear()
        trainer.step()
        with pytest.raises(AssertionError, match="_level"):
            assert_within(LEDGER.count("wait"), WAITS_OF_A_STEP)


# The command line


def test_train_evaluate_and_detect_on_the_gpu(tmp_path, monkeypatch):
    """The whole path behind ``--device gpu``, on the double."""
    monkeypatch.setattr(run_settings, "SHAPES", TINY)
    monkeypatch.setattr(data_module, "HELD_OUT_SCENES", 2)
    Image.fromarray(ShapesDataset(0, 1)[0][0]).save(tmp_path / "scene.png")
    with strict_cupy():
        for command in (
            "train --out run --steps 2 --images 2 --batch-size 1",
            "train --out run --resume",
            "evaluate run/model.npz --images 2 --json ap.json",
            "detect shapes scene.png --out seen",
        ):
            monkeypatch.chdir(tmp_path)
            assert cli.main([*command.split(), "--device", "gpu"]) == 0, command
            assert LEDGER.count("wait"), f"{command}: nothing ran on the GPU"
            LEDGER.clear()
    assert "box" in json.loads((tmp_path / "ap.json").read_text())
    assert len(json.loads((tmp_path / "seen" / "scene.json").read_text())) > 0


def test_without_cupy_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cli.main(["evaluate", "shapes", "--device", "gpu"]) != 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert 'pip install "mrcnn-scratch[gpu]"' in error


@pytest.mark.parametrize("answer", ["none", "error"])
def test_without_a_gpu_one_line_says_so(answer):
    with strict_cupy() as xp:

        def count():
            if answer == "error":
                raise xp.cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver")
            return 0

        xp.cuda.runtime.getDeviceCount = count
        with pytest.raises(InputError, match=r"no GPU.*--device cpu"):
            load_cupy()
        with pytest.raises(InputError, match="no GPU"):
            tiny_model(config=TINY).to("gpu")


def test_to_host_copies_from_the_device_and_not_from_the_host(rng):
    x = rng.normal(size=3)
    assert to_host(x) is x
    with strict_cupy() as xp:
        device = xp.asarray(x)
        device += 1
        assert np.array_equal(to_host(device), x + 1)


def test_the_timings_run():
    """``make test-gpu`` ends with this table; where there is no GPU nobody would notice that it is broken."""
    spec = importlib.util.spec_from_file_location("gpu_timings", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    timings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(timings)
    with strict_cupy():
        lines = timings.table(tiny_model(), tiny_model().to("gpu"), rounds=1).splitlines()
    assert lines[0].split()[-5:] == ["CPU", "ms", "GPU", "ms", "ratio"]
    assert [line.split("  ")[0] for line in lines[-3:]] == ["all losses, forward", "all losses, backward", "whole step"]
