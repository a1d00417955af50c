"""What budgets buy: how much energy a plan could keep, against the expert bytes that it reads."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from mergepipe.objects.depths import Depth
from mergepipe.planner.selection import select
from mergepipe.plans.costs import NOT_THERE
from mergepipe.plans.explain import Pricing


class Bought(Struct, frozen=True):
    """What a budget buys: bytes read, and the share of the weighted delta energy kept."""

    read_bytes: int
    energy_kept: float


def energy_curve(pricing: Pricing, shares: Sequence[float]) -> list[Bought]:
    """The most energy that these shares of the exact merge's expert bytes can keep, in order.

    By profiles and the layers that are stored, with the weights of the plan. A planner's own choice
    also weighs what a method does with what is missing, so a plan may lie a little below. Empty
    where no input has a profile.
    """
    coarse_costs, coarse_gains, exact_costs, exact_gains = [], [], [], []
    for number, line in enumerate(pricing.plan.lines):
        if line.file is None or line.copied is not None:
            continue
        parts = pricing.parts(number)
        for row, leaf in enumerate(parts.leaves):
            if leaf.view is None:
                continue
            square, scale = leaf.scalars.weight**2, leaf.scalars.coarse_scale or 1.0
            energies = square * leaf.view.known_energies
            bought = parts.depths[row] != Depth.EQUAL
            exact_costs.append(np.where(bought, parts.costs.exact[row], NOT_THERE))
            exact_gains.append(energies)
            if leaf.view.has_coarse:
                captured = leaf.view.estimate_energies * (2.0 * scale - scale * scale)
                coarse_costs.append(np.where(bought, parts.costs.coarse[row], NOT_THERE))
                coarse_gains.append(square * np.nan_to_num(captured))
            else:
                coarse_costs.append(np.full_like(parts.costs.coarse[row], NOT_THERE))
                coarse_gains.append(np.zeros_like(energies))
    if not exact_costs:
        return []
    coarse, exact = np.concatenate(coarse_costs), np.concatenate(exact_costs)
    coarse_worth, exact_worth = np.concatenate(coarse_gains), np.concatenate(exact_gains)
    full = int(exact[exact > 0].sum())
    energy = float(exact_worth[exact >= 0].sum())
    curve = []
    for share in shares:
        chosen = select(coarse, coarse_worth, exact, exact_worth, int(share * full))
        curve.append(Bought(chosen.spent_bytes, min(1.0, chosen.gain / energy) if energy else 1.0))
    return curve
