"""From a unit to a kernel call: terms become addresses, kinds and scalar arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.dtypes import DType
from mergepipe.methods.fused import pieces
from mergepipe.methods.fused.statistics import gram as gram_kernel
from mergepipe.methods.fused.statistics import l1_norms as l1_norms_kernel
from mergepipe.methods.fused.statistics import magnitude_histogram as magnitude_histogram_kernel
from mergepipe.methods.fused.task_vectors import sweep as task_vectors_sweep
from mergepipe.methods.fused.weighted_sum import sweep as weighted_sum_sweep
from mergepipe.methods.order import BUCKETS, PLACES
from mergepipe.methods.protocol import Output
from mergepipe.methods.randomness import KEEP_ALL, keep_limit, mask_keys
from mergepipe.methods.sums import plain_divisor, weight_sum
from mergepipe.methods.terms import Buffer, Coarse, Delta, Full, Unit, view_bytes

_Numbers = npt.NDArray[np.int64]
_DTYPES = {"BF16": pieces.BF16, "F16": pieces.F16, "F32": pieces.F32}


class _Terms(Struct, frozen=True, eq=False):
    """The terms of a unit as kernels take them; `alive` keeps the buffers where they are."""

    kinds: _Numbers
    addresses: _Numbers
    skips: _Numbers
    levels: npt.NDArray[np.float32]
    base_dtype: int
    base_address: int
    alive: list[npt.NDArray[Any]]

    def every(self) -> tuple[int, int, _Numbers, _Numbers, _Numbers, npt.NDArray[np.float32]]:
        """Base dtype and address, and each term's kind, address, skip and level."""
        of_terms = (self.kinds, self.addresses, self.skips, self.levels)
        return (self.base_dtype, self.base_address, *of_terms)

    def one(self) -> tuple[int, int, int, int, int, np.float32]:
        """Base dtype and address, and the only term's kind, address, skip and level."""
        first = (self.kinds[0], self.addresses[0], self.skips[0], self.levels[0])
        return (self.base_dtype, self.base_address, *first)


def weighted_sum(unit: Unit, out: Output) -> None:
    """The element pass over one unit, into `out`."""
    terms = _terms(unit)
    experts = unit.scalars.experts
    target = _aligned_output(unit.dtype, out)
    weighted_sum_sweep(
        unit.length,
        *terms.every(),
        np.array([expert.weight for expert in experts], np.float32),
        np.float32(weight_sum(unit.scalars)),
        _DTYPES[unit.dtype.name],
        _address(target),
    )
    if target is not out:
        out[:] = target


def task_vectors(unit: Unit, out: Output) -> None:
    """The element pass over one unit, into `out`."""
    terms = _terms(unit)
    experts = unit.scalars.experts
    masks = np.zeros((len(experts), 4), np.uint32)
    masked = np.zeros(len(experts), np.bool_)
    for index, expert in enumerate(experts):
        limit = keep_limit(expert.density)
        if limit != KEEP_ALL:
            masks[index] = (*mask_keys(unit.seed, unit.tensor_key, index), limit)
            masked[index] = True
    target = _aligned_output(unit.dtype, out)
    task_vectors_sweep(
        unit.length,
        unit.start,
        *terms.every(),
        np.array([own.threshold for own in experts], np.float32),
        np.array([own.ceiling for own in experts], np.float32),
        np.array([own.weight * own.rescale for own in experts], np.float32),
        np.array([own.weight for own in experts], np.float32),
        masks,
        masked,
        unit.scalars.elect,
        unit.scalars.normalize,
        np.float32(plain_divisor(unit.scalars)),
        np.float32(unit.scalars.scale),
        _DTYPES[unit.dtype.name],
        _address(target),
    )
    if target is not out:
        out[:] = target


def magnitude_histogram(unit: Unit, bucket: int) -> npt.NDArray[np.float64]:
    """Counts of |d| of the unit's only term: of all buckets (-1), or inside one, then two norms."""
    terms = _terms(unit)
    counts = np.zeros(BUCKETS if bucket < 0 else PLACES, np.float64)
    norms = np.zeros(2, np.float64)
    if terms.kinds[0] == pieces.SAME:
        if bucket <= 0:
            counts[0] = unit.length  # d is zero everywhere
    else:
        magnitude_histogram_kernel(unit.length, *terms.one(), bucket, counts, norms)
    return counts if bucket < 0 else np.concatenate([counts, norms])


def l1_norms(unit: Unit, mask: npt.NDArray[np.uint32] | None) -> npt.NDArray[np.float64]:
    """L1 of d of the unit's only term (not Same), and of d under the mask."""
    terms = _terms(unit)
    out = np.zeros(2, np.float64)
    words = np.zeros(4, np.uint32) if mask is None else mask
    l1_norms_kernel(unit.length, unit.start, *terms.one(), words, mask is not None, out)
    return out


def gram(unit: Unit, *, deltas: bool) -> npt.NDArray[np.float64]:
    """Dot products of the weights of all models, or of their d, K x K row by row."""
    terms = _terms(unit)
    count = len(unit.terms)
    out = np.zeros((count, count), np.float64)
    gram_kernel(
        unit.length,
        *terms.every(),
        deltas,
        np.empty((count, pieces.PIECE), np.float32),
        np.zeros((count * count, pieces.PIECE), np.float64),
        out,
    )
    return out.reshape(-1)


def _terms(unit: Unit) -> _Terms:
    count = len(unit.terms)
    kinds = np.full(count, pieces.SAME, np.int64)
    addresses = np.zeros(count, np.int64)
    skips = np.zeros(count, np.int64)
    levels = np.zeros(count, np.float32)
    alive: list[npt.NDArray[Any]] = []

    def place(data: Buffer, alignment: int) -> int:
        raw = view_bytes(data)
        if _address(raw) % alignment:
            raw = raw.copy()
        alive.append(raw)
        return _address(raw)

    for index, (term, expert) in enumerate(zip(unit.terms, unit.scalars.experts, strict=True)):
        if isinstance(term, Full | Delta):
            first = pieces.FULL if isinstance(term, Full) else pieces.DELTA
            kinds[index] = first + _DTYPES[term.dtype.name]
            addresses[index] = place(term.data, term.dtype.bits // 8)
        elif isinstance(term, Coarse):
            kinds[index] = pieces.COARSE
            addresses[index] = place(term.trits, 1)
            skips[index] = term.skip
            levels[index] = term.magnitude * expert.coarse_scale
    base_dtype = base_address = 0
    if unit.base is not None:
        base_dtype = _DTYPES[unit.base.dtype.name]
        base_address = place(unit.base.data, unit.base.dtype.bits // 8)
    return _Terms(
        kinds=kinds,
        addresses=addresses,
        skips=skips,
        levels=levels,
        base_dtype=base_dtype,
        base_address=base_address,
        alive=alive,
    )


def _aligned_output(dtype: DType, out: Output) -> Output:
    return np.empty_like(out) if _address(out) % (dtype.bits // 8) else out


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
