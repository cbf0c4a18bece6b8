"""Reading PyTorch files: made by hand, real, and bad ones. The hostile have a test file of their own."""

import hashlib
import io
import struct
import tracemalloc
import zipfile
from copy import copy

import numpy as np
import pytest
from reference import FIXTURES
from torch_writer import (
    FORMATS,
    SIX,
    call,
    file_of,
    group,
    name,
    number,
    one,
    program,
    storage,
    stream_file,
    table,
    tensor,
    text,
    zip_file,
)

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.weights.torch_file import read_state_dict

WHOLE = storage("FloatStorage", "0", 6)
FLAT = tensor(WHOLE, 0, (6,), (1,))

# The formats, by hand


@pytest.mark.parametrize("style", FORMATS)
def test_one_tensor_by_hand(read, style):
    arrays = read(file_of(style, one(), {"0": SIX}))
    assert list(arrays) == ["w"]
    np.testing.assert_array_equal(arrays["w"], np.array([[1, 2, 3], [4, 5, 6]], np.float32), strict=True)


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("DoubleStorage", np.array([1.5, -2], "<f8"), np.array([1.5, -2], np.float64)),
        ("HalfStorage", np.array([1.5, -2], "<f2"), np.array([1.5, -2], np.float16)),
        # 1.0 is 0x3f80 0000 as a float32, and a bfloat16 keeps the upper half; 0xc049 0000 is -3.140625
        ("BFloat16Storage", np.array([0x3F80, 0xC049], "<u2"), np.array([1, -3.140625], np.float32)),
        ("LongStorage", np.array([2**40, -1], "<i8"), np.array([2**40, -1], np.int64)),
        ("IntStorage", np.array([7, -7], "<i4"), np.array([7, -7], np.int32)),
        ("ShortStorage", np.array([7, -7], "<i2"), np.array([7, -7], np.int16)),
        ("CharStorage", np.array([7, -7], "i1"), np.array([7, -7], np.int8)),
        ("ByteStorage", np.array([7, 200], "u1"), np.array([7, 200], np.uint8)),
        ("BoolStorage", np.array([0, 2], "u1"), np.array([False, True])),
    ],
)
def test_every_storage_type(read, style, kind, stored, expected):
    array = read(file_of(style, one(kind, 2, 0, (2,), (1,)), {"0": stored}))["w"]
    np.testing.assert_array_equal(array, expected, strict=True)
    assert array.tobytes() == expected.tobytes()  # a true that is stored as 2 becomes 1


@pytest.mark.parametrize("style", FORMATS)
def test_views_of_one_storage(read, style):
    value = table(
        {
            "transposed": tensor(WHOLE, 0, (3, 2), (1, 3)),
            "second_row": tensor(WHOLE, 3, (3,), (1,)),
            "scalar": tensor(WHOLE, 5, (), ()),
            "empty": tensor(WHOLE, 6, (0, 256), (256, 1)),
            "nothing": tensor(storage("FloatStorage", "1", 0), 0, (0,), (1,)),
            "side_of_1": tensor(WHOLE, 0, (1, 6), (2**62, 1)),
        }
    )
    arrays = read(file_of(style, value, {"0": SIX, "1": SIX[:0]}))
    np.testing.assert_array_equal(arrays["transposed"], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(arrays["second_row"], [4, 5, 6])
    np.testing.assert_array_equal(arrays["scalar"], np.float32(6), strict=True)
    assert arrays["empty"].shape == (0, 256)
    assert arrays["nothing"].shape == (0,)
    np.testing.assert_array_equal(arrays["side_of_1"], [[1, 2, 3, 4, 5, 6]])
    arrays["second_row"][0] = 40  # shared and writable, as in PyTorch
    assert arrays["transposed"][0, 1] == 40


def test_storage_views_of_the_oldest_stream(read):
    view = group(text("part"), number(2), number(4))  # elements 2 to 5 of storage 0, under their own key
    value = table({"w": tensor(storage("FloatStorage", "0", 6, view), 1, (2,), (1,))})
    np.testing.assert_array_equal(read(stream_file(value, {"0": SIX}))["w"], [4, 5])
    value = table({"w": tensor(storage("FloatStorage", "0", 6, b"N"), 1, (2,), (1,))})
    np.testing.assert_array_equal(read(stream_file(value, {"0": SIX}))["w"], [2, 3])


def test_a_file_of_python_2(read):
    pair = b"](" + b"U\x01w" + FLAT + b"e"  # U: a string with its length in one byte
    value = call("collections", "OrderedDict", b"](" + pair + b"e")
    np.testing.assert_array_equal(read(stream_file(value, {"0": SIX}))["w"], SIX)


def test_parameters_and_attributes(read):
    weight = call("torch._utils", "_rebuild_parameter", FLAT, b"\x88")
    value = call("collections", "OrderedDict") + text("w") + weight + b"s"
    value += table({"_metadata": b"}"}) + b"b"  # what Python would set as attributes
    np.testing.assert_array_equal(read(zip_file(value, {"0": SIX}))["w"], SIX)


def test_byte_order_and_folder_of_a_zip(read):
    big = zip_file(one(), {"0": SIX.astype(">f4")}, b"big", "any.name-1")
    np.testing.assert_array_equal(read(big)["w"], SIX.reshape(2, 3), strict=True)
    bfloat16 = zip_file(one("BFloat16Storage", 1, 0, (1,), (1,)), {"0": np.array([0x3F80], ">u2")}, b"big")
    assert read(bfloat16)["w"] == 1
    with pytest.raises(InputError, match="byte order"):
        read(zip_file(one(), {"0": SIX}, b"middle"))
    unmarked = zip_file(one(), {"0": SIX}, None)
    np.testing.assert_array_equal(read(unmarked)["w"], SIX.reshape(2, 3), strict=True)


# Checkpoints


@pytest.mark.parametrize("key", ["model", "state_dict"])
@pytest.mark.parametrize("style", FORMATS)
def test_checkpoint(read, style, key):
    momentum = tensor(storage("FloatStorage", "1", 1), 0, (1,), (1,))
    optimizer = table({"state": b"}" + number(0) + momentum + b"s", "lr": b"G" + struct.pack(">d", 0.02)})
    value = table({"optimizer": optimizer, key: one(), "epoch": number(3), "best": momentum})
    arrays = read(file_of(style, value, {"1": np.zeros(1, "<f4"), "0": SIX}))
    assert list(arrays) == ["w"]
    np.testing.assert_array_equal(arrays["w"], SIX.reshape(2, 3))


def test_entries_that_are_no_tensors_are_left_out(read):
    value = table({"version": number(2), "w": FLAT}) + number(5) + FLAT + b"s"  # and one with no name
    assert list(read(zip_file(value, {"0": SIX}))) == ["w"]


# Real files: a Mask R-CNN of torchvision's


def digest(arrays):
    """SHA-256 over names, shapes and bytes; PyTorch itself gave the expected value with torch.load."""
    total = hashlib.sha256()
    for key, array in arrays.items():
        total.update(key.encode() + str(array.shape).encode() + array.tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("file", ["thin_maskrcnn.pth", "thin_maskrcnn_legacy.pth"])
def test_torchvision_file(file):
    arrays = read_state_dict(FIXTURES / file)
    assert len(arrays) == 158
    assert arrays["backbone.body.conv1.weight"].shape == (8, 3, 7, 7)
    assert arrays["backbone.body.bn1.num_batches_tracked"].dtype == np.int64
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32), np.dtype(np.int64)}
    assert digest(arrays) == "c3d0b79c151180e663e504813d8a61bc2d6e7f6d7be28def51dce8954e7ad4eb"


def test_only_wanted_storages_are_read_and_once(tmp_path):
    large = np.zeros(2**20, "<f4")  # 4 MiB, in two tensors; the optimizer's copy is not wanted
    both = {key: tensor(storage("FloatStorage", "0", 2**20), 0, (2**20,), (1,)) for key in ("a", "b")}
    unwanted = table({"m": tensor(storage("FloatStorage", "1", 2**20), 0, (2**20,), (1,))})
    value = table({"model": table(both), "optimizer": unwanted})
    for style in FORMATS:
        (tmp_path / style).write_bytes(file_of(style, value, {"1": large, "0": large}))
        tracemalloc.start()
        read_state_dict(tmp_path / style)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.6 * large.nbytes  # the array, the bytes it is made of, a little of the file


# Bad files: one line that names the file, what is wrong, and the cure

BAD_VALUES = {
    "a list": (b"]", "no dict"),
    "a tensor": (FLAT, "no dict"),
    "a bare name": (name("torch", "FloatStorage"), "no dict"),
    "an empty dict": (b"}", "without tensors"),
    "two state dicts": (table({"model": one(), "state_dict": one()}), "two state dicts"),
    "a Namespace": (table({"args": name("argparse", "Namespace"), "model": one()}), "argparse.Namespace"),
    "another protocol": (b"\x80\x04}", "pickle_protocol=4"),
    "a text of 4 GB": (b"X\xff\xff\xff\xff", "breaks off"),
    "a storage unknown to the file": (
        table({"w": tensor(storage("FloatStorage", "9", 6), 0, (6,), (1,))}),
        "missing",
    ),
    "a longer storage": (one(length=7), "cut short"),
    "a shorter storage": (one(length=5, shape=(5,), strides=(1,)), "too many"),
    "an absurd storage": (one(length=2**62), "cut short"),
    "a negative storage": (one(length=-6), "damaged"),
    "a storage of two types": (
        table({"a": FLAT, "b": tensor(storage("IntStorage", "0", 6), 0, (6,), (1,))}),
        "two ways",
    ),
    "an unknown storage type": (one("ComplexFloatStorage"), "torch.ComplexFloatStorage"),
    "a negative shape": (one(shape=(-2, -3)), "negative size or stride"),
    "a negative stride": (one(strides=(-3, 1)), "negative size or stride"),
    "a negative offset": (one(offset=-(2**40)), "negative size or stride"),
    "a shape beyond the storage": (one(shape=(3, 3)), "larger"),
    "an offset beyond the storage": (one(offset=1), "larger"),
    "a stride beyond the storage": (one(strides=(4, 1)), "larger"),
    "an overflowing stride": (one(strides=(2**62, 2**62)), "larger"),
    "an expanded tensor": (one(shape=(2**40,), strides=(0,)), "larger"),
    "an absurd empty tensor": (one(shape=(0, 2**62, 2**62), strides=(0, 0, 0)), "no state dict to be read"),
    "an empty tensor with absurd strides": (one(shape=(0, 2), strides=(2**62, 2**62)), "no state dict to be read"),
    "an empty tensor in an absurd place": (one(offset=2**62, shape=(0,), strides=(1,)), "no state dict to be read"),
    "too few strides": (one(strides=(1,)), "shape"),
    "too many dimensions": (one(shape=(1,) * 33, strides=(1,) * 33), "shape"),
}


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(read, style, case):
    value, reason = BAD_VALUES[case]
    with pytest.raises(InputError, match=reason) as caught:
        read(file_of(style, value, {"0": SIX}))
    assert "weights.pth: " in str(caught.value)
    assert "torch.save(model.state_dict(), " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_containers(read, tmp_path):
    good = zip_file(one(), {"0": SIX})
    with pytest.raises(InputError, match="begins like no file"):
        read(b"<!DOCTYPE html> a page saved by mistake")
    with pytest.raises(InputError, match="begins like no file"):
        read(b"")
    with pytest.raises(InputError, match=r"without PyTorch's data\.pkl"):
        read(good.replace(b"data.pkl", b"data.txt"))
    with pytest.raises(InputError, match="compressed"):
        read(zip_file(one(), {"0": SIX}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match=r"\(File is not a zip file\); download it again"):
        read(good[:-30])
    shifted = bytearray(good)
    shifted[-5] ^= 0x10  # the directory's place, by 4096 bytes: the records would lie before the file
    with pytest.raises(InputError, match="cannot be read through"):
        read(bytes(shifted))
    with pytest.raises(InputError, match=r"Bad CRC-32 for file 'archive/data/0'"):
        read(good.replace(SIX.tobytes(), SIX[::-1].tobytes()))
    with pytest.raises(InputError, match="no such file"):
        read_state_dict(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="no such file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("style", FORMATS)
def test_a_storage_that_is_not_there(read, style):
    with pytest.raises(InputError, match="the numbers of a tensor are missing"):
        read(file_of(style, one(), {}))


def test_lying_streams(read):
    good = stream_file(one(length=2**60, shape=(6,), strides=(1,)), {"0": SIX})
    with pytest.raises(InputError, match="cut short"):
        read(good.replace(struct.pack("<q", 6), struct.pack("<q", 2**60)))
    good = stream_file(one(), {"0": SIX})
    with pytest.raises(InputError, match="missing"):
        read(good.replace(program(b"](" + text("0") + b"e"), program(number(5))))


LYING_ZIPS = {
    "more bytes than it has": (one(length=8), {"file_size": 32}, "cut short"),
    "bytes beyond the file": (one(length=60), {"file_size": 240, "compress_size": 240}, "read through"),
    "encryption": (one(), {"flag_bits": 1}, "encrypted"),
    "a version to come": (one(), {"extract_version": 255}, "zip file version"),
    "an absurd place": (one(), {"header_offset": 2**63 + 1}, "offset"),
    "another name": (
        table({"w": tensor(storage("FloatStorage", "k" * 9000, 6), 0, (6,), (1,))}),
        {"filename": "archive/data/" + "k" * 9000},
        "File name in directory",
    ),
}


@pytest.mark.parametrize("case", LYING_ZIPS)
def test_lying_zips(read, case):
    """The directory at the end of a zip says of the last record what is not so."""
    value, claims, reason = LYING_ZIPS[case]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program(value))
        archive.writestr("archive/data/0", SIX.tobytes())
        for field, claim in claims.items():
            setattr(archive.filelist[-1], field, claim)
    with pytest.raises(InputError, match=reason) as caught:
        read(buffer.getvalue())
    assert len(str(caught.value)) < 600


def test_zip_records_that_overlap(tmp_path):
    """One megabyte listed a hundred times in the directory must not become a hundred megabytes."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program(one()))
        archive.writestr("archive/data/0", bytes(2**20))
        for key in range(1, 100):
            again = copy(archive.filelist[1])
            again.filename = f"archive/data/{key}"
            archive.filelist.append(again)
    with pytest.raises(InputError, match="claim more bytes than the file has"):
        read_state_dict(path)
