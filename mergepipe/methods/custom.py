"""A merge method of your own, from one function of tensors (docs/methods.md, "Adding one").

    @elementwise_method("median", summary="the base plus the median of the deltas")
    def MEDIAN(base, deltas, weights, values):
        return torch.stack(deltas).median(dim=0).values

A package offers it by an entry point of the group `mergepipe.methods`; `conformance.check` says
whether it keeps a method's promises.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from mergepipe.methods.parameters import Parameter, Settings
from mergepipe.methods.protocol import Method, NeedValues, Output, Scope, Sweep
from mergepipe.methods.terms import ExpertScalars, Scalars, Unit

if TYPE_CHECKING:
    import torch

    Merged: TypeAlias = Callable[
        [torch.Tensor, list[torch.Tensor], list[float], dict[str, float]], torch.Tensor
    ]

WEIGHT = Parameter(name="weight", default=1.0, meaning="of the expert", per_expert=True)


def elementwise_method(
    name: str,
    *,
    summary: str,
    source: str = "",
    parameters: tuple[Parameter, ...] = (),
    omitted_is_noop: bool = True,
    minimum_models: int = 1,
    version: int = 1,
) -> "Callable[[Merged], Method]":
    """Make a method of a function that merges each element by itself.

    The function gets the base (n,), a list of deltas (n,) from it, one an expert, the experts'
    weights, and the values of `parameters` (numbers for all experts) by name; it returns what is to
    be added to the base. Tensors are float32 (float64 where an input is), on the device that the
    merge runs on. It must give every element the same whatever others come with it, and must not
    change what it gets: ranges are cut as it suits the reader, and run in any order.

    omitted_is_noop  whether nothing is added where all deltas are 0, so that blocks which no expert
                     changes are the base's, unread
    version          raise it whenever the same inputs would give other bytes
    """
    declared = (WEIGHT, *parameters)

    def resolve(settings: Settings, values: NeedValues, shares: Sequence[float]) -> Scalars:
        weights = [settings.number("weight", place) for place in range(len(settings.experts))]
        extras = tuple(float(settings.number(each.name)) for each in parameters)
        return Scalars(tuple(ExpertScalars(weight) for weight in weights), extras=extras)

    def method_of(function: "Merged") -> Method:
        def run(unit: Unit, out: Output, device: str) -> None:
            from mergepipe.methods.eager.operands import (
                base_values,
                compute_dtype,
                deltas,
                write_added,
            )

            compute = compute_dtype(unit)
            base = base_values(unit, compute, device)
            values = dict(zip((each.name for each in parameters), unit.scalars.extras, strict=True))
            weights = [each.weight for each in unit.scalars.experts]
            differences = list(deltas(unit, base, compute, device))
            write_added(base, function(base, differences, weights, values), unit, out)

        return Method(
            name=name,
            summary=summary,
            source=source,
            scope=Scope.ELEMENT,
            needs_base=True,
            omitted_is_noop=omitted_is_noop,
            parameters=declared,
            sweep=Sweep(name, run),
            resolve_with=resolve,
            minimum_models=minimum_models,
            version=version,
        )

    return method_of
