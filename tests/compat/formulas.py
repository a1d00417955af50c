"""The methods on flat float64 arrays, by the parameters that a config gives.

The arithmetic is tests/methods/merge_reference.py and mergekit_formulas.py, written from papers and
from what mergekit computes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.methods import merge_reference as reference
from tests.methods import mergekit_formulas as formulas

Flat = np.ndarray
NEEDS_BASE = frozenset(
    (
        *("task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "model_stock", "sce"),
        *("ram", "ramplus_tl", "nearswap"),
    )
)
NEEDS_TWO = frozenset(("slerp", "nuslerp"))


def merge_terms(
    method: str,
    base: Flat | None,
    values: Sequence[Flat],
    is_base: Sequence[bool],
    parameter: Callable[[str, Any], Any],
    own: Callable[[int, str, Any], Any],
    shape: tuple[int, ...],
) -> reference.Result:
    """One tensor.

    base       of the differences, or the first of slerp's two; None if there is none
    values     of the models; without the base's for methods that take differences
    is_base    which of the values is the base's
    parameter  key, default -> a value of the whole merge
    own        number of a model, key, default -> a value of its own
    """
    n = len(values[0]) if values else len(base)  # type: ignore[arg-type]
    terms = [reference.Term(x=value) for value in values]
    if method in NEEDS_BASE:
        assert base is not None
        return _differences(method, base, terms, parameter, own, shape)
    if method in NEEDS_TWO and len(terms) == 1:  # a part with one model is that model
        return reference.weighted_sum(np.zeros(n), terms, [1.0], False)
    zeros = np.zeros(n)
    if method == "linear":
        weights = [own(k, "weight", None) for k in range(len(terms))]
        return reference.weighted_sum(zeros, terms, weights, parameter("normalize", True))
    if method == "passthrough":
        return reference.weighted_sum(zeros, terms, [own(0, "scale", 1.0)], False)
    if method == "slerp":
        ordered = terms if is_base[0] else terms[::-1]
        return reference.slerp(zeros, ordered, parameter("t", None))
    if method == "nuslerp":
        share = formulas.nuslerp_share([own(k, "weight", 1.0) for k in range(2)])
        weights = formulas.arc_weights(values[0], values[1], share)
        return formulas.by_weight(zeros, terms, weights)
    if method == "karcher":
        mean = formulas.karcher(values, parameter("max_iter", 10), parameter("tol", 1e-5))
        size = 4 * sum(np.abs(value) for value in values)
        return reference.Result(mean, size, np.zeros(n, bool))
    raise AssertionError(method)


def _differences(
    method: str,
    base: Flat,
    terms: Sequence[reference.Term],
    parameter: Callable[[str, Any], Any],
    own: Callable[[int, str, Any], Any],
    shape: tuple[int, ...],
) -> reference.Result:
    if not terms:
        return reference.weighted_sum(base, [reference.Term(x=base)], [1.0], False)
    # As the arithmetic has them, for what compares magnitudes.
    full = [term.x for term in terms if term.x is not None]
    ds = [(x.astype(np.float32) - base.astype(np.float32)).astype(float) for x in full]
    if method == "model_stock":
        t = formulas.stock_share(ds)
        return formulas.added(base, ds, [t / len(ds)] * len(ds))
    if method == "sce":
        return formulas.sce(base, ds, parameter("select_topk", 1.0))
    if method in ("ram", "ramplus_tl"):
        plus = (parameter("r", 0.1), parameter("alpha", 0.2)) if method == "ramplus_tl" else None
        return formulas.ram(base, ds, parameter("epsilon", 1e-5), plus)
    if method == "nearswap":
        return formulas.nearswap(base, ds[0], parameter("t", None))
    weights = [own(k, "weight", None) for k in range(len(terms))]
    elect = method.endswith("ties")
    kept = []
    for k, d in enumerate(ds):
        density = own(k, "density", 1.0)
        if method == "ties":
            kept.append(reference.trimmed(d, reference.trim_threshold(d, density)))
        elif method.startswith("breadcrumbs"):
            kept.append(formulas.band(d, density, own(k, "gamma", 0.01)))
        else:
            kept.append(term_delta(terms[k], base))
    normalize = parameter("normalize", method == "ties")
    scale = parameter("lambda", 1.0)
    return reference.task_vectors(base, kept, weights, weights, elect, normalize, scale)


def term_delta(term: reference.Term, base: Flat) -> Flat:
    """A model's difference in float64."""
    return term.x - base
