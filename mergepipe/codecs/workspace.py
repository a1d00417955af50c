"""The working memory of codecs: who encodes or decodes many blocks holds it, and passes it in."""

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Loaded with the first array: what holds a workspace may never need one.
    import numpy as np
    import numpy.typing as npt


class Workspace(threading.local):
    """Arrays by name, which hold until the next use of that name; each thread sees its own.

    A block's working arrays are several MiB: to have the kernel map and clear them anew for every
    block would cost as much as encoding it.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[np.uint8]] = {}

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Who holds one can be sent elsewhere: what is in it is of no use there."""
        return Workspace, ()

    def array(self, name: str, size: int, dtype: Any) -> Any:
        """`size` elements of whatever was last left in the array of that name."""
        import numpy as np

        wanted = size * np.dtype(dtype).itemsize
        held = self._arrays.get(name)
        if held is None or held.size < wanted:
            held = self._arrays[name] = np.empty(wanted, np.uint8)
        return held[:wanted].view(dtype)

    def elements(self, name: str, data: "npt.NDArray[np.uint8]", dtype: Any) -> Any:
        """Bytes as little-endian elements; copied to the array `name` if they are misaligned."""
        import numpy as np

        view = data.view(dtype)
        if view.flags.aligned:
            return view
        copy = self.array(name, view.size, dtype)
        copy.view(np.uint8)[:] = data
        return copy
