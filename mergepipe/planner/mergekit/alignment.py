"""Which tensors come together: the output of a stage, row by row.

Slices stack layers: layer j of a slice is made of layer `begin + j` of each source. What stands
before the layers comes from a module's first slice, what stands after them from its last (one of
no layers chooses the head alone). mergekit 0.1.5, by its behaviour.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mergepipe.errors import MergeInputError, MergepipeError
from mergepipe.formats.architecture import DEFAULT, Section, Stack, may_be_empty
from mergepipe.formats.weight_names import same_weights
from mergepipe.methods.parameters import nearest
from mergepipe.methods.protocol import Method
from mergepipe.names import quoted
from mergepipe.planner.mergekit.document import Place
from mergepipe.planner.mergekit.inventory import Inventory, Keys
from mergepipe.planner.mergekit.rows import Cell, Levels, Row
from mergepipe.planner.mergekit.schema import Module, Stage
from mergepipe.planner.mergekit.settings import Position
from mergepipe.planner.mergekit.slices import Finder, Member, Slice, Slicing
from mergepipe.planner.name_matching import check_missing, respelling_note
from mergepipe.plans.left_out import LeftOut, collected

_RANGES = "layer_range counts from the first layer up to, but without, the end: [3, 4] is layer 3"


@dataclass(frozen=True, slots=True)
class _Spot:
    """What the rows of one layer, or of what is before or after the layers, have in common."""

    module: str
    position: Position
    levels: Levels
    origin: tuple[Inventory, int]
    stack: Stack | None = None
    number: int = -1


@dataclass(frozen=True, slots=True)
class Aligned:
    """The rows of a stage's output, in the order of its files, and what a person should know.

    warnings  with the line of the recipe that they are of
    notes     of the whole stage
    """

    rows: list[Row]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def align(
    stage: Stage, method: Method, find: Finder, source: str, *, allow_missing: bool = False
) -> Aligned:
    """The rows of a stage's output.

    Raises MergeInputError: modules, layers, bases, numbers of models or tensors that do not fit.
    `allow_missing`: tensors that a model lacks count as the base's, and those only it has are left
    out.
    """
    return _Alignment(stage, method, find, source, allow_missing).aligned()


class _Alignment:
    def __init__(
        self, stage: Stage, method: Method, find: Finder, source: str, allow_missing: bool
    ) -> None:
        self._stage = stage
        self._slicing = Slicing(stage, method, find, source)
        self._source = source
        self._allow_missing = allow_missing
        self._orders: dict[str, dict[str, int]] = {}
        self._renamed: dict[tuple[str, str], dict[str, str]] = {}
        self._left_out: list[LeftOut] = []
        self.warnings: list[str] = []

    def aligned(self) -> Aligned:
        rows = self._rows()
        notes = [respelling_note(*pair, renamed) for pair, renamed in self._renamed.items()]
        return Aligned(rows, tuple(self.warnings), tuple(notes), collected(self._left_out))

    def _rows(self) -> list[Row]:
        only = self._stage.modules.get(None)
        aligned: list[Row] = []
        if only is None:
            modules = {str(name): module for name, module in self._stage.modules.items()}
            slices = {name: self._slicing.of(module) for name, module in modules.items()}
            for name in self._check_modules(slices, modules):
                aligned += self._module(name, modules[name], slices[name], own=True)
            single = all(module.whole for module in modules.values())
        else:
            parts = self._slicing.of(only)
            known = parts[0].reference.inventory.architecture.modules
            if len(known) > 1 and not only.whole:
                raise self._refused(
                    only.place,
                    f"{quoted(parts[0].reference.inventory.label)} has several modules: "
                    f"{', '.join(known)}",
                    "say which of them the slices are of, under modules:",
                )
            self._check_other_modules(parts)
            for name in known:
                aligned += self._module(name, only, parts, own=False)
            single = only.whole
        # Whole models keep the order of the files, in which they are read fastest.
        return sorted(aligned, key=lambda row: row.order) if single else aligned

    def _check_modules(
        self, slices: Mapping[str, Sequence[Slice]], modules: Mapping[str, Module]
    ) -> list[str]:
        """The modules to make, in the order of the models; each must be in the recipe.

        They are those of the model that has most of them: a language model may lend its layers to
        the text decoder of a larger one.
        """
        references = [part.reference for parts in slices.values() for part in parts]
        whole = max(references, key=lambda one: sum(map(one.inventory.has, slices))).inventory
        known = whole.architecture.modules
        for name in slices:
            place = modules[name].place
            if name in known:
                continue
            if not may_be_empty(name):
                message = f"{quoted(whole.label)} has no module {quoted(name)}"
                raise self._refused(place, message, nearest(name, known))
            self.warnings.append(
                f"{self._source}, line {place.line}: {quoted(whole.label)} has no tensors of a "
                f"module {quoted(name)}: what is said of it has no effect"
            )
        for name in known:
            if name not in slices:
                raise self._refused(
                    next(iter(modules.values())).place,
                    f"the recipe says nothing of module {quoted(name)}",
                    "the result could not be loaded without it: name models for it",
                )
            for part in slices[name]:
                if name not in part.reference.inventory.architecture.modules:
                    raise self._refused(
                        part.reference.place,
                        f"{quoted(part.reference.inventory.label)} has no module {quoted(name)} "
                        "to name its tensors by",
                        f"make {quoted(whole.label)} the base_model, or the first of its models",
                    )
        return list(known)

    def _check_other_modules(self, parts: Sequence[Slice]) -> None:
        """Modules that the reference lacks: left out where a language model is made, and told."""
        for part in parts:
            reference = part.reference.inventory
            for member in part.everyone:
                other = member.inventory
                extra = [
                    name
                    for name, spot in other.architecture.spots.items()
                    if not reference.has(spot.module)
                ]
                if not extra or other.changes_only:
                    continue
                text = reference.is_text_of(other)
                self._check_missing(part, member, [], extra, leave_out=text)

    def _module(
        self, name: str, module: Module, parts: Sequence[Slice], *, own: bool
    ) -> Iterator[Row]:
        shared = (module.parameters, self._stage.parameters) if own else (self._stage.parameters,)
        first = 0
        counts = [self._count(name, part) for part in parts]
        self._check_layers(name, parts, counts)
        for number, part in enumerate(parts):
            slice_ = replace(part, layers=counts[number])
            levels = (part.part.parameters, *shared)
            if number == 0:
                yield from self._outside(name, slice_, Section.BEFORE, levels)
            stack = parts[0].reference.inventory.architecture.stacks.get(name)
            if stack is not None:
                for layer in range(slice_.layers):
                    yield from self._layer(name, slice_, layer, first + layer, stack, levels)
            first += slice_.layers
            if number == len(parts) - 1:
                first_of_all = parts[0].reference.inventory
                yield from self._outside(name, slice_, Section.AFTER, levels, first_of_all)

    def _check_layers(self, name: str, parts: Sequence[Slice], counts: Sequence[int]) -> None:
        """A model of no layers is none; only the first and the last slice can do without any."""
        reference = parts[0].reference
        if not any(counts) and reference.inventory.layers(name):
            raise self._refused(
                reference.place,
                "the result would have no layers"
                + ("" if name == DEFAULT else f" in module {quoted(name)}"),
                _RANGES,
            )
        for part, count in list(zip(parts, counts, strict=True))[1:-1]:
            if not count:
                self.warnings.append(
                    f"{self._source}, line {part.reference.place.line}: a slice between others "
                    f"holds no layers, and has no effect; {_RANGES}"
                )

    def _count(self, module: str, part: Slice) -> int:
        """How many layers a slice has; all its models agree."""
        counts = []
        for member in part.everyone:
            if member.inventory.changes_only and member.layers is None:
                continue
            if self._lacks(part, member, module):
                continue
            has = member.inventory.layers(module)
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
        self, module: str, part: Slice, layer: int, number: int, stack: Stack, levels: Levels
    ) -> Iterator[Row]:
        keys = {
            member.number: member.inventory.section(module, Section.LAYER, member.begin + layer)
            for member in part.everyone
        }
        origin = part.reference.inventory, part.reference.begin + layer
        position = Position(layer, part.layers)
        yield from self._rows_of(
            part,
            keys,
            _Spot(
                module=module,
                position=position,
                levels=levels,
                origin=origin,
                stack=stack,
                number=number,
            ),
        )

    def _outside(
        self,
        module: str,
        part: Slice,
        section: Section,
        levels: Levels,
        configured: Inventory | None = None,
    ) -> Iterator[Row]:
        keys = {
            member.number: dict(member.inventory.section(module, section))
            for member in part.everyone
        }
        if section is Section.AFTER:
            self._add_tied_heads(module, part, keys, configured)
        origin = part.reference.inventory, -1
        yield from self._rows_of(
            part, keys, _Spot(module=module, position=Position(), levels=levels, origin=origin)
        )

    def _add_tied_heads(
        self,
        module: str,
        part: Slice,
        keys: dict[int, dict[str, str]],
        configured: Inventory | None,
    ) -> None:
        """Models that share their embeddings give them as the head, if another has its own.

        The other is one of the slice, or the one whose config the result takes (`configured`).
        """
        models: list[tuple[Inventory, Keys]]
        models = [(member.inventory, keys[member.number]) for member in part.everyone]
        if configured is not None:
            models.append((configured, configured.section(module, Section.AFTER)))
        heads = [model.head for model, held in models if model.head in held]
        if not heads or heads[0] is None:
            return
        for member in part.everyone:
            tied = member.inventory.tied_head
            if heads[0] in keys[member.number] or tied is None:
                continue
            if tied in member.inventory.tensors:
                keys[member.number][heads[0]] = tied

    def _rows_of(self, part: Slice, keys: Mapping[int, Keys], spot: _Spot) -> Iterator[Row]:
        """A row for each tensor of the reference, once the other models were seen to have it."""
        reference = keys[part.reference.number]
        keys = {
            member.number: reference
            if member is part.reference
            else self._matched(part, member, keys[member.number], reference, spot)
            for member in part.everyone
        }
        for key, name in reference.items():
            cells = {
                member.number: self._cell(member, keys[member.number].get(key), key, spot)
                for member in part.everyone
            }
            yield Row(
                name=spot.stack.name(spot.number, key) if spot.stack is not None else key,
                module=spot.module,
                cells=tuple(cells[member.number] for member in part.inputs),
                base=None if part.base is None else cells[part.base.number],
                position=spot.position,
                shared=spot.levels,
                layer=spot.number,
                origin=spot.origin,
                key=key,
                order=self._order(part.reference.inventory, name, tied=name != key),
                alone=part.alone,
            )

    def _cell(self, member: Member, name: str | None, key: str, spot: _Spot) -> Cell:
        held = None if name is None else member.inventory.tensors[name]
        # Filters know shared embeddings by the name that the head has elsewhere.
        shown = key if spot.stack is None or name is None else name
        return Cell(member.inventory, shown, held, member.own)

    def _matched(
        self, part: Slice, member: Member, mine: Keys, reference: Keys, spot: _Spot
    ) -> Keys:
        """A model's tensors by the reference's keys; those without a partner are refused or told.

        An adapter by itself has but some of the keys, and need not have more.
        """
        label, other = member.inventory.label, part.reference.inventory.label
        renamed = same_weights(mine, reference, in_layer=spot.stack is not None)
        if renamed:
            noted = self._renamed.setdefault((label, other), {})
            noted.update((mine[key], reference[to]) for key, to in renamed.items())
            mine = {renamed.get(key, key): name for key, name in mine.items()}
        if member.inventory.changes_only:
            return mine
        self._check_missing(
            part,
            member,
            [name for key, name in reference.items() if key not in mine],
            [name for key, name in mine.items() if key not in reference],
            stand_in=self._lacks(part, member, spot.module),
        )
        return mine

    def _check_missing(
        self,
        part: Slice,
        member: Member,
        missing: Sequence[str],
        extra: Sequence[str],
        *,
        stand_in: bool = False,
        leave_out: bool = False,
    ) -> None:
        """Refuse what may not be left out of a model, and note what is."""
        try:
            left = check_missing(
                member.inventory.label,
                part.reference.inventory.label,
                missing,
                extra,
                stand_in=(self._allow_missing or stand_in) and part.base is not None,
                leave_out=self._allow_missing or leave_out,
            )
        except MergeInputError as error:
            raise self._refused(member.place, error.message, error.hint) from error
        self._left_out += left

    def _lacks(self, part: Slice, member: Member, module: str) -> bool:
        """Whether a model has nothing of a module, and the base's stands in.

        Raises MergeInputError where none can, or where nobody allowed it: for a language model
        among larger ones it is what is meant.
        """
        mine, other = member.inventory, part.reference.inventory
        if mine.has(module) or not other.has(module):
            return False
        message = (
            f"{quoted(mine.label)} has no module {quoted(module)}, which {quoted(other.label)} has"
        )
        if part.base is None:
            hint = (
                "say of which models each module is, under modules:, or take a method of task "
                "vectors, with a base_model that has it"
            )
            raise self._refused(member.place, message, hint)
        if not mine.is_text_of(other) and not self._allow_missing:
            hint = "merge models of one architecture, or let the base's stand in (--allow-missing)"
            raise self._refused(member.place, message, hint)
        return True

    def _order(self, inventory: Inventory, name: str, *, tied: bool) -> int:
        orders = self._orders.get(inventory.label)
        if orders is None:
            orders = {name: 2 * place for place, name in enumerate(inventory.tensors)}
            self._orders[inventory.label] = orders
        return orders[name] + tied

    def _refused(self, place: Place, message: str, hint: str) -> MergepipeError:
        return MergeInputError(f"{self._source}, line {place.line}: {message}", hint)
