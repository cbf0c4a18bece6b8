"""Files: what goes in comes out, a file is whole or not there, and no damaged file gets past the reader."""

import errno
import json
import os
import pickle
import resource
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import TINY, assert_same_arrays, tiny_model, tiny_trainer

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.files import write_atomically
from mrcnn_scratch.train import load_checkpoint, load_model, save_checkpoint, save_model

SETTINGS = {"seed": 3, "steps": 8}


@pytest.fixture(scope="module")
def checkpoint():
    trainer = tiny_trainer()
    trainer.step()
    return trainer.checkpoint(SETTINGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For tests of Hypothesis, whose examples share it: each writes its file anew."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def good(checkpoint, folder):
    """The bytes of a checkpoint."""
    save_checkpoint(checkpoint, folder / "good.npz")
    return (folder / "good.npz").read_bytes()


def refuses(load, path, match=None):
    """``load(path)`` says in one line what is wrong with ``path``."""
    with pytest.raises(InputError, match=match) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


# There and back


def test_a_checkpoint_comes_back_to_the_bit(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "a.npz")
    again = load_checkpoint(tmp_path / "a.npz")
    assert (again.step, again.config, again.training) == (1, TINY, SETTINGS)
    assert_same_arrays(again.state, checkpoint.state)
    assert_same_arrays(again.velocity, checkpoint.velocity)


def test_a_model_comes_back_to_the_bit(tmp_path):
    model = tiny_model(seed=5)
    save_model(model, tmp_path / "a.npz")
    again = load_model(tmp_path / "a.npz")
    assert again.config == TINY
    assert_same_arrays(again.state(), model.state())


def test_a_checkpoint_is_a_model_too(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "a.npz")
    assert_same_arrays(load_model(tmp_path / "a.npz").state(), checkpoint.state)


def test_half_a_model_is_half_as_large_and_comes_back_as_float32(tmp_path):
    model = tiny_model()
    save_model(model, tmp_path / "half.npz", half=True)
    again = load_model(tmp_path / "half.npz").state()
    for name, array in model.state().items():
        assert again[name].dtype == np.float32
        np.testing.assert_allclose(again[name], array, rtol=2**-11, atol=1e-7)
    with np.load(tmp_path / "half.npz") as arrays:
        assert {arrays[name].dtype.name for name in model.state()} == {"float16"}


def test_the_file_holds_plain_arrays_and_readable_settings(good, folder):
    with np.load(folder / "good.npz", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(arrays.pop("meta").tobytes())
    assert meta["kind"] == "checkpoint"
    assert meta["step"] == 1
    assert meta["training"] == SETTINGS
    assert {array.dtype.name for array in arrays.values()} == {"float32"}


# Whole or not there


def test_others_may_read_the_file(tmp_path):
    write_atomically(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
def test_an_error_leaves_the_old_file_and_nothing_else(function, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(InputError, match=r"^cannot write .*/a: No space left on device$"):
        write_atomically(tmp_path / "a", lambda file: file.write(b"new"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    def write(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@contextmanager
def at_most(size):
    """No file may grow beyond ``size`` bytes: the kernel refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_real_lack_of_space_leaves_the_old_checkpoint(size, checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "a.npz")
    with at_most(size), pytest.raises(InputError, match="cannot write"):
        save_checkpoint(replace(checkpoint, step=2), tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert load_checkpoint(tmp_path / "a.npz").step == 1


def test_no_folder_to_write_into(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path):
        with pytest.raises(InputError, match="cannot write"):
            write_atomically(path, lambda file: None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Damaged files


@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@settings(max_examples=40)
def test_a_file_cut_off_anywhere_is_refused(share, good, folder):
    path = folder / "cut.npz"
    path.write_bytes(good[: int(share * len(good))])
    refuses(load_checkpoint, path, "damaged")
    refuses(load_model, path, "damaged")


@pytest.mark.parametrize("missing", [1, 2, 22])
def test_a_file_cut_off_near_its_end_is_refused(missing, good, folder):
    (folder / "cut.npz").write_bytes(good[:-missing])
    refuses(load_checkpoint, folder / "cut.npz", "damaged")


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_a_flipped_bit_is_refused_or_does_no_harm(share, bit, good, folder, checkpoint):
    damaged = bytearray(good)
    damaged[int(share * len(good))] ^= 1 << bit
    path = folder / "flipped.npz"
    path.write_bytes(damaged)
    try:
        again = load_checkpoint(path)
        trainer = tiny_trainer()
        trainer.restore(again)
    except InputError:
        return
    # What zip keeps without a checksum, such as the time of writing.
    assert (again.step, again.config, again.training) == (1, TINY, SETTINGS)
    assert_same_arrays(trainer.model.state(), checkpoint.state)
    assert_same_arrays(trainer.optimiser.velocity, checkpoint.velocity)


@given(
    content=st.binary(max_size=200), start=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00"])
)
def test_any_bytes_are_refused(content, start, folder):
    path = folder / "any.npz"
    path.write_bytes(start + content)
    refuses(load_checkpoint, path, "damaged")
    refuses(load_model, path, "damaged")


# Whole files of another kind


def with_meta(folder, meta, **arrays):
    path = folder / "other.npz"
    text = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    np.savez(path, meta=np.frombuffer(text, np.uint8), **arrays)
    return path


def test_a_folder_and_no_file(tmp_path):
    refuses(load_model, tmp_path, "is a folder")
    refuses(load_model, tmp_path / "none.npz", "there is no file")


def test_files_of_other_programs(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    refuses(load_model, path, "not one of ours")
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    refuses(load_model, path, "not one of ours")
    path.write_text("step,loss\n1,2\n")
    refuses(load_model, path, "not one of ours")


class Trap:
    """Unpickling one runs code of the file's choice."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_no_pickle_is_read(tmp_path):
    path = tmp_path / "trap.npz"
    path.write_bytes(pickle.dumps(Trap()))
    refuses(load_model, path, "not one of ours")
    meta = np.frombuffer(json.dumps({"format": 1, "kind": "model", "config": TINY.to_dict()}).encode(), np.uint8)
    np.savez(path, meta=meta, **{**tiny_model().state(), "rpn_head.conv.bias": np.array([Trap()])})
    refuses(load_model, path, "not one of ours")
    assert not Trap.sprung
    np.load(path, allow_pickle=True)["rpn_head.conv.bias"]
    assert Trap.sprung  # it was a real trap


def test_a_model_is_no_checkpoint(tmp_path):
    save_model(tiny_model(), tmp_path / "a.npz")
    refuses(load_checkpoint, tmp_path / "a.npz", "holds a 'model' .* not a checkpoint")


def test_a_later_format(tmp_path):
    path = with_meta(tmp_path, {"format": 2, "kind": "model"})
    refuses(load_model, path, "format 2")


def test_arrays_of_another_network(tmp_path):
    meta = {"format": 1, "kind": "model", "config": TINY.to_dict()}
    state = tiny_model().state()
    refuses(load_model, with_meta(tmp_path, meta), "lacks")
    refuses(load_model, with_meta(tmp_path, meta, **state, more=np.zeros(1)), "has unknown more")
    wider = tiny_model(config=replace(TINY, fpn_channels=4)).state()
    refuses(load_model, with_meta(tmp_path, meta, **wider), r"shape .* needs")
    texts = {**state, "rpn_head.conv.bias": np.array(["a"] * 8)}
    refuses(load_model, with_meta(tmp_path, meta, **texts), "not one of ours")


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        "shapes",
        {"colour": 3},
        {"fpn_channels": "many"},
        {"fpn_channels": -1},
        {"fpn_channels": 10**18},
        {"backbone": {"block": "dense"}},
        {"anchors": {"aspect_ratios": []}},
    ],
    ids=str,
)
def test_configurations_that_no_network_can_have(config, tmp_path):
    meta = {"format": 1, "kind": "model", "config": config}
    refuses(load_model, with_meta(tmp_path, meta, **tiny_model().state()), "configuration")


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": -1},
        {"step": 1.5},
        {"step": float("inf")},
        {"step": True},
        {"training": None},
        {"training": []},
    ],
    ids=str,
)
def test_checkpoints_that_do_not_say_where_they_are(change, checkpoint, tmp_path):
    meta = {"format": 1, "kind": "checkpoint", "config": TINY.to_dict(), "step": 1, "training": SETTINGS}
    arrays = {f"model/{name}": array for name, array in checkpoint.state.items()}
    assert load_checkpoint(with_meta(tmp_path, meta, **arrays)).step == 1
    refuses(load_checkpoint, with_meta(tmp_path, meta | change, **arrays), "which step")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "kind", "config", "step"]), inner)
    ),
    max_leaves=8,
)


@given(meta=json_values | st.binary(max_size=30))
def test_any_description_is_refused(meta, folder):
    refuses(load_model, with_meta(folder, meta))
    refuses(load_checkpoint, with_meta(folder, meta))


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """Renaming a file over /dev/null would take the device away from everybody."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no ordinary file"):
        write_atomically(tmp_path / "pipe", lambda file: file.write(b"new"))
    assert not (tmp_path / "pipe").is_file()
