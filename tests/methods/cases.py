"""Random merges: the units that mergepipe gets, and the float64 inputs that the reference gets."""

from dataclasses import dataclass, replace
from itertools import pairwise

import merge_reference as reference
import numpy as np

from mergepipe.dtypes import DTYPES
from mergepipe.methods import SAME, Coarse, Delta, Full, Need, NeedKind, Scalars, Unit, find
from mergepipe.methods import statistics as stats
from mergepipe.methods.trim import Trim

SEED, KEY = 11, 0xFEDCBA9876543210
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
        s, base, terms = self.settings, self.base, self.terms
        name, count = self.method.name, len(terms)
        if name == "passthrough":
            return reference.weighted_sum(base, terms, [s.experts[0]["scale"]], False)
        if name == "slerp":
            return reference.slerp(base, terms, s.shared["t"])
        weights = [own["weight"] for own in s.experts]
        if name == "linear":
            return reference.weighted_sum(base, terms, weights, s.shared["normalize"])
        deltas = [t.delta(base) for t in terms]
        factors = list(weights)
        for k in range(count):
            density = s.experts[k].get("density", 1.0)
            if name == "ties" and density < 1:
                if terms[k].estimate:
                    deltas[k] = deltas[k] * self.shares[k]
                    continue
                whole = deltas[k]
                threshold = reference.trim_threshold(whole, density)
                deltas[k] = reference.trimmed(whole, threshold)
                if s.shared["rescale"]:
                    factors[k] *= reference.l1_factor(whole, deltas[k])
            elif name.startswith("dare") and density < 1:
                indices = self.unit.start + np.arange(len(base))
                numbers = reference.mask_numbers(SEED, KEY, k, indices)
                whole, deltas[k] = deltas[k], np.where(numbers < density * 2**32, deltas[k], 0)
                if s.shared["rescale_norm"] == "l1":
                    factors[k] *= reference.l1_factor(whole, deltas[k])
                elif density > 0:
                    factors[k] /= density
        elect = name in ("ties", "dare_ties")
        normalize, scale = s.shared["normalize"], s.shared["lambda"]
        return reference.task_vectors(base, deltas, weights, factors, elect, normalize, scale)

    def split(self, cuts):
        """The unit cut at the given places, in order."""
        edges = [0, *sorted(cuts), self.unit.length]
        return [self.unit.part(a, b) for a, b in pairwise(edges)]


def settings_of(method, rng, count):
    weights = rng.choice([1.0, 0.25, 0.7, -0.5, 0.0, 1e-3, 1.9], count)
    if abs(weights.sum()) < 1e-3:
        weights[0] += 1.0
    shared, experts = {}, [{} for _ in weights]
    names = {p.name for p in method.parameters}
    if "weight" in names:
        experts = [{"weight": float(w)} for w in weights]
    if "density" in names:
        for own in experts:
            own["density"] = float(rng.choice([1.0, 0.5, 0.2, 0.013, 0.0]))
    if "rescale_norm" in names:
        shared["rescale_norm"] = str(rng.choice(["density", "l1"]))
    elif "rescale" in names:
        shared["rescale"] = bool(rng.integers(2))
    if "normalize" in names:
        shared["normalize"] = bool(rng.integers(2))
    if "lambda" in names:
        shared["lambda"] = float(rng.choice([1.0, 0.3]))
    if "t" in names:
        shared["t"] = float(rng.choice([0.0, 0.3, 1.0]))
    if "scale" in names:
        experts = [{"scale": float(rng.choice([1.0, -1.7]))}]
    return method.settings(shared, experts)


def make(name, rng, count, dtype, layout="full", length=3001, out=None, spread=2e-3):
    """dtype: of all inputs, or `any` for a random one each; layout: kinds of terms."""
    method = find(name)
    count = max(method.minimum_models, min(count, method.maximum_models or count))
    any_dtype = ["BF16", "F16", "F32"]

    def pick():
        return str(rng.choice(any_dtype)) if dtype == "any" else dtype

    base_dtype = pick()
    raw_base = encode(rng.standard_normal(length) * 0.05, base_dtype)
    base = decode(raw_base, base_dtype)
    units, terms, shares = [], [], []
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
    unit = Unit(
        start,
        length,
        Full(raw_base, DTYPES[base_dtype]),
        tuple(units),
        Scalars.plain(count),
        DTYPES[out or base_dtype],
        SEED,
        KEY,
    )
    values = {need: _value(need, unit) for need in method.needs(settings)}
    scalars = method.resolve(settings, values, shares)
    return Case(method, settings, replace(unit, scalars=scalars), base, terms, shares)


def _value(need: Need, unit: Unit):
    coarse = need.expert is not None and isinstance(unit.terms[need.expert], Coarse)
    if coarse and need.kind is NeedKind.TRIM:
        return Trim(1.0, 0.5, 1.0, 1.0)  # from a profile: only the share matters to an estimate
    return stats.measure(need, [unit])
