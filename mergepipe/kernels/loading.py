"""From object code to a function of C that takes what a kernel's signature says.

Object code is kept with a checksum: what was cut short or damaged on disk is compiled again, and
never run. Where it needs what this process does not have, numba calls the kernel itself.
"""

import ctypes
import operator
import sys
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped, unused-ignore]
import numpy as np

from mergepipe.kernels import cache as kernel_cache
from mergepipe.kernels.declared import Kernel
from mergepipe.kernels.object_code import ObjectCode
from mergepipe.kernels.signatures import Array, Parameter, Scalar

FAILED = "mergepipe_kernel_failed"
_C_TYPES: dict[str, Any] = {
    "bool": ctypes.c_uint8,
    "uint8": ctypes.c_uint8,
    "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32,
    "int16": ctypes.c_int16,
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}
_loaded = count()


def callable_of(kernel: Kernel) -> Callable[..., Any]:
    """What runs a kernel, compiled first where its object code is not kept."""
    if kernel.signature is None:
        raise TypeError(f"{kernel.name} has no signature: only kernels can call it")
    code = kernel_cache.load(kernel)
    if code is None:
        from mergepipe.kernels.compiling import compile_kernel

        code = compile_kernel(kernel)
        kernel_cache.save(kernel, code)
    if not all(llvm.address_of_symbol(name) for name in code.needs):
        from mergepipe.kernels.compiling import dispatcher

        numba_kernel: Callable[..., Any] = dispatcher(kernel)
        return numba_kernel
    return _bound(kernel, code)


@cache
def target_machine() -> Any:
    """What this processor's code is generated and loaded with; `NUMBA_CPU_NAME` names another."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = kernel_cache.processor_options()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name() if name is None else name,
        features=llvm.get_host_cpu_features().flatten() if features is None else features,
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )


@cache
def _linker() -> Any:
    """What links object code into this process. One for all: making one for each took longer."""
    return llvm.create_lljit_compiler(target_machine())


def _bound(kernel: Kernel, code: ObjectCode) -> Callable[..., Any]:
    """The function that checks arguments, converts them, and calls the object code."""
    assert kernel.signature is not None
    builder = llvm.JITLibraryBuilder().add_object_img(code.code).add_current_process()
    builder.export_symbol(code.symbol).export_symbol(FAILED)
    # The name of a library is never used again, and a kernel can be compiled twice.
    library = builder.link(_linker(), f"{kernel.name} {next(_loaded)}")
    address, failed = library[code.symbol], ctypes.c_int32.from_address(library[FAILED])
    # Object code stays to the end of the process: others hold its addresses.
    library.detach()
    result, parameters = kernel.signature.result, kernel.signature.parameters
    c_types = [c_type for parameter in parameters for c_type in _c_types(parameter)]
    prototype = ctypes.CFUNCTYPE(None if result is None else _C_TYPES[result.name], *c_types)
    function = prototype(address)
    takers = [_taker(parameter) for parameter in parameters]
    is_truth = result is not None and result.name == "bool"

    def call(*arguments: Any) -> Any:
        if len(arguments) != len(takers):
            raise TypeError(f"{kernel.name} takes {len(takers)} arguments, not {len(arguments)}")
        converted: list[Any] = []
        for position, argument in enumerate(arguments):
            try:
                takers[position](argument, converted)
            except TypeError as error:
                raise TypeError(f"{kernel.name}: argument {position} {error}") from None
        returned = function(*converted)
        if failed.value:
            failed.value = 0
            raise RuntimeError(f"{kernel.name} failed inside")
        return bool(returned) if is_truth else returned

    return call


def _c_types(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Array):
        return [ctypes.c_void_p, *[ctypes.c_int64] * parameter.dimensions]
    return [_C_TYPES[parameter.name]]


def _taker(parameter: Parameter) -> Callable[[Any, list[Any]], None]:
    """What appends one argument, as C takes it, to a list. It raises TypeError."""
    if isinstance(parameter, Scalar):
        convert = operator.index if parameter.name.startswith(("int", "uint")) else float
        if parameter.name == "bool":
            convert = bool
        return lambda argument, converted: converted.append(convert(argument))
    dtype, dimensions, read_only = (
        np.dtype(parameter.element.name),
        parameter.dimensions,
        parameter.read_only,
    )

    def take(array: Any, converted: list[Any]) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"must be an array, not {type(array).__name__}")
        flags = array.flags
        in_order = flags.c_contiguous and flags.aligned
        if array.dtype != dtype or array.ndim != dimensions or not in_order:
            raise TypeError(
                f"must be an aligned and contiguous {dtype} array of {dimensions} dimensions, "
                f"not {array.dtype} of shape {array.shape}"
            )
        if not (read_only or flags.writeable):
            raise TypeError("is written to, and the array is read-only")
        converted.append(_address_of(array))
        converted.extend(array.shape)

    return take


def _by_ctypes(array: Any) -> int:
    address: int = array.ctypes.data
    return address


def _by_place(array: Any) -> int:
    # numpy keeps it right after what all objects begin with (PyArrayObject in ndarraytypes.h, since
    # 1.0). To ask for it takes twenty times as long, and that was a twentieth of a commit.
    return ctypes.c_size_t.from_address(id(array) + object.__basicsize__).value


def _fastest() -> Callable[[Any], int]:
    if sys.implementation.name != "cpython":
        return _by_ctypes
    probe = np.zeros(8, np.uint8)[3:]
    return _by_place if _by_place(probe) == _by_ctypes(probe) else _by_ctypes


_address_of = _fastest()
