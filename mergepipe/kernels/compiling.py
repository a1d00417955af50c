"""From a kernel to object code, with numba; only this module and `instructions` import it.

numba compiles the kernel behind a function that C can call: pointers and lengths for arrays. Its
LLVM code is then stripped of all else and written as an object that needs the C library at most.
`fastmath` stays off: it lets the compiler reorder sums, and results would differ between CPUs.

What numba generates for errors (they need Python, and its own runtime) is replaced by a note that
there was one: kernels have none, and the caller of the object code raises should that be wrong.
"""

import builtins
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, cast

import llvmlite.binding as llvm  # type: ignore[import-untyped, unused-ignore]
import numba
from numba import types as numba_types

from mergepipe.kernels.declared import Deferred, Kernel
from mergepipe.kernels.loading import FAILED, target_machine
from mergepipe.kernels.object_code import ObjectCode
from mergepipe.kernels.signatures import Array, Parameter, Signature

# numba's and llvmlite's stubs have no types here.
_numba: Any = numba
_types: Any = numba_types
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_DECLARED = re.compile(
    r'^declare (?P<result>.*?) ?(?P<name>@"?(?P<plain>[\w.]+)"?)(?P<parameters>\(.*?\))[^)\n]*$',
    re.MULTILINE,
)
_EXTERNAL = re.compile(r"^(@\w+) = external global .*$", re.MULTILINE)
# What error paths call of numba's runtime; kernels may need nothing else of it.
_RUNTIME_OF_ERRORS = {
    "NRT_Free",
    "NRT_MemInfo_call_dtor",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
}
_OF_PYTHON = re.compile(r"^_?Py")


def compile_kernel(kernel: Kernel) -> ObjectCode:
    """Compile a kernel that has a signature, for this processor.

    Raises TypeError for one that needs memory of numba's runtime, which is not there when it runs.
    """
    signature = kernel.signature
    assert signature is not None
    wrapper, parameters = _wrapped(kernel, signature)
    result = _types.void if signature.result is None else _number(signature.result.name)
    compiled = _numba.cfunc(result(*parameters), error_model="numpy")(wrapper)
    module = llvm.parse_assembly(_without_errors(compiled.inspect_llvm()))
    symbol = compiled.native_name
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration and item.name not in (symbol, FAILED):
            item.linkage = "internal"
    machine = target_machine()
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    used = [function.name for function in module.functions if function.is_declaration]
    needs = [name for name in used if not name.startswith("llvm.")]
    if runtime := [name for name in needs if name.startswith(("NRT_", "numba_"))]:
        raise TypeError(
            f"{kernel.name} needs {', '.join(runtime)} of numba's runtime, as kernels do that make "
            "or reshape an array: use `on_stack`, or take it as an argument"
        )
    return ObjectCode(symbol, needs, machine.emit_object(module))


@cache
def dispatcher(kernel: Kernel) -> Any:
    """The kernel as numba has it, for other kernels to call."""
    function = kernel.function
    scope = {"__builtins__": builtins, "__name__": function.__module__}
    for name in _names(function):
        if name in function.__globals__:
            scope[name] = _as_numba(function.__globals__[name])
    copied = FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    options = {**_OPTIONS, **({"inline": "always"} if kernel.inline else {})}
    return _numba.njit(**options)(copied)


def _names(function: FunctionType) -> set[str]:
    """The globals that a function, or a comprehension in it, may name."""
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_names")]
    return names


def _as_numba(value: Any) -> Any:
    if isinstance(value, Kernel):
        return dispatcher(value)
    if isinstance(value, Deferred):
        return getattr(import_module(value.module), value.name)
    return value


def _wrapped(kernel: Kernel, signature: Signature) -> tuple[Callable[..., Any], list[Any]]:
    """A function that takes what C can give, and its parameters' types."""
    names: list[str] = []
    arguments: list[str] = []
    parameters: list[Any] = []
    for position, parameter in enumerate(signature.parameters):
        name = f"a{position}"
        names.append(name)
        if isinstance(parameter, Array):
            lengths = [f"{name}_{axis}" for axis in range(parameter.dimensions)]
            names += lengths
            arguments.append(f"carray({name}, ({', '.join(lengths)},))")
            parameters += [_types.CPointer(_type(parameter)), *[_types.int64] * len(lengths)]
        else:
            arguments.append(name)
            parameters.append(_type(parameter))
    source = f"def wrapper({', '.join(names)}):\n    return kernel({', '.join(arguments)})\n"
    scope: dict[str, Any] = {"kernel": dispatcher(kernel), "carray": _numba.carray}
    exec(compile(source, f"<{kernel.name}>", "exec"), scope)
    return cast(Callable[..., Any], scope["wrapper"]), parameters


def _type(parameter: Parameter) -> Any:
    return _number((parameter.element if isinstance(parameter, Array) else parameter).name)


def _number(name: str) -> Any:
    return getattr(_types, "boolean" if name == "bool" else name)


def _without_errors(assembly: str) -> str:
    """LLVM code whose calls of numba's runtime and of Python note that there was an error."""

    def replaced(match: re.Match[str]) -> str:
        if match["plain"] not in _RUNTIME_OF_ERRORS and not _OF_PYTHON.match(match["plain"]):
            return match[0]
        # The type is the last word; before it stand attributes that only callers need.
        result = match["result"].split()[-1]
        note = f"  store i32 1, ptr @{FAILED}\n" if match["plain"] == "numba_gil_ensure" else ""
        leave = "  ret void" if result == "void" else f"  ret {result} zeroinitializer"
        return f"define {result} {match['name']}{match['parameters']} {{\n{note}{leave}\n}}"

    stubs = _DECLARED.sub(replaced, assembly)
    stubs = _EXTERNAL.sub(r"\1 = global i8 0", stubs)
    return f"{stubs}\n@{FAILED} = global i32 0\n"
