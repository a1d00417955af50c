"""What speaks against a plan: budgets that keep little, or that one expert takes."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from mergepipe.catalog.suspects import Suspect
from mergepipe.methods import registry
from mergepipe.objects.merging import Plan, PlanInput
from mergepipe.plans.cost_table import TensorCost

# Below half of the energy, merges of every method lose what their experts learned
# (docs/design/merge-quality.md); below a fifth for one expert, it might as well not be there.
ENERGY_FLOOR = 0.5
EXPERT_FLOOR = 0.2
# Of what is planned: a measuring pass that takes more leaves the merge too little.
MEASURED_SHARE = 0.25
# Of norms of changes, weights included: of one tensor, the largest against the next; or so much
# of it, and more than that times what is usual between the two in other tensors.
OUTLIER_RATIO = 10.0
OUTLIER_LEAP = 4.0
# Of an expert's changed blocks, without a coarse layer: single tensors may have none (a poisoned
# one has little to do with the base's).
LAYERLESS_SHARE = 0.5


class Doubt(StrEnum):
    """What a warning is about; scripts see it."""

    LITTLE_ENERGY = "little_energy"
    STARVED_EXPERT = "starved_expert"
    DOMINANT_EXPERT = "dominant_expert"
    MEASURING = "measuring"
    OUTLIER = "outlier"
    TWICE = "twice"
    UNCHANGED = "unchanged"
    NO_LAYERS = "no_layers"
    SUSPECT = "suspect"


class Served(Struct, frozen=True):
    """What a plan reads of one expert, in bytes as stored, and the share of energy it keeps."""

    name: str
    bytes_planned: int
    energy_kept: float


class PlanWarning(Struct, frozen=True):
    """A doubt, the share that raised it, the expert that it is about (None: all), and words."""

    kind: Doubt
    share: float
    expert: str | None
    message: str


def doubts(
    experts: Sequence[Served], energy_kept: float, measured_bytes: int, method: str
) -> Iterator[PlanWarning]:
    """What a user of a plan below the exact one should know of it."""
    planned = sum(expert.bytes_planned for expert in experts)
    if energy_kept < ENERGY_FLOOR:
        yield PlanWarning(
            Doubt.LITTLE_ENERGY,
            energy_kept,
            None,
            f"the budget keeps {energy_kept:.1%} of the energy of the changes: most of what the "
            "experts learned is left out; raise --budget",
        )
    elif experts:
        least = min(experts, key=lambda one: one.energy_kept)
        if least.energy_kept < EXPERT_FLOOR:
            yield PlanWarning(
                Doubt.STARVED_EXPERT,
                least.energy_kept,
                least.name,
                f"the budget keeps {least.energy_kept:.1%} of the energy of {least.name}, the "
                "least of all experts; raise --budget, or its weight",
            )
    if len(experts) > 1 and planned:
        most = max(experts, key=lambda one: one.bytes_planned)
        share = most.bytes_planned / planned
        if share > _much(len(experts)):
            yield PlanWarning(
                Doubt.DOMINANT_EXPERT,
                share,
                most.name,
                f"{most.name} takes {share:.0%} of what is read of {len(experts)} experts: if its "
                "changes are larger than they should be, it crowds out the others",
            )
    if planned and measured_bytes / planned > MEASURED_SHARE:
        share = measured_bytes / planned
        yield PlanWarning(
            Doubt.MEASURING,
            share,
            None,
            f"{method} does not suit a budget: measuring what no profile holds takes {share:.0%} "
            "of what is read, which the merge lacks; ties, task_arithmetic and linear measure "
            "nothing, or leave the budget out",
        )


def outliers(tensors: Iterable[TensorCost], names: Mapping[int, str]) -> Iterator[PlanWarning]:
    """Experts that change tensors far more than any other expert does: swapped, scaled, zeroed.

    names: of the plan's models that are merged. Works where profiles tell the energies, weights
    included. `share` is the largest ratio of norms.
    """
    ratios: dict[int, list[tuple[float, str]]] = {}
    for tensor in tensors:
        energies = {
            expert.model: expert.energy
            for expert in tensor.experts
            if expert.energy and expert.model in names
        }
        if len(energies) < 2:
            continue
        for model, energy in energies.items():
            others = max(other for candidate, other in energies.items() if candidate != model)
            ratios.setdefault(model, []).append((math.sqrt(energy / others), tensor.name))
    for model, measured in ratios.items():
        usual = max(1.0, statistics.median(ratio for ratio, _ in measured))
        most = min(OUTLIER_RATIO, OUTLIER_LEAP * usual)
        beyond = [(ratio, name) for ratio, name in measured if ratio > most]
        if not beyond:
            continue
        ratio, tensor_name = max(beyond)
        more = f" and {len(beyond) - 1} more tensors" if len(beyond) > 1 else ""
        yield PlanWarning(
            Doubt.OUTLIER,
            ratio,
            names[model],
            f"{names[model]} changes {tensor_name} {ratio:.0f} times as much as any other expert"
            f"{more}: `mp check` tells whether it is still like what it came from",
        )


def layerless(tensors: Iterable[TensorCost], names: Mapping[int, str]) -> Iterator[PlanWarning]:
    """Experts that a budget cannot read coarsely, as they were stored over another model."""
    changed, without = Counter[int](), Counter[int]()
    for tensor in tensors:
        for expert in tensor.experts:
            if expert.energy and expert.model in names:
                changed[expert.model] += expert.blocks_full
                without[expert.model] += expert.blocks_layerless
    for model in changed:
        share = without[model] / max(1, changed[model])
        if share > LAYERLESS_SHARE:
            yield PlanWarning(
                Doubt.NO_LAYERS,
                share,
                names[model],
                f"{share:.0%} of the blocks of {names[model]} have no coarse layer over the base, "
                "so a budget reads them whole or not at all: `mp analyze` with the same --base "
                "makes the layers",
            )


def suspected(
    suspects: Mapping[int, Sequence[Suspect]], names: Mapping[int, str]
) -> Iterator[PlanWarning]:
    """Experts with tensors that look wrong beside the base's, or the version before."""
    for model, own in suspects.items():
        first, more = own[0], len(own) - 1
        others = f" (and {more} more {'tensor' if more == 1 else 'tensors'})" if more else ""
        yield PlanWarning(
            Doubt.SUSPECT,
            float(len(own)),
            names[model],
            f"{names[model]} looks wrong in {first.tensor}{others}: {first.message}; `mp check` "
            "reads and compares what differs",
        )


def idle(plan: Plan, names: Sequence[str]) -> Iterator[PlanWarning]:
    """Experts that are named twice, or that are the base itself. names: of the plan's models."""
    same = {
        names[term.model]
        for line in plan.lines
        if line.copied is None
        for place, term in enumerate(line.inputs)
        for other in line.inputs[:place]
        if term.stored is not None and term.stored == other.stored and _same(plan, term, other)
    }
    for name in sorted(same):
        yield PlanWarning(
            Doubt.TWICE,
            1.0,
            name,
            f"{name} is merged with itself: it is named twice, or another expert is the same "
            "model; name each once, and say how much it counts with --weight",
        )
    # Where the base is one of the terms (slerp and its like), it is no mistake to name it.
    of_changes = all(
        registry.find(line.method).needs_base and not registry.find(line.method).base_is_term
        for line in plan.lines
        if line.copied is None
    )
    for place in plan.experts if of_changes else ():
        if plan.base is not None and plan.models[place] == plan.base:
            yield PlanWarning(
                Doubt.UNCHANGED,
                1.0,
                names[place],
                f"{names[place]} is the base itself, or the same model: it changes nothing; "
                "leave it out, or name another with --base",
            )


def _same(plan: Plan, one: PlanInput, other: PlanInput) -> bool:
    return plan.models[one.model] == plan.models[other.model]


def _much(experts: int) -> float:
    """The share that is too much for one of several: 3/4 of two, 2/3 of three, then twice its."""
    return min(2 / experts, (1 + 1 / experts) / 2)
