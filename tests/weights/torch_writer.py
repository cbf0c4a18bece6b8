"""Write PyTorch files byte by byte, so that both formats can be read off this page. No PyTorch is used.

A function named after a value returns the pickle instructions that leave it on the stack of the machine.
"""

import io
import struct
import zipfile

import numpy as np

FORMATS = ("zip", "stream")
SIX = np.arange(1, 7, dtype="<f4")
"""The storage of most tests: 1, 2, 3, 4, 5, 6."""


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def group(*items):
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(module, attribute, *arguments):
    return name(module, attribute) + group(*arguments) + b"R"


def table(entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def storage(kind, key, length, *sixth):
    """A storage's description, handed to the reader by Q. A stream has a sixth part: None, or a view; it may lack."""
    return group(text("storage"), name("torch", kind), text(key), text("cpu"), number(length), *sixth) + b"Q"


def tensor(stored, offset, shape, strides):
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        stored,
        number(offset),
        group(*map(number, shape)),
        group(*map(number, strides)),
        b"\x89",
        call("collections", "OrderedDict"),
    )


def program(value):
    return b"\x80\x02" + value + b"."


def zip_file(value, numbers, byteorder=b"little", folder="archive", compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", program(value))
        archive.writestr(f"{folder}/version", b"3\n")
        if byteorder:
            archive.writestr(f"{folder}/byteorder", byteorder)
        for key, data in numbers.items():
            archive.writestr(f"{folder}/data/{key}", data.tobytes())
    return buffer.getvalue()


def stream_file(value, numbers):
    little_endian = {"protocol_version": number(1001), "little_endian": b"\x88"}
    parts = [
        program(b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")),
        program(number(1001).replace(b"J\xe9\x03\0\0", b"M\xe9\x03")),
        program(table(little_endian)),
        program(value),
        program(b"](" + b"".join(map(text, numbers)) + b"e"),
    ]
    for data in numbers.values():
        parts += [struct.pack("<q", data.size), data.tobytes()]
    return b"".join(parts)


def file_of(style, value, numbers):
    return {"zip": zip_file, "stream": stream_file}[style](value, numbers)


def one(stored="FloatStorage", length=6, offset=0, shape=(2, 3), strides=(3, 1)):
    """A state dict of one tensor, "w"."""
    return table({"w": tensor(storage(stored, "0", length), offset, shape, strides)})
