"""Which models a slice has, and what each of them is to the method.

One is the base, others are what the method takes; a model that nothing is merged into stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mergepipe.errors import MergeInputError, MergepipeError
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.planner.mergekit.document import Place
from mergepipe.planner.mergekit.inventory import Inventory
from mergepipe.planner.mergekit.roles import BaseRole, base_required, base_role
from mergepipe.planner.mergekit.schema import (
    NO_PARAMETERS,
    LayerRange,
    ModelName,
    Module,
    OutputSlice,
    Parameters,
    Stage,
)

# A model of a slice by its name; the second is what an adapter by itself is laid on.
Finder: TypeAlias = Callable[[ModelName, ModelName | None], Inventory]


@dataclass(frozen=True, slots=True)
class Member:
    """A model in a slice: the layers it gives (None: all), and its own parameters.

    number  tells it from the others: one model may be there twice
    """

    number: int
    name: ModelName
    inventory: Inventory
    layers: LayerRange | None
    own: Parameters
    place: Place

    @property
    def begin(self) -> int:
        """The first of its layers."""
        return 0 if self.layers is None else self.layers.begin


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice with its models; `inputs` are what the method takes, in order.

    alone  there is one input, which the method has nothing to merge with
    """

    part: OutputSlice
    inputs: tuple[Member, ...]
    base: Member | None
    reference: Member
    layers: int
    alone: bool = False

    @property
    def everyone(self) -> tuple[Member, ...]:
        """Inputs and base."""
        return self.inputs if self.base is None else (*self.inputs, self.base)


class Slicing:
    """Looks up the models of a stage's slices.

    Raises MergeInputError with the line: no base where the method needs one, a base that a slice
    lacks, adapters where whole models are needed, too few models or too many.
    """

    def __init__(self, stage: Stage, method: Method, find: Finder, source: str) -> None:
        self._stage = stage
        self._method = method
        self._find = find
        self._source = source

    def of(self, module: Module) -> list[Slice]:
        """The slices of a module, in their order."""
        return [self._slice(part, whole=module.whole) for part in module.slices]

    def _slice(self, part: OutputSlice, *, whole: bool) -> Slice:
        named = part.base or self._stage.base
        role = base_role(self._method)
        if named is None and base_required(self._method):
            raise self._refused(
                part.place,
                f"method {self._method.name} needs a base_model",
                "say which model is the base",
            )
        members: list[Member] = []
        for number, source in enumerate(part.sources):
            inventory = self._find(source.model, named)
            members.append(
                Member(
                    number=number,
                    name=source.model,
                    inventory=inventory,
                    layers=source.layers,
                    own=source.parameters,
                    place=source.place,
                )
            )
        bases = [member for member in members if member.name == named]
        if len(bases) > 1 and role is BaseRole.REFERENCE:
            raise self._refused(
                bases[1].place,
                f"the base {quoted(str(named))} is named twice",
                "differences are taken from one base: name it once in a slice",
            )
        base = bases[0] if bases else None
        if base is None and named is not None:
            if whole:
                inventory = self._find(named, None)
                place = self._stage.place
                base = Member(
                    number=len(members),
                    name=named,
                    inventory=inventory,
                    layers=None,
                    own=NO_PARAMETERS,
                    place=place,
                )
                members.append(base)
            elif role is BaseRole.REFERENCE or (role is BaseRole.FIRST and len(members) > 1):
                raise self._refused(
                    part.place,
                    f"the base {quoted(str(named))} is not among the sources of a slice",
                    "list it there with the layer_range that it gives",
                )
        inputs = self._inputs(members, base, role)
        reference = base if base is not None and not base.inventory.changes_only else None
        if reference is None:
            reference = next(
                (candidate for candidate in members if not candidate.inventory.changes_only), None
            )
        if reference is None:
            raise self._refused(
                part.place, "a slice has only adapters", "name a base_model for them"
            )
        alone = self._alone(inputs, base, role)
        if alone is not None:
            return Slice(
                part=part, inputs=(alone,), base=None, reference=reference, layers=0, alone=True
            )
        try:
            self._method.check_models(
                len(inputs), base=base is not None and role is BaseRole.REFERENCE
            )
        except MergeInputError as error:
            raise self._refused(part.place, error.message, error.hint) from error
        if role is not BaseRole.REFERENCE:
            self._check_adapters(inputs)
            base = None
        return Slice(part=part, inputs=inputs, base=base, reference=reference, layers=0)

    def _alone(
        self, inputs: Sequence[Member], base: Member | None, role: BaseRole
    ) -> Member | None:
        """The model of a slice that nothing is merged into.

        A base without task vectors is the result itself, and so is the one model of a method that
        finds a way between several.
        """
        if role is BaseRole.REFERENCE and base is not None:
            return None if inputs else base
        only = inputs[0] if len(inputs) == 1 and self._method.minimum_models > 1 else None
        return None if only is None or only.inventory.changes_only else only

    def _inputs(
        self, members: Sequence[Member], base: Member | None, role: BaseRole
    ) -> tuple[Member, ...]:
        others = tuple(member for member in members if member is not base)
        if role is BaseRole.REFERENCE:
            return others
        if role is BaseRole.FIRST and base is not None:
            return (base, *others)
        return tuple(members)

    def _check_adapters(self, inputs: Sequence[Member]) -> None:
        for member in inputs:
            if member.inventory.changes_only:
                raise self._refused(
                    member.place,
                    f"{quoted(member.inventory.label)} is an adapter, and method "
                    f"{self._method.name} takes whole models",
                    "write model+adapter",
                )

    def _refused(self, place: Place, message: str, hint: str) -> MergepipeError:
        return MergeInputError(f"{self._source}, line {place.line}: {message}", hint)
