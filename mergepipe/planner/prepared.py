"""The lines of a merge made ready for planning: what is only copied is known, the idle is gone.

A line that comes to a tensor which is there already is that tensor, for its file and for the lines
that take it in. Lines that no file needs then are left out.
"""

from collections.abc import Sequence

from msgspec import structs

from mergepipe.ids import ObjectId
from mergepipe.methods.sweeps import WEIGHTED_SUM
from mergepipe.objects.merging import LinePlan, PlanInput, TermKind
from mergepipe.objects.store import Tensors
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.planner.resolution import supposed
from mergepipe.plans.trees import taken

_ROUNDING = 1e-12


def prepare(merge: Merge, tensors: Tensors) -> list[tuple[Line, LinePlan]]:
    """The lines to plan, each after those it takes in, with all of its plan but depths and numbers.

    `merge` has been checked.
    """
    lines: list[tuple[Line, LinePlan]] = []
    places: dict[int, PlanInput] = {}
    for number, line in enumerate(merge.lines):
        plan = _prepared(line, places, tensors)
        if plan.file is None and plan.copied is not None:
            places[number] = _origin(plan)
        else:
            places[number] = PlanInput(-1, len(lines))
            lines.append((line, plan))
    return _needed(lines)


def _prepared(line: Line, places: dict[int, PlanInput], tensors: Tensors) -> LinePlan:
    def resolved(term: LineInput) -> PlanInput:
        if isinstance(term.source, Made):
            at = places[term.source.line]
            return PlanInput(at.model, at.source, term.kind, term.factors)
        return PlanInput(term.model, term.source, term.kind, term.factors)

    inputs = tuple(resolved(term) for term in line.inputs)
    base = None if line.base is None else resolved(line.base)
    copied = None
    if line.copied or not tensors[line.like].blocks:
        copied = next((term.stored for term in inputs if term.stored is not None), line.like)
    elif not _changed(inputs, base):
        copied = _same(line, inputs, base, tensors)
    return LinePlan(
        line.file,
        line.name,
        line.like,
        line.dtype.name,
        line.method.name,
        line.method.version,
        base,
        inputs,
        copied,
    )


def _changed(inputs: Sequence[PlanInput], base: PlanInput | None) -> bool:
    """Whether any of them is more than a stored tensor, as it stands."""
    everything = inputs if base is None else (base, *inputs)
    return any(
        term.kind is not TermKind.FULL or term.factors is not None or term.made is not None
        for term in everything
    )


def _same(
    line: Line, inputs: Sequence[PlanInput], base: PlanInput | None, tensors: Tensors
) -> ObjectId | None:
    """The tensor that the output is, if merging would only copy it; by identity alone."""
    reference = base.stored if base is not None else inputs[0].stored
    if line.method.sweep is WEIGHTED_SUM and len(inputs) == 1:
        reference = inputs[0].stored  # passed through, whatever the base is
    if reference is None or tensors[reference].dtype != line.dtype.name:
        return None
    if any(term.stored not in (None, reference) for term in inputs):
        return None
    if line.method.omitted_is_noop and base is not None:
        return reference
    if line.method.sweep is not WEIGHTED_SUM:
        return None
    # A mean of equals is what they are.
    needs = line.method.needs(line.settings)
    scalars = line.method.resolve(line.settings, supposed(needs, {}, len(inputs)))
    total = sum(expert.weight for expert in scalars.experts)
    return reference if scalars.normalize or abs(total - 1.0) < _ROUNDING else None


def _origin(plan: LinePlan) -> PlanInput:
    """The stored tensor that a copied line is, and whose it is."""
    for term in taken(plan):
        if term.stored == plan.copied:
            return PlanInput(term.model, plan.copied)
    return PlanInput(-1, plan.copied)


def _needed(lines: Sequence[tuple[Line, LinePlan]]) -> list[tuple[Line, LinePlan]]:
    """The lines that files need, with the numbers they then have."""
    plans = [plan for _, plan in lines]
    wanted = {number for number, plan in enumerate(plans) if plan.file is not None}
    for number in reversed(range(len(plans))):
        if number in wanted and plans[number].copied is None:
            wanted.update(term.made for term in taken(plans[number]) if term.made is not None)
    numbers = {old: new for new, old in enumerate(sorted(wanted))}
    if len(numbers) == len(lines):
        return list(lines)

    def renumbered(term: PlanInput) -> PlanInput:
        return term if term.made is None else structs.replace(term, source=numbers.get(term.made))

    needed = []
    for old in numbers:
        line, plan = lines[old]
        plan = structs.replace(
            plan,
            base=None if plan.base is None else renumbered(plan.base),
            inputs=tuple(renumbered(term) for term in plan.inputs),
        )
        needed.append((line, plan))
    return needed
