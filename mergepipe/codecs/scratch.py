"""Buffers and working arrays of codecs: aligned views, and memory that a thread uses again."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from mergepipe.codecs.protocol import Buffer

_local = threading.local()


def scratch(name: str, size: int, dtype: Any) -> Any:
    """`size` elements of whatever the thread last left in its array of that name.

    A block's working arrays are several MiB: to have the kernel map and clear them anew for every
    block would cost as much as encoding it.
    """
    arrays: dict[str, npt.NDArray[np.uint8]] = _local.__dict__.setdefault("arrays", {})
    wanted = size * np.dtype(dtype).itemsize
    held = arrays.get(name)
    if held is None or held.size < wanted:
        held = arrays[name] = np.empty(wanted, np.uint8)
    return held[:wanted].view(dtype)


def octets(buffer: Buffer) -> npt.NDArray[np.uint8]:
    """A buffer as uint8, without a copy."""
    return np.frombuffer(buffer, np.uint8)


def elements(name: str, data: npt.NDArray[np.uint8], dtype: Any) -> Any:
    """Bytes as little-endian elements; copied to scratch memory `name` if they are misaligned."""
    view = data.view(dtype)
    if view.flags.aligned:
        return view
    copy = scratch(name, view.size, dtype)
    copy.view(np.uint8)[:] = data
    return copy
