"""Terms as torch tensors, and results as bytes: conversion, on any device."""

import numpy as np
import torch
from msgspec.structs import replace

from mergepipe.dtypes import F32, F64, DType
from mergepipe.methods.protocol import Output
from mergepipe.methods.terms import (
    SIGNS,
    Buffer,
    Coarse,
    Delta,
    ExpertScalars,
    Full,
    Term,
    Unit,
    view_bytes,
)

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


def compute_dtype(unit: Unit) -> torch.dtype:
    """float64 if anything in the unit is, float32 otherwise."""
    inputs = [term.dtype for term in unit.terms if isinstance(term, Full | Delta)]
    inputs += [unit.dtype] + ([unit.base.dtype] if unit.base is not None else [])
    return torch.float64 if F64 in inputs else torch.float32


def rounded(value: float, compute: torch.dtype) -> float:
    """A scalar as the element pass sees it: rounded to float32 unless it computes in float64."""
    return value if compute == torch.float64 else float(np.float32(value))


def read(data: Buffer, dtype: DType, compute: torch.dtype, device: str) -> torch.Tensor:
    """Raw bytes as values, shape (elements,)."""
    kind = _TORCH[dtype.name]
    return _bytes_on(data, device, kind.itemsize).view(kind).to(compute)


def base_values(unit: Unit, compute: torch.dtype, device: str) -> torch.Tensor:
    """The base's values; the unit has one."""
    assert unit.base is not None
    return read(unit.base.data, unit.base.dtype, compute, device)


def signs(term: Coarse, length: int, device: str) -> torch.Tensor:
    """A coarse term's signs, int8, shape (length,)."""
    table = torch.from_numpy(SIGNS.copy()).to(device)
    packed = _bytes_on(term.trits, device, 1)
    return table[packed.int()].reshape(-1)[term.skip : term.skip + length]


def delta(
    term: Term,
    scalars: ExpertScalars,
    base: torch.Tensor | None,
    length: int,
    compute: torch.dtype,
    device: str,
) -> torch.Tensor:
    """The d of one term, shape (length,); without a base only a Delta has one (zeros for Same)."""
    match term:
        case Full():
            assert base is not None
            return read(term.data, term.dtype, compute, device) - base
        case Delta():
            return read(term.data, term.dtype, compute, device)
        case Coarse():
            level = rounded(term.magnitude * scalars.coarse_scale, compute)
            return signs(term, length, device).to(compute) * level
        case _:
            return torch.zeros(length, dtype=compute, device=device)


def value(
    term: Term,
    scalars: ExpertScalars,
    base: torch.Tensor | None,
    length: int,
    compute: torch.dtype,
    device: str,
) -> torch.Tensor:
    """The x of one term, shape (length,): the weights, or base + d."""
    if isinstance(term, Full):
        return read(term.data, term.dtype, compute, device)
    assert base is not None
    if isinstance(term, Delta | Coarse):
        return base + delta(term, scalars, base, length, compute, device)
    return base


def in_float32(unit: Unit, *, as_deltas: bool) -> Unit:
    """The unit with every term as float32 deltas or weights, for statistics of other dtypes."""
    compute = compute_dtype(unit)
    base = base_values(unit, compute, "cpu") if unit.base is not None else None
    convert, kind = (delta, Delta) if as_deltas else (value, Full)
    terms = tuple(
        kind(convert(term, expert, base, unit.length, compute, "cpu").float().numpy(), F32)
        for term, expert in zip(unit.terms, unit.scalars.experts, strict=True)
    )
    kept = None if base is None else Full(base.float().numpy(), F32)
    return replace(unit, base=kept, terms=terms)


def deltas(unit: Unit, base: torch.Tensor, compute: torch.dtype, device: str) -> list[torch.Tensor]:
    """The d of every term, zeros for Same, each of shape (length,)."""
    return [
        delta(term, expert, base, unit.length, compute, device)
        for term, expert in zip(unit.terms, unit.scalars.experts, strict=True)
    ]


def models_of(unit: Unit, compute: torch.dtype, device: str) -> list[torch.Tensor]:
    """The weights of every term, each of shape (length,)."""
    base = base_values(unit, compute, device) if unit.base is not None else None
    return [
        value(term, expert, base, unit.length, compute, device)
        for term, expert in zip(unit.terms, unit.scalars.experts, strict=True)
    ]


def write_added(base: torch.Tensor, merged: torch.Tensor, unit: Unit, out: Output) -> None:
    """The base plus merged, rounded; where the merged delta is exactly 0 the base's bits."""
    write(torch.where(merged == 0, base, base + merged), unit.dtype, out)


def write(values: torch.Tensor, dtype: DType, out: Output) -> None:
    """Round once to `dtype`, to nearest even, into `out`; one bit pattern for every NaN."""
    kind = _TORCH[dtype.name]
    if dtype.bits == 8:
        # torch turns what overflows into NaN or infinity; a saturated weight is the lesser evil.
        largest = torch.finfo(kind).max
        values = torch.where(values.isinf(), values, values.clamp(-largest, largest))
    if values.dtype == torch.float64 and kind.itemsize < 4:
        values = _to_odd(values)
    result = values.to(kind)
    invalid = values.isnan()
    if bool(invalid.any()):
        # Vectorised conversions differ from scalar ones in the bits of a NaN.
        nan = torch.tensor(float("nan"), device=values.device).to(kind)
        place = result.view(_INTEGER[kind.itemsize])
        place[invalid] = nan.view(_INTEGER[kind.itemsize])
    out[:] = result.view(torch.uint8).cpu().numpy()


def _to_odd(values: torch.Tensor) -> torch.Tensor:
    """float64 to float32, inexact results to the neighbour whose last bit is odd.

    torch converts float64 to 16 bits by way of float32; from an odd one the second rounding is
    right (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 2008).
    """
    near = values.float()
    back = near.double()
    bits = near.view(torch.int32) - (back.abs() > values.abs()).int()
    return (bits | (back != values).int()).view(torch.float32)


_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bytes_on(data: Buffer, device: str, alignment: int) -> torch.Tensor:
    raw = view_bytes(data)
    address: int = raw.__array_interface__["data"][0]
    if not raw.flags.writeable or address % alignment:
        raw = raw.copy()  # torch shares memory only with writable, aligned arrays
    return torch.from_numpy(raw).to(device)
