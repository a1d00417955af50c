"""The one way kernels are compiled: numba, without the GIL, cached on disk, deterministic.

Importing this module imports numba, so only kernel modules import it, and those are imported
lazily. `fastmath` stays off: it lets the compiler reorder sums, and results would differ between
CPUs.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

from mergepipe import kernel_cache

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
        if kernel_cache.directory() is not None:
            dispatcher._cache = _Cache(function)  # what numba's enable_caching does, in our place
        for signature in () if inner else signatures:
            dispatcher.compile(signature)
        if signatures and not inner:
            dispatcher.disable_compile()
        return cast(Function, dispatcher)

    return compiled


# numba's stubs have no types here.
_NumbaLocator: Any = UserProvidedCacheLocator
_NumbaCache: Any = FunctionCache


class _Locator(_NumbaLocator):  # type: ignore[misc]
    """Puts every kernel under the folder that `kernel_cache` chose, which may be read-only."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)
        folder = kernel_cache.directory()
        assert folder is not None
        self._folder = folder / self.get_suitable_cache_subpath(file)
        self._function = function

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_Locator":
        """Always: that the folder cannot be written to is no reason not to read it."""
        return cls(function, file)

    def get_cache_path(self) -> str:
        """Where numba puts index and code."""
        return str(self._folder)

    def ensure_cache_path(self) -> None:
        """Called before something is written there. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_source_stamp(self) -> str:
        """What kept code is stale without: all sources beside the kernel, not its file alone."""
        return kernel_cache.sources(_package_of(self._function))


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(_NumbaCache):  # type: ignore[misc]
    """numba's cache in our folder; a disk that is full or read-only is no reason to fail."""

    _impl_class = _Implementation

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """What was kept, or None."""
        try:
            return super().load_overload(signature, target_context)
        except OSError:  # the folder is none, or not ours to read
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep compiled code for later processes, if it can be kept."""
        with suppress(OSError):
            super().save_overload(signature, data)


def _package_of(function: Callable[..., Any]) -> Path:
    """The folder right below ours that the function's file is in; its own one elsewhere."""
    file, ours = Path(function.__code__.co_filename).resolve(), Path(__file__).resolve().parent
    if not file.is_relative_to(ours):
        return file.parent
    return ours / file.relative_to(ours).parts[0]
