"""A report's values, taken from a repository."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from mergepipe.api import Repository
from mergepipe.api.sweeping import SHARES
from mergepipe.errors import MergepipeError, RevisionNotFound
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import encode
from mergepipe.report.lineage import growth, lineage, storage
from mergepipe.report.metrics import checked, noted
from mergepipe.report.values import (
    Cell,
    CurvePoint,
    Fact,
    Layer,
    Metric,
    Model,
    Pair,
    Report,
    Tensor,
)
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.naming import Holder
    from mergepipe.objects.merging import Plan
    from mergepipe.planner.agreement import Agreement
    from mergepipe.plans.cost_table import CostTable
    from mergepipe.plans.explain import Explanation, Pricing, TensorExplanation

_MOST_TENSORS = 20
_DIGITS = 5
_DEPTHS = ("omitted", "coarse", "exact", "equal")
_LAYER = re.compile(r"\.(?P<number>[0-9]{1,4})\.")


def report_of(repository: Repository, what: str | None, metrics: Sequence[Metric] = ()) -> Report:
    """The report on a merge, a plan, a difference (`A..B`) or, for None, the whole repository.

    metrics: what was measured of revisions (`read_metrics`); what notes say comes to it.
    Raises RevisionNotFound, MergepipeError for a revision that is no merge.
    """
    checked(repository, metrics)
    if what is None:
        return _of_repository(repository, metrics)
    before, dots, after = what.partition("..")
    if dots:
        return _of_difference(repository, before or "HEAD", after or "HEAD", metrics)
    return of_merge(repository, what, metrics)[0]


def of_merge(
    repository: Repository, what: str, metrics: Sequence[Metric] = ()
) -> "tuple[Report, Explanation, Plan, ObjectId | None]":
    """The report on a merge or a plan, with what it was made of: `explain`'s, looked up once."""
    try:
        plan, manifest = repository.merging.find(what)
    except RevisionNotFound:
        raise
    except MergepipeError as error:
        raise type(error)(
            error.message,
            f"{_command('report', f'{what}~1..{what}')} shows what changed in a commit",
        ) from None
    from mergepipe.plans.explain import explain

    pricing = repository.merging.pricing(plan)
    explained = explain(pricing)
    report = _of_merge(repository, what, explained, pricing, metrics, is_plan=manifest is None)
    return report, explained, plan, manifest


def _of_merge(
    repository: Repository,
    what: str,
    explained: "Explanation",
    pricing: "Pricing",
    metrics: Sequence[Metric],
    *,
    is_plan: bool,
) -> Report:
    from mergepipe.planner.agreement import agreements
    from mergepipe.planner.curve import energy_curve

    plan = pricing.plan
    held = repository.planning.holders(plan.models)
    names = {each: held[each].name if each in held else each.hex()[:12] for each in plan.models}
    costs = explained.costs
    labels = [names[snapshot] for snapshot in plan.models]
    experts = [labels[place] for place in plan.experts]
    identity = object_id(encode(plan)).hex()
    beside = _beside(costs)
    bought = energy_curve(pricing, (*SHARES, *beside.values()))
    curve = [CurvePoint(each.read_bytes, each.energy_kept) for each in bought]
    total = sum(_energies(explained.tensors))
    agreed = agreements(pricing)
    revisions = [(names[each], held[each].commit) for each in plan.models if each in held]
    facts = [
        Fact("method", plan.method),
        Fact("base", "none" if plan.base is None else names.get(plan.base, plan.base.hex()[:12])),
        Fact("experts", ", ".join(experts)),
        Fact("experts' size", format_size(costs.expert_bytes_raw)),
        Fact("exact merge reads", format_size(costs.expert_bytes_full)),
        Fact("this reads", _read(costs.expert_bytes_planned, costs.expert_bytes_full)),
        Fact("energy kept", f"{costs.energy_kept:.1%}"),
        *_least_served(explained, plan, labels),
        *(
            Fact(name, f"{point.energy_kept:.1%} of the energy")
            for name, point in zip(beside, curve[len(SHARES) :], strict=False)
        ),
        Fact("error, at most", f"{costs.omitted_norm:.4g} (L2 norm of what is left out)"),
        Fact("plan", identity),
    ]
    kind = "plan" if is_plan else "merge"
    commands = [_command("explain", what), f"mp merge --plan {identity[:12]} -b BRANCH"]
    if not is_plan:
        commit = repository.resolve(what)
        revisions.append((what, commit))
        facts.append(Fact("commit", commit.hex()))
        facts += [Fact(key, each.value) for key, each in repository.notes(what).items()]
        commands = [
            _command("explain", what),
            _command("replay", what),
            _command("checkout", what, "--to", "DIR"),
        ]
    return Report(
        kind=kind,  # type: ignore[arg-type]  # one of the two
        title=f"{'Plan' if is_plan else 'Merge'} of {', '.join(experts)}",
        facts=tuple(facts),
        commands=tuple(commands),
        models=tuple(_models(explained, plan, labels, held)),
        cells=tuple(_cells(explained.tensors, labels, total, agreed)),
        layers=tuple(_layers(explained.tensors, labels, total, agreed)),
        pairs=tuple(_pairs(agreed, labels)),
        metrics=(*metrics, *noted(repository, revisions)),
        curve=tuple(curve[: len(SHARES)]),
        chosen=CurvePoint(costs.expert_bytes_planned, costs.energy_kept),
        warnings=tuple(_warnings(explained, labels)),
        tensors=tuple(_least_kept(explained.tensors)),
        lineage=() if is_plan else tuple(lineage(repository, [repository.resolve(what)])),
    )


def _least_served(explained: "Explanation", plan: "Plan", labels: Sequence[str]) -> Iterator[Fact]:
    """The expert of which least is kept, of several that are not all read."""
    from mergepipe.plans.cost_table import totals

    costs = explained.costs
    if len(plan.experts) > 1 and costs.blocks_exact != costs.blocks_full:
        served = [totals(costs, place, labels[place]) for place in plan.experts]
        least = min(served, key=lambda one: one.energy_kept)
        yield Fact("least served", f"{least.name}: {least.energy_kept:.1%} of its energy is kept")


def _command(*arguments: str) -> str:
    """A command to copy into a shell, to which a branch's name may be anything."""
    return shlex.join(("mp", *arguments))


def _beside(costs: "CostTable") -> dict[str, float]:
    """Half of the plan's bytes and double, as shares of the exact merge's, where that is more."""
    planned, full = costs.expert_bytes_planned, costs.expert_bytes_full
    if not 0 < planned < full:
        return {}
    share = planned / full
    return {"with half of that": share / 2, "with double": min(1.0, 2 * share)}


def _models(
    explained: "Explanation",
    plan: "Plan",
    labels: Sequence[str],
    held: Mapping[ObjectId, "Holder"],
) -> Iterator[Model]:
    for place, snapshot in enumerate(plan.models):
        parts = [
            part.cost
            for tensor in explained.tensors
            for part in tensor.experts
            if part.cost.model == place
        ]
        energy = sum(part.energy or 0.0 for part in parts)
        kept = sum(part.energy_kept or 0.0 for part in parts)
        yield Model(
            name=labels[place],
            role="expert" if place in plan.experts else "base",
            commit=held[snapshot].commit.hex() if snapshot in held else None,
            snapshot=snapshot.hex(),
            bytes_raw=sum(part.bytes_raw for part in parts),
            bytes_full=sum(part.bytes_full for part in parts),
            bytes_planned=sum(part.bytes_planned for part in parts),
            energy_kept=min(1.0, kept / energy) if energy else None,
        )


def _cells(
    tensors: Sequence["TensorExplanation"],
    labels: Sequence[str],
    total: float,
    agreed: "Mapping[str, Agreement]",
) -> Iterator[Cell]:
    for tensor in tensors:
        if tensor.kept:
            continue
        layer, part = place_of(tensor.name)
        agreement = agreed[tensor.name]
        for row, expert in enumerate(tensor.experts):
            cost = expert.cost
            blocks = (cost.blocks_omitted, cost.blocks_coarse, cost.blocks_exact, cost.blocks_equal)
            yield Cell(
                expert=labels[cost.model],
                tensor=tensor.name,
                layer=layer,
                part=part,
                energy=_rounded(cost.energy / total if cost.energy is not None and total else None),
                read=round(cost.bytes_planned / cost.bytes_full, _DIGITS)
                if cost.bytes_full
                else 0.0,
                kept=_rounded(cost.share_kept if cost.energy is not None else None),
                depth=_DEPTHS[blocks.index(max(blocks))],
                conflict=_rounded(agreement.conflicts[row]),
                cosine=_rounded(agreement.cosines[row]),
            )


def _layers(
    tensors: Sequence["TensorExplanation"],
    labels: Sequence[str],
    total: float,
    agreed: "Mapping[str, Agreement]",
) -> Iterator[Layer]:
    """What all tensors of a layer come to: sums, not means of their shares."""
    from mergepipe.planner.agreement import together

    layers: dict[int, list[TensorExplanation]] = {}
    for tensor in tensors:
        layer = place_of(tensor.name)[0]
        if layer is not None and not tensor.kept:
            layers.setdefault(layer, []).append(tensor)
    for layer, inside in sorted(layers.items()):
        agreement = together(agreed[tensor.name] for tensor in inside)
        for row, place in enumerate(agreement.models):
            costs = [
                part.cost for each in inside for part in each.experts if part.cost.model == place
            ]
            known = [cost for cost in costs if cost.energy is not None]
            energy = sum(cost.energy or 0.0 for cost in known)
            kept = sum(cost.energy_kept or 0.0 for cost in known)
            full = sum(cost.bytes_full for cost in costs)
            yield Layer(
                expert=labels[place],
                layer=layer,
                energy=energy / total if known and total else None,
                read=sum(cost.bytes_planned for cost in costs) / full if full else 0.0,
                kept=min(1.0, max(0.0, kept / energy)) if energy else None,
                conflict=_rounded(agreement.conflicts[row]),
                cosine=_rounded(agreement.cosines[row]),
            )


def _pairs(agreed: "Mapping[str, Agreement]", labels: Sequence[str]) -> Iterator[Pair]:
    """Every two experts, over all tensors."""
    from mergepipe.planner.agreement import together

    whole = together(agreed.values())
    for left, column in combinations(range(len(whole.models)), 2):
        conflict, cosine = whole.pair(left, column)
        if conflict is not None or cosine is not None:
            first, second = (labels[whole.models[row]] for row in (left, column))
            yield Pair(first, second, conflict, cosine)


def _rounded(value: float | None) -> float | None:
    """As many digits as a page of thousands of numbers has room for; none of them is exact."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def place_of(name: str) -> tuple[int | None, str]:
    """The layer that a tensor's name says, and what the tensor is called within a layer."""
    match = _LAYER.search(name)
    if match is None:
        return None, name
    return int(match["number"]), name[match.end() :].removesuffix(".weight")


def _energies(tensors: Iterable["TensorExplanation"]) -> Iterator[float]:
    return (expert.cost.energy or 0.0 for tensor in tensors for expert in tensor.experts)


def _least_kept(tensors: Sequence["TensorExplanation"]) -> Iterator[Tensor]:
    """Those that lose most of their experts' energy, most first."""

    def lost(tensor: "TensorExplanation") -> float:
        return sum(
            (expert.cost.energy or 0.0) - (expert.cost.energy_kept or 0.0)
            for expert in tensor.experts
        )

    merged = sorted((each for each in tensors if not each.kept), key=lost, reverse=True)
    for tensor in merged[:_MOST_TENSORS]:
        energy = sum(_energies([tensor]))
        kept = 1.0 - lost(tensor) / energy if energy else 1.0
        detail = f"{kept:.1%} of its energy kept"
        yield Tensor(tensor.name, detail, tensor.cost.bytes_planned, lost(tensor))


def _warnings(explained: "Explanation", labels: Sequence[str]) -> Iterator[str]:
    if explained.costs.energy_kept < 0.5:
        yield f"Only {explained.costs.energy_kept:.0%} of the energy of all changes is kept."
    unknown = {
        labels[expert.cost.model]
        for tensor in explained.tensors
        if not tensor.kept
        for expert in tensor.experts
        if expert.cost.energy is None
    }
    if unknown:
        yield f"Without a profile, and so without energies: {', '.join(sorted(unknown))}."


def _read(planned: int, full: int) -> str:
    return format_size(planned) + (f", {planned / full:.1%} of that" if full else "")


def _of_difference(
    repository: Repository, before: str, after: str, metrics: Sequence[Metric]
) -> Report:
    difference = repository.diff(before, after)
    changed = [each for each in difference.tensors if str(each.change) != "same"]
    moved = sorted(changed, key=lambda each: -(each.relative_l2 or 0.0))
    ends = [(each, repository.resolve(each)) for each in (before, after)]
    facts = (
        Fact("from", before),
        Fact("to", after),
        Fact("tensors", f"{len(difference.tensors):,}"),
        Fact("changed", f"{len(changed):,}"),
    )
    return Report(
        kind="difference",
        title=f"{before} to {after}",
        facts=facts,
        commands=(_command("diff", before, after),),
        tensors=tuple(
            Tensor(each.name, str(each.change), 0, each.relative_l2)
            for each in moved[:_MOST_TENSORS]
        ),
        metrics=(*metrics, *noted(repository, ends)),
        lineage=tuple(lineage(repository, [commit for _, commit in ends])),
    )


def _of_repository(repository: Repository, metrics: Sequence[Metric]) -> Report:
    usage = repository.usage()
    facts = (
        Fact("models", f"{len(usage.models):,}"),
        Fact("as files", format_size(usage.raw_bytes)),
        Fact("saved by equal blocks", format_size(usage.dedup_saved_bytes)),
        Fact("saved by encoding", format_size(usage.coding_saved_bytes)),
        Fact("packs", format_size(usage.packs_bytes)),
    )
    branches = repository.branches()
    tips = list(branches.values())
    return Report(
        kind="repository",
        title=repository.directory.parent.name,
        facts=facts,
        commands=("mp du", "mp log --all --graph"),
        lineage=tuple(lineage(repository, tips)),
        storage=tuple(storage(usage)),
        metrics=(*metrics, *noted(repository, list(branches.items()))),
        growth=tuple(growth(repository, tips)),
    )
