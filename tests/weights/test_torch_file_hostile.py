"""Files made to run code, to hang, to fill memory, or just broken: an InputError and nothing else."""

import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import FIXTURES
from torch_writer import FORMATS, SIX, call, file_of, group, name, number, one, storage, table, tensor, text, zip_file

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.weights.restricted_pickle import PICKLE_LIMIT

# Code


class Payload:
    """Pickled as a call, so that ``pickle.load`` makes it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(victim):
    write = f"open({str(victim)!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, f"touch {victim}"),
        "eval": Payload(eval, write),
        "exec": Payload(exec, write),
        "os.mkdir": Payload(os.mkdir, str(victim)),
        "nested": {"model": [{"w": (Payload(eval, write),)}]},
        "pickle in a pickle": Payload(pickle.loads, pickle.dumps(Payload(eval, write))),
    }


@pytest.mark.parametrize("kind", payloads(""))
def test_the_payloads_are_real(tmp_path, kind):
    victim = tmp_path / "victim"
    pickle.loads(pickle.dumps(payloads(victim)[kind]))
    assert victim.exists()


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_payloads_do_not_run(read, tmp_path, style, protocol):
    victim = tmp_path / "victim"
    for payload in payloads(victim).values():
        program = pickle.dumps(payload, protocol)[:-1]  # without its STOP, which file_of adds
        bare = program.removeprefix(b"\x80" + bytes([protocol]))
        for value in (program, bare, table({"w": bare})):
            with pytest.raises(InputError):
                read(file_of(style, value, {"0": SIX}))
            assert not victim.exists()


# Tricks of the machine, and bombs

ORDERED = name("collections", "OrderedDict") + b"q\x00"  # and memo entry 0
FLAT = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))
FULL = PICKLE_LIMIT - 100


def long(value):
    return b"\x8a\x10" + value.to_bytes(16, "little")


TRICKS = {
    "a string called": text("collections.OrderedDict") + b")R",
    "a storage type called": name("torch", "FloatStorage") + group(number(5)) + b"R",
    "a dict called": b"})R",
    "an object made by NEWOBJ": ORDERED + b")\x81",
    "an object made by INST": b"(icollections\nOrderedDict\n",
    "an object made by OBJ": b"(" + ORDERED + b"o",
    "the extension registry": b"\x82\x01",
    "a name off the stack": text("os") + text("system") + b"\x93",
    "a storage id as text": b"Pstorage\n",
    "a storage loaded from bytes": call("torch.storage", "_load_from_bytes", text("x")),
    "a dotted name": name("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "a name of many lines": name("torch", "FloatStorage\nx"),
    "a tensor appended to": one() + b"Na",
    "an uneven dict": b"}(Nu",
    "a list set like a dict": b"]NaK\x00Ns",
    "a memo entry never stored": b"j\xff\xff\xff\xff",
    "an empty stack": b"a",
    "an empty stack after a mark": b"}(s",
    "no mark": b"t",
    "text that is no UTF-8": b"X\2\0\0\0\xff\xff",
}
BOMBS = {
    "a memo entry far out": b"Nr\xff\xff\xff\xff",
    "text of 4 GB": b"X\xff\xff\xff\xffabc",
    "text of 16 EB": b"\x8d" + b"\xff" * 8,
    "an integer of 2 GB": b"\x8b\xff\xff\xff\x7f",
    "an integer of 255 bytes": b"\x8a\xff" + b"\xff" * 255,
    "a decimal of a million digits": b"I" + b"9" * FULL + b"\n",
    "a name of a million letters": b"c" + b"a" * FULL,
    "a million marks": b"(" * FULL,
    "a million dicts": b"}" * FULL,
    "a tuple a million deep": b")" + b"\x85" * FULL,
    "a tuple a million deep as a key": b"})" + b"\x85" * FULL + b"Ns",
    "a list a million deep": b"]" * FULL + b"a" * 9,
    "a tuple doubled 200,000 times": b")" + b"q\x00h\x00\x86" * (FULL // 5),
    "a tuple doubled 200,000 times as a key": b"})" + b"q\x00h\x00\x86" * (FULL // 5) + b"Ns",
    "a list copied 90,000 times": (
        ORDERED + b"](" + b"](X\1\0\0\0aNe" * 40_000 + b"eq\x01" + b"h\x00h\x01\x85R" * 90_000
    ),
    "a storage of 300,000 parts, 200,000 times": (
        storage("FloatStorage", "0", 6, b"N" * 300_000)[:-1] + b"q\x01" + b"h\x01Q" * 200_000
    ),
    "300,000 arguments, 100,000 times": (
        name("torch._utils", "_rebuild_parameter")
        + b"q\x00"
        + group(b"N" * 300_000)
        + b"q\x01"
        + b"h\x00h\x01R" * 100_000
    ),
    "50,000 keys with one hash": b"}(" + b"".join(long(k * (2**61 - 1)) + b"N" for k in range(50_000)) + b"u",
    "a longer program than allowed": b"}" + (text("k") + b"Ns") * 300_000,
}


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("case", TRICKS)
def test_tricks(read, style, case):
    """Refused on their own, and refused beside a good tensor, where being ignored would not do."""
    for value in (TRICKS[case], table({"w": FLAT, "x": TRICKS[case]})):
        with pytest.raises(InputError):
            read(file_of(style, value, {"0": SIX}))


@pytest.mark.parametrize(
    "harmless",
    [
        ORDERED + b")R" + table({"__class__": number(1), "__setstate__": number(1)}) + b"b",
        ORDERED + table({"text": text("os.system")}) + b"b)R",
        b"}q\x00" + text("model") + b"h\x00s",  # a dict inside itself
        b"]q\x00h\x00a",  # a list inside itself
    ],
)
def test_attributes_and_circles_do_nothing(read, harmless):
    arrays = read(zip_file(table({"x": harmless, "w": FLAT}), {"0": SIX}))
    assert list(arrays) == ["w"]


@pytest.mark.parametrize("case", BOMBS)
def test_bombs(read, case):
    data = zip_file(BOMBS[case], {})
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read(data)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("case", ["a memo entry far out", "a million dicts", "a list copied 90,000 times"])
def test_bombs_stay_small(read, case):
    data = zip_file(BOMBS[case], {})
    tracemalloc.start()
    with pytest.raises(InputError):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


# Chance

SMALL = {style: file_of(style, table({"model": one(), "epoch": number(3)}), {"0": SIX}) for style in FORMATS}
REAL = {
    "zip": (FIXTURES / "thin_maskrcnn.pth").read_bytes(),
    "stream": (FIXTURES / "thin_maskrcnn_legacy.pth").read_bytes(),
}
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
places = st.floats(0, 1, exclude_max=True)


def survives(read, data):
    """Whether it was read. Refused with InputError is well too; anything else raises."""
    try:
        arrays = read(data)
    except InputError:
        return False
    assert arrays
    # Copying each would be safe: none is larger than the file, but for bfloat16, which doubles.
    assert all(isinstance(array, np.ndarray) and array.nbytes <= 2 * len(data) for array in arrays.values())
    return True


@pytest.mark.parametrize("style", FORMATS)
def test_cut_anywhere(read, style):
    data = SMALL[style]
    assert survives(read, data)
    assert not any(survives(read, data[:length]) for length in range(len(data)))


@fuzz
@given(style=st.sampled_from(FORMATS), where=places)
def test_real_file_cut_anywhere(read, style, where):
    assert not survives(read, REAL[style][: int(where * len(REAL[style]))])


@fuzz
@given(
    style=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), min_size=1),
)
def test_bytes_changed_anywhere(read, style, changes):
    data = bytearray(SMALL[style])
    for where, replacement in changes:
        start = int(where * len(data))
        data[start : start + len(replacement)] = replacement
    survives(read, bytes(data))


@fuzz
@given(style=st.sampled_from(FORMATS), where=st.integers(64, 24_000), value=st.integers(0, 255))
def test_byte_changed_in_a_real_pickle(read, style, where, value):
    data = bytearray(REAL[style])
    data[where] = value
    survives(read, bytes(data))


INSTRUCTIONS = [bytes([code]) for code in b"}])(tusaeNRbQ\x85\x86\x87"]
MEMO = [b"q\x00", b"h\x00", b"q\x01", b"h\x01"]
VALUES = [text("w"), text("storage"), number(1), number(2**40), storage("FloatStorage", "0", 6), one()]
NAMES = [ORDERED, name("torch._utils", "_rebuild_tensor_v2"), name("torch._utils", "_rebuild_parameter")]


@fuzz
@given(
    style=st.sampled_from(FORMATS),
    steps=st.lists(st.sampled_from(INSTRUCTIONS + MEMO + VALUES + NAMES) | st.binary(min_size=1, max_size=3)),
)
def test_random_programs(read, style, steps):
    survives(read, file_of(style, b"".join(steps), {"0": SIX}))


@fuzz
@given(start=st.sampled_from([b"", b"PK\3\4", SMALL["stream"][:21], SMALL["zip"][:60]]), rest=st.binary())
def test_random_files(read, start, rest):
    assert not survives(read, start + rest)
