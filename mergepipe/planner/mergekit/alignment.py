"""Which tensors come together: the output of a stage, row by row.

Slices stack layers: layer j of a slice is made of layer `begin + j` of each source. What stands
before the layers comes from a module's first slice, what stands after them from its last (one of
no layers chooses the head alone). mergekit 0.1.5, by its behaviour.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mergepipe.errors import MergeInputError, MergepipeError
from mergepipe.formats.architecture import Section, Stack
from mergepipe.methods.parameters import nearest
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.planner.mergekit.document import Place
from mergepipe.planner.mergekit.inventory import Held, Inventory, Keys
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
from mergepipe.planner.mergekit.settings import Position

_MOST_NAMED = 3
# Parameters of slice, module and recipe, the nearest first.
Levels: TypeAlias = tuple[Parameters, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's tensor for a row. `held` is None where it lacks it, and that is allowed."""

    inventory: Inventory
    name: str
    held: Held | None
    own: Parameters


@dataclass(frozen=True, slots=True)
class Row:
    """An output tensor: what it is made of, where it stands, and what is said of its slice.

    layer   of the output; -1 outside of layers
    origin  the model whose layer it stands in for, and the layer's number there (-1: none)
    order   place in the files of that model
    """

    name: str
    module: str
    cells: tuple[Cell, ...]
    base: Cell | None
    position: Position
    shared: Levels
    layer: int
    origin: tuple[Inventory, int]
    order: int


@dataclass(frozen=True, slots=True)
class _Member:
    """A model in a slice: the layers it gives (None: all), and its own parameters."""

    name: ModelName
    inventory: Inventory
    layers: LayerRange | None
    own: Parameters
    place: Place

    @property
    def begin(self) -> int:
        return 0 if self.layers is None else self.layers.begin


@dataclass(frozen=True, slots=True)
class _Slice:
    """A slice with its models; `inputs` are what the method takes, in order."""

    part: OutputSlice
    inputs: tuple[_Member, ...]
    base: _Member | None
    reference: _Member
    layers: int

    @property
    def everyone(self) -> tuple[_Member, ...]:
        return self.inputs if self.base is None else (*self.inputs, self.base)


@dataclass(frozen=True, slots=True)
class _Spot:
    """What the rows of one layer, or of what is before or after the layers, have in common."""

    module: str
    position: Position
    levels: Levels
    origin: tuple[Inventory, int]
    stack: Stack | None = None
    number: int = -1


# A model of a slice by its name; the second is what an adapter by itself is laid on.
Finder = Callable[[ModelName, ModelName | None], Inventory]


def align(
    stage: Stage, method: Method, find: Finder, source: str, *, allow_missing: bool = False
) -> list[Row]:
    """The rows of a stage's output, in the order of its files.

    Raises MergeInputError: modules, layers, bases, numbers of models or tensors that do not fit.
    `allow_missing`: tensors that a model lacks count as the base's, and those only it has are left
    out.
    """
    return _Alignment(stage, method, find, source, allow_missing).rows()


class _Alignment:
    def __init__(
        self, stage: Stage, method: Method, find: Finder, source: str, allow_missing: bool
    ) -> None:
        self._stage = stage
        self._method = method
        self._find = find
        self._source = source
        self._allow_missing = allow_missing
        self._orders: dict[str, dict[str, int]] = {}

    def rows(self) -> list[Row]:
        only = self._stage.modules.get(None)
        found: list[Row] = []
        if only is None:
            modules = {str(name): module for name, module in self._stage.modules.items()}
            slices = {name: self._slices(module) for name, module in modules.items()}
            known = self._check_modules(slices, next(iter(modules.values())))
            for name in known:
                found += self._module(name, modules[name], slices[name], own=True)
            single = all(module.whole for module in modules.values())
        else:
            parts = self._slices(only)
            known = parts[0].reference.inventory.architecture.modules
            if len(known) > 1 and not only.whole:
                raise self._refused(
                    only.place,
                    f"{quoted(parts[0].reference.inventory.label)} has several modules: "
                    f"{', '.join(known)}",
                    "say which of them the slices are of, under modules:",
                )
            for name in known:
                found += self._module(name, only, parts, own=False)
            single = only.whole
        # Whole models keep the order of the files, in which they are read fastest.
        return sorted(found, key=lambda row: row.order) if single else found

    def _check_modules(self, slices: dict[str, list[_Slice]], first: Module) -> tuple[str, ...]:
        """The modules of the models, in their order; each must be in the recipe."""
        inventory = next(iter(slices.values()))[0].reference.inventory
        known = inventory.architecture.modules
        for name in slices:
            if name not in known:
                raise self._refused(
                    first.place,
                    f"{quoted(inventory.label)} has no module {quoted(name)}",
                    nearest(name, known),
                )
        missing = [name for name in known if name not in slices]
        if missing:
            raise self._refused(
                first.place,
                f"the recipe says nothing of module {quoted(missing[0])}",
                "the result could not be loaded without it: name models for it",
            )
        return known

    def _slices(self, module: Module) -> list[_Slice]:
        return [self._slice(part, whole=module.whole) for part in module.slices]

    def _slice(self, part: OutputSlice, *, whole: bool) -> _Slice:
        named = part.base or self._stage.base
        role = base_role(self._method)
        if named is None and base_required(self._method):
            raise self._refused(
                part.place,
                f"method {self._method.name} needs a base_model",
                "say which model is the base",
            )
        members: list[_Member] = []
        for one in part.sources:
            if any(one.model == member.name for member in members):
                raise self._refused(
                    one.place, f"{quoted(str(one.model))} is named twice", "name each model once"
                )
            members.append(
                _Member(
                    one.model, self._find(one.model, named), one.layers, one.parameters, one.place
                )
            )
        base = next((member for member in members if member.name == named), None)
        if base is None and named is not None:
            if whole:
                base = _Member(
                    named, self._find(named, None), None, NO_PARAMETERS, self._stage.place
                )
                members.append(base)
            elif role is not BaseRole.INPUT:
                raise self._refused(
                    part.place,
                    f"the base {quoted(str(named))} is not among the sources of a slice",
                    "list it there with the layer_range that it gives",
                )
        inputs = self._inputs(members, base, role)
        reference = base if base is not None and not base.inventory.changes_only else None
        if reference is None:
            reference = next((one for one in members if not one.inventory.changes_only), None)
        if reference is None:
            raise self._refused(
                part.place, "a slice has only adapters", "name a base_model for them"
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
        return _Slice(part, inputs, base, reference, 0)

    def _inputs(
        self, members: Sequence[_Member], base: _Member | None, role: BaseRole
    ) -> tuple[_Member, ...]:
        others = tuple(member for member in members if member is not base)
        if role is BaseRole.REFERENCE:
            return others
        if role is BaseRole.FIRST and base is not None:
            return (base, *others)
        return tuple(members)

    def _check_adapters(self, inputs: Sequence[_Member]) -> None:
        for member in inputs:
            if member.inventory.changes_only:
                raise self._refused(
                    member.place,
                    f"{quoted(member.inventory.label)} is an adapter, and method "
                    f"{self._method.name} takes whole models",
                    "write model+adapter",
                )

    def _module(
        self, name: str, module: Module, parts: Sequence[_Slice], *, own: bool
    ) -> Iterator[Row]:
        shared = (module.parameters, self._stage.parameters) if own else (self._stage.parameters,)
        first = 0
        for number, part in enumerate(parts):
            slice_ = replace(part, layers=self._count(name, part))
            levels = (part.part.parameters, *shared)
            if number == 0:
                yield from self._outside(name, slice_, Section.BEFORE, levels)
            stack = parts[0].reference.inventory.architecture.stacks.get(name)
            if stack is not None:
                for layer in range(slice_.layers):
                    yield from self._layer(name, slice_, layer, first + layer, stack, levels)
            first += slice_.layers
            if number == len(parts) - 1:
                yield from self._outside(name, slice_, Section.AFTER, levels)

    def _count(self, module: str, part: _Slice) -> int:
        """How many layers a slice has; all its models agree."""
        counts = []
        for member in part.everyone:
            if member.inventory.changes_only and member.layers is None:
                continue
            has = member.inventory.architecture.layers(module)
            if member.layers is not None and member.layers.end > has:
                raise self._refused(
                    member.place,
                    f"layer_range {member.layers} of {quoted(member.inventory.label)}, which has "
                    f"{has} layers",
                    f"its layers are [0, {has}]",
                )
            counts.append((has if member.layers is None else len(member.layers), member))
        for count, member in counts:
            if count != counts[0][0]:
                raise self._refused(
                    member.place,
                    f"{quoted(counts[0][1].inventory.label)} gives {counts[0][0]} layers to a "
                    f"slice, {quoted(member.inventory.label)} {count}",
                    "all models of a slice give the same number of layers",
                )
        return counts[0][0]

    def _layer(
        self, module: str, part: _Slice, layer: int, number: int, stack: Stack, levels: Levels
    ) -> Iterator[Row]:
        keys = {
            member.name: member.inventory.section(module, Section.LAYER, member.begin + layer)
            for member in part.everyone
        }
        origin = part.reference.inventory, part.reference.begin + layer
        position = Position(layer, part.layers)
        yield from self._rows_of(part, keys, _Spot(module, position, levels, origin, stack, number))

    def _outside(
        self, module: str, part: _Slice, section: Section, levels: Levels
    ) -> Iterator[Row]:
        keys = {
            member.name: dict(member.inventory.section(module, section)) for member in part.everyone
        }
        if section is Section.AFTER:
            self._add_tied_heads(part, keys)
        origin = part.reference.inventory, -1
        yield from self._rows_of(part, keys, _Spot(module, Position(), levels, origin))

    def _add_tied_heads(self, part: _Slice, keys: dict[ModelName, dict[str, str]]) -> None:
        """Models that share their embeddings give them as the head, if another has its own."""
        heads = [
            member.inventory.head
            for member in part.everyone
            if member.inventory.head in keys[member.name]
        ]
        if not heads or heads[0] is None:
            return
        for member in part.everyone:
            tied = member.inventory.tied_head
            if heads[0] not in keys[member.name] and tied is not None:
                keys[member.name][heads[0]] = tied

    def _rows_of(self, part: _Slice, keys: Mapping[ModelName, Keys], spot: _Spot) -> Iterator[Row]:
        """A row for each tensor of the reference, once the other models were seen to have it."""
        reference = keys[part.reference.name]
        for member in part.everyone:
            if member is not part.reference and not member.inventory.changes_only:
                self._check_keys(part, member, keys[member.name], reference)
        for key, name in reference.items():
            cells = {
                member.name: self._cell(member, keys[member.name].get(key), key, spot)
                for member in part.everyone
            }
            yield Row(
                spot.stack.name(spot.number, key) if spot.stack is not None else key,
                spot.module,
                tuple(cells[member.name] for member in part.inputs),
                None if part.base is None else cells[part.base.name],
                spot.position,
                spot.levels,
                spot.number,
                spot.origin,
                self._order(part.reference.inventory, name, tied=name != key),
            )

    def _cell(self, member: _Member, name: str | None, key: str, spot: _Spot) -> Cell:
        held = None if name is None else member.inventory.tensors[name]
        # Filters know shared embeddings by the name that the head has elsewhere.
        shown = key if spot.stack is None or name is None else name
        return Cell(member.inventory, shown, held, member.own)

    def _check_keys(self, part: _Slice, member: _Member, mine: Keys, reference: Keys) -> None:
        label, other = member.inventory.label, part.reference.inventory.label
        missing = [name for key, name in reference.items() if key not in mine]
        if missing and not (self._allow_missing and part.base is not None):
            raise self._refused(
                member.place,
                f"{quoted(label)} lacks {_some(missing)}, which {quoted(other)} has",
                "merge models of one architecture, or let missing tensors count as the base's",
            )
        extra = [name for key, name in mine.items() if key not in reference]
        if extra and not self._allow_missing:
            raise self._refused(
                member.place,
                f"{quoted(label)} has {_some(extra)}, which {quoted(other)} lacks",
                "merge models of one architecture, or let such tensors be left out",
            )

    def _order(self, inventory: Inventory, name: str, *, tied: bool) -> int:
        orders = self._orders.get(inventory.label)
        if orders is None:
            orders = {name: 2 * place for place, name in enumerate(inventory.tensors)}
            self._orders[inventory.label] = orders
        return orders[name] + tied

    def _refused(self, place: Place, message: str, hint: str) -> MergepipeError:
        return MergeInputError(f"{self._source}, line {place.line}: {message}", hint)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"tensor {shown}" + (f" and {more} more" if more > 0 else "")
