"""Whether a merge method keeps the promises of `protocol`: for those who write one.

    from mergepipe.methods.conformance import check

    def test_median():
        check(MEDIAN)

Needs nothing but numpy (and what the method itself needs). It takes a second or so.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from mergepipe.dtypes import BF16, F32, DType
from mergepipe.methods.protocol import Method, Need, NeedValues, Output, Scope
from mergepipe.methods.sweeps import merge
from mergepipe.methods.terms import SAME, Coarse, Delta, Full, Scalars, Term, Unit

_ROW, _ROWS = 48, 61  # no multiple of what vector code or trits like
_LENGTH = _ROW * _ROWS
_SEED, _KEY = 5, 7


class PromiseBroken(AssertionError):
    """A method does not do what `protocol` promises of all of them."""


def check(
    method: Method,
    shared: Mapping[str, object] | None = None,
    experts: Sequence[Mapping[str, object]] | None = None,
    values: NeedValues | None = None,
) -> None:
    """Merge random tensors in several ways that must come to the same. Raises PromiseBroken.

    shared, experts  parameters; without `experts`, as many as the method takes, up to 3, as they
                     come
    values           of the method's needs, where it has any: a statistic is not measured here
    """
    count = len(experts) if experts is not None else _count(method)
    settings = method.settings(shared or {}, experts if experts is not None else [{}] * count)
    needs: tuple[Need, ...] = method.needs(settings)
    if missing := [need for need in needs if need not in (values or {})]:
        raise PromiseBroken(f"{method.name}: values for {missing} have to be given")
    scalars = method.resolve(settings, values)
    if len(scalars.experts) != count:
        raise PromiseBroken(f"{method.name} resolves to other than one set of numbers an expert")
    for dtype in (F32, BF16):
        for mixed in (False, True):
            unit = _unit(method, scalars, dtype, mixed=mixed and method.needs_base)
            _check_splits(method, unit)
    _check_threads(method, scalars)
    _check_inputs_are_left_alone(method, scalars)
    if method.omitted_is_noop:
        _check_nothing_changed(method, scalars)


def _check_splits(method: Method, unit: Unit) -> None:
    """The same bytes for any split into ranges."""
    whole = merge(method, unit)
    if not np.array_equal(whole, merge(method, unit)):
        raise PromiseBroken(f"{method.name} gives other bytes the second time")
    if method.scope is Scope.TENSOR:
        return
    step = _ROW if method.scope is Scope.ROW else 1
    for cuts in ((1,), (7, 8, 40), tuple(range(3, _ROWS, 11))):
        edges = [0, *(cut * step for cut in cuts), unit.length]
        parts = [merge(method, unit.part(a, b)) for a, b in pairwise(edges)]
        if not np.array_equal(whole, np.concatenate(parts)):
            raise PromiseBroken(
                f"{method.name}: a tensor in {len(parts)} ranges ({unit.dtype}) is not the same as "
                f"in one: its scope is not {method.scope.value}"
            )


def _check_threads(method: Method, scalars: Scalars) -> None:
    """The same bytes when several threads merge at once."""
    unit = _unit(method, scalars, F32)
    whole = merge(method, unit)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: merge(method, unit), range(8)):
            if not np.array_equal(whole, result):
                raise PromiseBroken(f"{method.name} gives other bytes beside other threads")


def _check_inputs_are_left_alone(method: Method, scalars: Scalars) -> None:
    """What a method was given is as it was."""
    unit = _unit(method, scalars, F32)
    before = [bytes(term.data) for term in unit.terms if isinstance(term, Full | Delta)]
    merge(method, unit)
    if before != [bytes(term.data) for term in unit.terms if isinstance(term, Full | Delta)]:
        raise PromiseBroken(f"{method.name} changes what it reads")


def _check_nothing_changed(method: Method, scalars: Scalars) -> None:
    """`omitted_is_noop`: the base's bits, where no expert changes anything."""
    for dtype in (F32, BF16):
        unit = _unit(method, scalars, dtype)
        assert unit.base is not None
        result = merge(method, replace(unit, terms=(SAME,) * len(unit.terms)))
        if result.tobytes() != bytes(unit.base.data):
            raise PromiseBroken(
                f"{method.name}: without any delta the result is not the base, although its "
                "omitted_is_noop says so"
            )


def _count(method: Method) -> int:
    most = 3 if method.maximum_models is None else method.maximum_models
    return max(method.minimum_models, min(3, most))


def _unit(method: Method, scalars: Scalars, dtype: DType, *, mixed: bool = False) -> Unit:
    """Random weights; with `mixed`, terms of every kind there is."""
    source = np.random.default_rng(3)
    base = source.standard_normal(_LENGTH).astype(np.float32)
    terms: list[Term] = []
    for place in range(len(scalars.experts)):
        delta = (source.standard_normal(_LENGTH) * 0.01).astype(np.float32)
        if mixed and place % 3 == 1:
            trits = source.integers(0, 243, -(-_LENGTH // 5)).astype(np.uint8)
            terms.append(Coarse(trits, 0.01))
        elif mixed and place % 3 == 2:
            terms.append(Delta(delta))
        else:
            terms.append(Full(_raw(base + delta, dtype), dtype))
    return Unit(
        start=0,
        length=_LENGTH,
        base=Full(_raw(base, dtype), dtype) if method.needs_base else None,
        terms=tuple(terms),
        scalars=scalars,
        dtype=dtype,
        seed=_SEED,
        tensor_key=_KEY,
        row_length=_ROW,
        slab_length=_ROW,
    )


def _raw(values: npt.NDArray[np.float32], dtype: DType) -> Output:
    """Values as bytes; of BF16 the upper halves of float32."""
    if dtype == F32:
        return values.view(np.uint8)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
