"""The element passes, and `merge`, which runs one over a unit.

The fused kernels and torch give the same bytes on a CPU, so which one runs is a matter of speed
only: fused where every dtype has a kernel, torch for the rest and for other devices.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Literal

import numpy as np

from mergepipe.errors import MergeInputError
from mergepipe.methods.protocol import (
    ARITHMETIC,
    FUSED,
    DeviceElementPass,
    ElementPass,
    Method,
    Output,
    Scope,
    Sweep,
)
from mergepipe.methods.terms import Buffer, Delta, Full, Unit, view_bytes

# Elements that torch gets at a time on a CPU: bounds its temporaries, and runs elections and masks
# 1.2 to 1.9 times as fast as 512 Ki do.
TORCH_PIECE = 1 << 16
Backend = Literal["auto", "fused", "torch"]


def merge(
    method: Method,
    unit: Unit,
    out: Buffer | None = None,
    *,
    backend: Backend = "auto",
    device: str = "cpu",
) -> Output:
    """Merge one range: its bytes in the output dtype, in `out` (writable) or a new array.

    Raises MergeInputError for terms that do not fit the range, the method or each other.
    """
    unit.check()
    if method.needs_base and unit.base is None:
        raise MergeInputError(f"method {method.name} needs a base")
    if method.scope is Scope.ROW:
        check_rows(unit)
    result = _output(unit, out)
    if not unit.length:
        return result
    if _is_copy(method, unit):
        result[:] = view_bytes(_only_full(unit).data)
        return result
    dtypes = _dtypes(unit)
    for dtype in dtypes:
        if dtype not in ARITHMETIC:
            raise MergeInputError(
                f"method {method.name} cannot compute in {dtype}",
                "such tensors can only be taken whole from one model (passthrough, scale 1)",
            )
    fused = method.sweep.fused
    if backend == "fused" and (fused is None or device != "cpu" or not dtypes <= FUSED):
        raise MergeInputError(f"no fused kernel for {method.name} of {_names(unit)} on {device}")
    if fused is not None and backend != "torch" and device == "cpu" and dtypes <= FUSED:
        fused(unit, result)
    elif device == "cpu" and method.scope is not Scope.TENSOR:
        _piecewise(method, unit, result)
    else:
        method.sweep.torch(unit, result, device)
    return result


def _piecewise(method: Method, unit: Unit, out: Output) -> None:
    """The torch pass piece by piece, so that its temporaries are small."""
    width = unit.dtype.bits // 8
    for begin, end in pieces(unit, method.scope):
        method.sweep.torch(unit.part(begin, end), out[begin * width : end * width], "cpu")


def check_rows(unit: Unit) -> None:
    """Raise MergeInputError unless the unit holds whole rows."""
    if not unit.length:
        return
    if unit.row_length <= 0 or unit.start % unit.row_length or unit.length % unit.row_length:
        raise MergeInputError(
            f"range of {unit.length} elements from {unit.start}: not whole rows of "
            f"{unit.row_length}"
        )


def pieces(unit: Unit, scope: Scope) -> Iterator[tuple[int, int]]:
    """A unit cut for torch: where each piece begins and ends, in whole rows where scope is ROW."""
    step = TORCH_PIECE
    if scope is Scope.ROW:
        step = max(1, TORCH_PIECE // unit.row_length) * unit.row_length
    for begin in range(0, unit.length, step):
        yield begin, min(unit.length, begin + step)


def _output(unit: Unit, out: Buffer | None) -> Output:
    bits = unit.length * unit.dtype.bits
    if bits % 8:
        raise MergeInputError(f"{unit.length} elements of {unit.dtype} do not fill whole bytes")
    if out is None:
        return np.empty(bits // 8, np.uint8)
    result = view_bytes(out)
    if result.nbytes * 8 != bits:
        raise MergeInputError(
            f"output of {result.nbytes} bytes for {unit.length} elements of {unit.dtype}"
        )
    return result


def _is_copy(method: Method, unit: Unit) -> bool:
    """Whether the result is the one model's very bytes, whatever they mean."""
    if method.sweep is not WEIGHTED_SUM or len(unit.terms) != 1:
        return False
    term = unit.terms[0]
    unscaled = unit.scalars.normalize or unit.scalars.experts[0].weight == 1.0
    return isinstance(term, Full) and term.dtype == unit.dtype and unscaled


def _only_full(unit: Unit) -> Full:
    term = unit.terms[0]
    assert isinstance(term, Full)
    return term


def _dtypes(unit: Unit) -> set[object]:
    dtypes: set[object] = {term.dtype for term in unit.terms if isinstance(term, Full | Delta)}
    dtypes.add(unit.dtype)
    if unit.base is not None:
        dtypes.add(unit.base.dtype)
    return dtypes


def _names(unit: Unit) -> str:
    return ", ".join(sorted(str(dtype) for dtype in _dtypes(unit)))


def _fused_weighted_sum(unit: Unit, out: Output) -> None:
    from mergepipe.methods.fused.launch import weighted_sum

    weighted_sum(unit, out)


def _fused_task_vectors(unit: Unit, out: Output) -> None:
    from mergepipe.methods.fused.launch import task_vectors

    task_vectors(unit, out)


def _sweep(module: str, function: str = "merge", fused: ElementPass | None = None) -> Sweep:
    """A sweep that imports its module in `eager` when it first runs."""

    def torch_pass(unit: Unit, out: Output, device: str) -> None:
        run: DeviceElementPass = getattr(
            import_module(f"mergepipe.methods.eager.{module}"), function
        )
        run(unit, out, device)

    return Sweep(f"{module}.{function}", torch_pass, fused)


WEIGHTED_SUM = _sweep("weighted_sum", fused=_fused_weighted_sum)
TASK_VECTORS = _sweep("task_vectors", fused=_fused_task_vectors)
ARC_ROWS = _sweep("rows", "merge_arcs")
DELTA_ARC_ROWS = _sweep("rows", "merge_delta_arcs")
ARC_COLUMNS = _sweep("columns", "merge_arcs")
DELTA_ARC_COLUMNS = _sweep("columns", "merge_delta_arcs")
STOCK_ROWS = _sweep("rows", "merge_stock")
NEARSWAP = _sweep("nearswap")
RAM = _sweep("ram")
SCE = _sweep("sce")
DELLA = _sweep("della")
FUSION = _sweep("fusion")
