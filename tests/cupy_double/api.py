"""What real CuPy has: its names, kinds and signatures, listed on a machine where it was installed."""

import functools
import inspect
import json
import re
from pathlib import Path

API = json.loads((Path(__file__).parents[1] / "fixtures" / "cupy-14.2.0-api.json").read_text())


@functools.cache
def signature(name):
    """The signature of ``name``, such as "clip" or "ndarray.sum"; None where the list holds none that can be read."""
    text = API[name]["sig"] if name in API else None
    if text is None:
        return None
    text = re.sub(r"<class '[\w.]+'>|<no value>", "None", text)
    text = re.sub(r"\b(?:int|bool|str|tuple|Py_ssize_t|_ndarray_base) (?=\w)", "", text)  # Cython's types
    text = text.replace("[, out1, out2], / [, out=(None, None)]", ", out1=None, out2=None, /, out=None")
    namespace = {}
    try:
        exec(f"def function{text}: pass", namespace)
    except SyntaxError:
        return None
    return inspect.signature(namespace["function"])
