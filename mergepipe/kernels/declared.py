"""The one way kernels are declared: compiled when first called, without the GIL, deterministic.

    @kernel(void(read_only(uint8[::1]), uint8[::1]))
    def unpack_into(packed, trits): ...

Called from Python, arguments are checked against the signature and handed to object code as C
takes them. Kernels call other kernels by name (globals, not attributes of a module), with or
without a signature; they report no errors: what they need to be true, their callers check.
"""

from collections.abc import Callable
from threading import RLock
from types import FunctionType
from typing import Any, TypeVar, cast

from msgspec import Struct

from mergepipe.kernels.signatures import Signature

Function = TypeVar("Function", bound=Callable[..., Any])

_OURS = "mergepipe."
_preparing = RLock()
_declared: "list[Kernel]" = []


class Kernel:
    """A declared kernel. `signature` is None for one that only other kernels call."""

    def __init__(self, function: FunctionType, signature: Signature | None, inline: bool) -> None:
        self.function, self.signature, self.inline = function, signature, inline
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.__doc__ = function.__doc__
        self._call: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it. Raises TypeError for arguments that its signature does not have."""
        call = self._call or self.prepare()
        return call(*arguments)

    def prepare(self) -> Callable[..., Any]:
        """Load its object code, compiled first where none is kept; returns what calls it."""
        with _preparing:
            if self._call is None:
                from mergepipe.kernels.loading import callable_of

                self._call = callable_of(self)
            return self._call


class Deferred(Struct, frozen=True):
    """Something for kernels alone that only numba can define: loaded when they are compiled."""

    module: str
    name: str

    def __call__(self, *arguments: Any) -> Any:
        """It has no meaning outside of kernels. Raises TypeError."""
        raise TypeError(f"{self.module}.{self.name} can be called in kernels only")


def kernel(
    signature: Signature | None = None, *, inline: bool = False
) -> Callable[[Function], Function]:
    """Declare a pure function as a kernel; one with a signature can be called from Python."""

    def declare(function: Function) -> Function:
        declared = Kernel(cast(FunctionType, function), signature, inline)
        if signature is not None:
            _declared.append(declared)
        return cast(Function, declared)

    return declare


def deferred(module: str, name: str) -> Callable[..., Any]:
    """An intrinsic of a module that imports numba, for kernels to call."""
    return Deferred(module, name)


def declared_kernels() -> list[Kernel]:
    """The kernels with signatures in those modules of this program that are loaded.

    Those of others, as of an installed method, compile when they are first called.
    """
    return [kernel for kernel in _declared if kernel.name.startswith(_OURS)]
