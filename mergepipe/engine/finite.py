"""Values that are no finite number, in what a merge takes in and makes: named, and refused."""

from collections.abc import Mapping, Sequence
from math import prod

from msgspec import Struct

from mergepipe.catalog.finiteness import Finiteness, NonFinite, NonFiniteInput, taken_in
from mergepipe.engine.streaming import Streamed
from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.merging import Plan, PlanInput
from mergepipe.objects.store import ObjectStore

_TOLD = 5  # tensors that an error names


class NonFiniteValues(Struct, frozen=True):
    """Tensors with values that are infinite or NaN: of the inputs, and of what was made."""

    inputs: tuple[NonFiniteInput, ...] = ()
    output: tuple[NonFinite, ...] = ()


def uncounted_places(plan: Plan, finiteness: Finiteness) -> frozenset[tuple[int, int]]:
    """Inputs, as (line, place; -1 for the base), of models that nobody counted yet."""
    unknown = finiteness.unknown(plan.models[one.model] for _, one in taken_in(plan))
    if not unknown:
        return frozenset()
    return frozenset(
        (number, place)
        for number, line in enumerate(plan.lines)
        for place, one in enumerate((line.base, *line.inputs), -1)
        if one is not None and one.model >= 0 and plan.models[one.model] in unknown
    )


def values_of(
    plan: Plan, known: Sequence[NonFiniteInput], streamed: Streamed, objects: ObjectStore
) -> NonFiniteValues:
    """What was known before, and what came to light while the plan's tensors were made."""
    seen: dict[tuple[int, str], NonFiniteInput] = {}
    for (number, place), count in streamed.taken_in.items():
        line = plan.lines[number]
        one = line.base if place < 0 else line.inputs[place]
        assert one is not None
        file, name = _place(plan, one, objects)
        elements = prod(objects.tensor(line.like).shape)
        # A line that several others take in may have been made for each of them.
        values = NonFinite(file, name or line.name, min(count, elements), elements)
        seen[one.model, values.tensor] = NonFiniteInput(one.model, values)
    output = [
        NonFinite(
            plan.lines[number].file or "",
            plan.lines[number].name,
            count,
            prod(objects.tensor(plan.lines[number].like).shape),
        )
        for number, count in sorted(streamed.nonfinite.items())
    ]
    return NonFiniteValues((*known, *seen.values()), tuple(output))


def counts_of_output(plan: Plan, streamed: Streamed) -> Mapping[ObjectId, int]:
    """The counts of a merge's own tensors, where all that went in was finite."""
    numbers = [number for number, line in enumerate(plan.lines) if line.file is not None]
    return {
        tensor: streamed.nonfinite.get(number, 0)
        for number, tensor in zip(numbers, streamed.tensors, strict=True)
    }


def refuse_inputs(inputs: Sequence[NonFiniteInput], names: Sequence[str]) -> None:
    """Raise MergeInputError if there are any; `names`: of the plan's models."""
    if not inputs:
        return
    culprits = list(dict.fromkeys(names[one.model] for one in inputs))
    raise MergeInputError(
        "values that are not finite (NaN or infinite) would go into the merge: "
        + listed_values([f"{names[one.model]}: {told(one.values)}" for one in inputs]),
        f"mend {', '.join(quoted(name) for name in culprits)}; "
        "--allow-nonfinite (allow_nonfinite=True) merges them all the same",
    )


def refuse_output(values: NonFiniteValues, dtypes: Sequence[str]) -> None:
    """Raise MergeInputError if a result is not finite; `dtypes`: those of the output."""
    if not values.output:
        return
    narrow = " (float16 ends at 65,504: bfloat16 or float32 reach further)"
    raise MergeInputError(
        "the result would hold values that are not finite (overflow or NaN): "
        + listed_values([told(one) for one in values.output])
        + "; nothing was committed",
        "choose another --out-dtype, or dtype of the recipe"
        + (narrow if "F16" in dtypes else "")
        + "; --allow-nonfinite (allow_nonfinite=True) keeps the result all the same",
    )


def told(values: NonFinite) -> str:
    """`192 of 3,072 values of lm_head.weight`."""
    return f"{values.count:,} of {values.elements:,} values of {quoted(values.tensor)}"


def listed_values(texts: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(texts) - _TOLD:,} more tensors" if len(texts) > _TOLD else ""
    return "; ".join(texts[:_TOLD]) + more


def _place(plan: Plan, one: PlanInput, objects: ObjectStore) -> tuple[str, str]:
    """The file and name that an input's model has for its tensor."""
    for file, entry in objects.snapshot(plan.models[one.model]).named_tensors():
        if entry.tensor == one.stored:
            return file.path, entry.name
    return "", ""
