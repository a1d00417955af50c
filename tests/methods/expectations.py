"""What the reference makes of a case: its parameters and inputs, to the formulas they go to."""

import numpy as np

from tests.methods import merge_reference as reference
from tests.methods import mergekit_formulas as formulas

SEED, KEY = 11, 0xFEDCBA9876543210


def of(case):
    """The expected Result of a cases.Case."""
    name = case.method.name
    for prefix, expectation in EXPECTATIONS.items():
        if name == prefix or name.startswith(prefix + "_"):
            return expectation(case)
    return task_vectors(case)


def values(case):
    return [term.value(case.base) for term in case.terms]


def weights_of(case):
    return [own["weight"] for own in case.settings.experts]


def task_vectors(case):
    """task_arithmetic, ties, dare, breadcrumbs, della: what is left of each d, and its factor."""
    name, s = case.method.name, case.settings
    deltas = [term.delta(case.base) for term in case.terms]
    weights = weights_of(case)
    factors = list(weights)
    for k, whole in enumerate(deltas):
        density = s.experts[k].get("density", 1.0)
        if density >= 1:
            continue
        if name.startswith(("ties", "breadcrumbs")) and case.terms[k].estimate:
            deltas[k] = whole * case.shares[k]
            continue
        chances = density
        if name == "ties":
            deltas[k] = reference.trimmed(whole, reference.trim_threshold(whole, density))
        elif name.startswith("breadcrumbs"):
            deltas[k] = formulas.band(whole, density, s.experts[k]["gamma"])
        elif name.startswith(("dare", "della")):
            if name.startswith("della"):
                epsilon, row = s.experts[k]["epsilon"], case.unit.row_length
                chances = formulas.della_chances(whole, density, epsilon, row)
            indices = case.unit.start + np.arange(len(case.base))
            numbers = reference.mask_numbers(SEED, KEY, k, indices)
            deltas[k] = np.where(numbers < np.round(chances * 2**32), whole, 0)
        by_norm = s.shared.get("rescale_norm", "l1") == "l1"
        if s.shared.get("rescale") and by_norm:
            factors[k] *= reference.l1_factor(whole, deltas[k])
        elif s.shared.get("rescale") and density > 0:
            deltas[k] = deltas[k] / chances
    elect = name in ("ties", "dare_ties", "breadcrumbs_ties", "della")
    normalize, scale = s.shared["normalize"], s.shared["lambda"]
    return reference.task_vectors(case.base, deltas, weights, factors, elect, normalize, scale)


def linear(case):
    normalize = case.settings.shared["normalize"]
    return reference.weighted_sum(case.base, case.terms, weights_of(case), normalize)


def passthrough(case):
    scale = case.settings.experts[0]["scale"]
    return reference.weighted_sum(case.base, case.terms, [scale], False)


def slerp(case):
    return reference.slerp(case.base, case.terms, case.settings.shared["t"])


def nuslerp(case):
    name, unit = case.method.name, case.unit
    t = formulas.nuslerp_share(weights_of(case))
    on_deltas = "deltas" in name
    a, b = case.deltas() if on_deltas else values(case)
    places = unit.start + np.arange(unit.length)
    if name.endswith("rows"):
        weights = formulas.grouped_arcs(a, b, t, places // unit.row_length)
    elif name.endswith("columns"):
        weights = formulas.grouped_arcs(a, b, t, places % unit.slab_length)
    else:
        weights = formulas.arc_weights(a, b, t)
    if on_deltas:
        return formulas.added(case.base, [a, b], weights)
    return formulas.by_weight(case.base, case.terms, weights)


def multislerp(case):
    weights, s = weights_of(case), case.settings.shared
    if s["normalize_weights"]:
        weights = [weight / sum(weights) for weight in weights]
    if case.method.name.endswith("deltas"):
        ds = case.deltas()
        return formulas.added(case.base, ds, formulas.direction_mean(ds, weights, s["eps"]))
    found = formulas.direction_mean(values(case), weights, s["eps"])
    return formulas.by_weight(case.base, case.terms, found)


def karcher(case):
    s, vectors = case.settings.shared, values(case)
    mean = formulas.karcher(vectors, int(s["max_iter"]), s["tol"])
    size = sum(term.size(case.base) for term in case.terms) / len(vectors) * 2
    return reference.Result(mean, size, formulas.certain(len(mean)))


def model_stock(case):
    ds = case.deltas()
    if case.method.name == "model_stock":
        share = formulas.stock_share(ds)
    else:
        row = case.unit.row_length
        shares = [
            formulas.stock_share([d[at : at + row] for d in ds])
            for at in range(0, case.unit.length, row)
        ]
        share = np.repeat(shares, row)
    return formulas.added(case.base, ds, [share / len(ds)] * len(ds))


def nearswap(case):
    return formulas.nearswap(case.base, case.deltas()[0], case.settings.shared["t"])


def ram(case):
    return formulas.ram(case.base, case.deltas(), case.settings.shared["epsilon"])


def ramplus_tl(case):
    s = case.settings.shared
    return formulas.ram(case.base, case.deltas(), s["epsilon"], (s["r"], s["alpha"]))


def sce(case):
    return formulas.sce(case.base, case.deltas(), case.settings.shared["select_topk"])


def arcee_fusion(case):
    (d,) = case.deltas()
    return formulas.fusion(case.base, case.base + d, d, case.unit.row_length)


EXPECTATIONS = {
    "linear": linear,
    "passthrough": passthrough,
    "slerp": slerp,
    "nuslerp": nuslerp,
    "multislerp": multislerp,
    "karcher": karcher,
    "model_stock": model_stock,
    "nearswap": nearswap,
    "ramplus_tl": ramplus_tl,
    "ram": ram,
    "sce": sce,
    "arcee_fusion": arcee_fusion,
}
