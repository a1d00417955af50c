"""Random merges: the units that mergepipe gets, and the float64 inputs that the reference gets."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec.structs import replace

from mergepipe.dtypes import DTYPES
from mergepipe.methods import (
    METHODS,
    SAME,
    VARIANTS,
    Coarse,
    Delta,
    Full,
    Need,
    NeedKind,
    Scalars,
    Scope,
    Unit,
    find,
)
from mergepipe.methods import statistics as stats
from mergepipe.methods.trim import Band, Trim
from tests.methods import expectations
from tests.methods import merge_reference as reference

SEED, KEY = expectations.SEED, expectations.KEY
ALL = {**METHODS, **VARIANTS}
BOTH = [name for name, method in ALL.items() if method.sweep.fused is not None]
LAYOUTS = ("full", "mixed")


def encode(values, dtype):
    """float64 to raw bytes of a dtype (bf16 by truncation: these are inputs, any value will do)."""
    match dtype:
        case "BF16":
            raw = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        case "F16":
            raw = values.astype(np.float16)
        case "F32":
            raw = values.astype(np.float32)
        case _:
            raw = values.astype(np.float64)
    return raw.tobytes()


def decode(data, dtype):
    data = bytes(data)
    match dtype:
        case "BF16":
            wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            return wide.view(np.float32).astype(np.float64)
        case "F16":
            return np.frombuffer(data, np.float16).astype(np.float64)
        case "F32":
            return np.frombuffer(data, np.float32).astype(np.float64)
        case _:
            return np.frombuffer(data, np.float64)


@dataclass
class Case:
    method: object
    settings: object
    unit: Unit  # scalars resolved
    base: np.ndarray
    terms: list
    shares: list

    def expected(self):
        return expectations.of(self)

    def deltas(self):
        """The d of every term as the arithmetic has them: float32 unless something is float64."""
        own = [term.delta(self.base) for term in self.terms]
        if self.unit.dtype.name == "F64":
            return own
        return [d.astype(np.float32).astype(np.float64) for d in own]

    def split(self, cuts):
        """The unit cut at about the given places, in order; into whole rows where it has some."""
        row = self.unit.row_length or 1
        edges = [0, *sorted(cut - cut % row for cut in cuts), self.unit.length]
        return [self.unit.part(a, b) for a, b in pairwise(edges)]


def settings_of(method, rng, count):
    weights = rng.choice([1.0, 0.25, 0.7, -0.5, 0.0, 1e-3, 1.9], count)
    if abs(weights.sum()) < 1e-3:
        weights[0] += 1.0
    shared: dict[str, Any] = {}
    experts: list[dict[str, float]] = [{} for _ in weights]
    names = {p.name for p in method.parameters}
    if "weight" in names:
        experts = [{"weight": float(w)} for w in weights]
    if "density" in names:
        for own in experts:
            own["density"] = float(rng.choice([1.0, 0.5, 0.2, 0.013, 0.0]))
    if "gamma" in names:
        for own in experts:
            own["gamma"] = float(rng.choice([0.01, 0.0, 0.3, 0.7, 1.0]))
    if method.name.startswith("della"):
        for own in experts:
            own["epsilon"] = float(rng.choice([0.01, -0.01, 0.0]))
    if "rescale_norm" in names:
        shared["rescale_norm"] = str(rng.choice(["density", "l1"]))
    elif "rescale" in names:
        shared["rescale"] = bool(rng.integers(2))
    if "normalize" in names:
        shared["normalize"] = bool(rng.integers(2))
    if "lambda" in names:
        shared["lambda"] = float(rng.choice([1.0, 0.3]))
    if "t" in names:
        near = method.name == "nearswap"
        shared["t"] = float(rng.choice([0.0, 1e-3, 3e-3] if near else [0.0, 0.3, 1.0]))
    if "normalize_weights" in names:
        shared["normalize_weights"] = bool(rng.integers(2))
    if "max_iter" in names:
        shared["max_iter"] = int(rng.choice([0, 1, 10]))
    if "select_topk" in names:
        shared["select_topk"] = float(rng.choice([1.0, 0.5, 0.1, 0.0]))
    if method.name.startswith("ram"):
        shared["epsilon"] = float(rng.choice([0.0, 1e-5, 2e-3]))
    if "alpha" in names:
        shared["alpha"] = float(rng.choice([0.2, 2.0]))
    if "scale" in names:
        experts = [{"scale": float(rng.choice([1.0, -1.7]))}]
    return method.settings(shared, experts)


def backends(method):
    """Those there are of it."""
    return ("fused", "torch") if method.sweep.fused is not None else ("torch",)


def make(name, rng, count, dtype, layout="full", length=3001, out=None, spread=2e-3):
    """dtype: of all inputs, or `any` for a random one each; layout: kinds of terms."""
    method = find(name)
    row = slab = 0
    if method.scope is Scope.ROW:
        row = min(int(rng.choice([1, 7, 60, length])), length) or 1
        length -= length % row
    elif name.endswith("columns"):
        slab = int(rng.choice([1, 7, 60]))
    count = max(method.minimum_models, min(count, method.maximum_models or count))
    any_dtype = ["BF16", "F16", "F32"]

    def pick():
        return str(rng.choice(any_dtype)) if dtype == "any" else dtype

    base_dtype = pick()
    raw_base = encode(rng.standard_normal(length) * 0.05, base_dtype)
    base = decode(raw_base, base_dtype)
    units: list[Any] = []
    terms: list[reference.Term] = []
    shares: list[float] = []
    for _ in range(count):
        kind = "full" if layout == "full" else str(rng.choice(["full", "delta", "coarse", "same"]))
        own = pick()
        d = rng.standard_normal(length) * spread * (rng.random(length) < 0.9)
        shares.append(float(rng.choice([0.6, 1.0])))
        if kind == "full":
            raw = encode(base + d, own)
            units.append(Full(raw, DTYPES[own]))
            terms.append(reference.Term(x=decode(raw, own)))
        elif kind == "delta":
            raw = encode(d, own)
            units.append(Delta(raw, DTYPES[own]))
            terms.append(reference.Term(d=decode(raw, own)))
        elif kind == "coarse":
            skip = int(rng.integers(5))
            trits = rng.integers(0, 3, -(-(skip + length) // 5) * 5)
            packed = (trits.reshape(-1, 5) * 3 ** np.arange(5)).sum(1).astype(np.uint8)
            units.append(Coarse(packed.tobytes(), spread, skip))
            sign = np.array([0.0, -1.0, 1.0])[trits[skip : skip + length]]
            terms.append(reference.Term(d=sign * spread, estimate=True))
        else:
            units.append(SAME)
            terms.append(reference.Term(d=np.zeros(length)))
    settings = settings_of(method, rng, count)
    start = int(rng.choice([0, 977, 2**32 - 1500]))
    start -= start % (row or 1)
    unit = Unit(
        start,
        length,
        Full(raw_base, DTYPES[base_dtype]),
        tuple(units),
        Scalars.plain(count),
        DTYPES[out or base_dtype],
        SEED,
        KEY,
        row,
        slab,
    )
    values = {need: _value(need, unit) for need in method.needs(settings)}
    scalars = method.resolve(settings, values, shares)
    return Case(method, settings, replace(unit, scalars=scalars), base, terms, shares)


def _value(need: Need, unit: Unit):
    coarse = need.expert is not None and isinstance(unit.terms[need.expert], Coarse)
    # From a profile: only the share matters to an estimate.
    if coarse and need.kind is NeedKind.TRIM:
        return Trim(1.0, 0.5, 1.0, 1.0)
    if coarse and need.kind is NeedKind.BAND:
        return Band(1.0, 2.0, 0.5, 1.0, 1.0)
    return stats.measure(need, [unit])
