"""The one way kernels are compiled: numba, without the GIL, cached on disk, deterministic.

Importing this module imports numba, so only kernel modules import it, and those are imported
lazily. `fastmath` stays off: it lets the compiler reorder sums, and results would differ between
CPUs.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(
    *signatures: str | Any, inline: bool = False, inner: bool = False
) -> Callable[[Function], Function]:
    """Decorate a pure function as a compiled kernel (`nogil`, cached, no fastmath).

    With signatures (numba types or their string form) the kernel is compiled for exactly those;
    without, for whatever types it is first called with. An `inner` one is called from kernels only,
    which have its code in theirs: it is compiled with them, and not loaded (10 ms) on its own; its
    signature tells the reader.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if inline:
        options["inline"] = "always"

    def compiled(function: Function) -> Function:
        dispatcher: Any = numba.njit(**options)(function)
        if dispatcher is function:  # NUMBA_DISABLE_JIT
            return function
        _cache_on_disk(dispatcher, function)
        for signature in () if inner else signatures:
            dispatcher.compile(signature)
        if signatures and not inner:
            dispatcher.disable_compile()
        return cast(Function, dispatcher)

    return compiled


def _cache_on_disk(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Keep compiled code for later processes, where some folder can be written.

    Where none can (a read-only installation, no home), or the disk is full, kernels are compiled
    anew in each process: slower, and no reason to fail.
    """
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return
    cache = dispatcher._cache
    # numba takes a cached kernel for fresh while its own file is unchanged. A kernel has the
    # code of those it calls, and values of constants, compiled in: all sources beside it count.
    cache._cache_file._source_stamp = _sources(_package_of(function))
    save = cache.save_overload

    def save_if_possible(*arguments: Any) -> None:
        with suppress(OSError):
            save(*arguments)

    cache.save_overload = save_if_possible


def _package_of(function: Callable[..., Any]) -> Path:
    """The folder right below ours that the function's file is in; its own one elsewhere."""
    file, ours = Path(function.__code__.co_filename).resolve(), Path(__file__).resolve().parent
    if not file.is_relative_to(ours):
        return file.parent
    return ours / file.relative_to(ours).parts[0]


@cache
def _sources(folder: Path) -> str:
    """A digest of every Python source under a folder, and of this one."""
    digest = blake2b(digest_size=16)
    for path in [Path(__file__), *sorted(folder.rglob("*.py"))]:
        source = path.read_bytes()
        digest.update(f"{path.name} {len(source)} ".encode())
        digest.update(source)
    return digest.hexdigest()
