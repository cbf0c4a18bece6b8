"""A strict double of CuPy for machines without a GPU: NumPy inside, CuPy's rules outside.

The arrays are wrapped, so that nothing gets from the "device" to the host unseen. Three kinds of thing are refused:

* what real CuPy refuses, as it does: names and keywords that it lacks, host arrays in operations, implicit conversion;
* what real CuPy lets pass and leaves undefined, which is worse: duplicate indices in a write, indices out of range,
  float to int of negative or non-finite values, writes that overlap what they read, memory read before it is written;
* what works by luck: a NumPy function that is handed a device array.

Every wait of the host for the device and every copy to it is written down, with the line of the package that caused it.
"""

from .api import API, signature
from .array import ndarray
from .ledger import LEDGER, Event, Refused, Undefined
from .module import strict_cupy

__all__ = ["API", "LEDGER", "Event", "Refused", "Undefined", "ndarray", "signature", "strict_cupy"]
