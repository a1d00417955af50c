"""The one way kernels are compiled: numba, without the GIL, cached on disk, deterministic.

Importing this module imports numba, so only kernel modules import it, and those are imported lazily.
`fastmath` stays off: it lets the compiler reorder sums, and results would differ between CPUs.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(*signatures: str | Any, inline: bool = False) -> Callable[[Function], Function]:
    """Decorate a pure function as a compiled kernel (`nogil`, cached, no fastmath).

    With signatures (numba types or their string form) the kernel is compiled for exactly those;
    without, for whatever types it is first called with.
    """
    options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
    if inline:
        options["inline"] = "always"
    decorator = numba.njit(list(signatures), **options) if signatures else numba.njit(**options)
    return cast(Callable[[Function], Function], decorator)
