"""Layers and other tensors that a recipe's slices and modules take nothing of."""

from collections.abc import Iterable, Iterator

from mergepipe.formats.architecture import Section
from mergepipe.planner.mergekit.inventory import Inventory
from mergepipe.planner.mergekit.rows import Row
from mergepipe.plans.left_out import Kind, LeftOut


def unused_tensors(
    models: Iterable[Inventory], rows: Iterable[Row], told: Iterable[LeftOut]
) -> Iterator[LeftOut]:
    """What is in no row, by model; layers as wholes. told: what is known to be left out."""
    used: dict[str, set[int]] = {}
    for row in rows:
        for cell in (*row.cells, row.base):
            if cell is not None and cell.held is not None:
                used.setdefault(cell.inventory.label, set()).add(id(cell.held))
    known: dict[str, set[str]] = {}
    for part in told:
        known.setdefault(part.model, set()).update(part.names)
    for model in {model.label: model for model in models}.values():
        if model.changes_only:
            continue
        mine = set(known.get(model.label, ()))
        # A tensor may be known by another model's name for it, so it is looked for as such.
        taken = used.get(model.label, set())
        mine |= {name for name, held in model.tensors.items() if id(held) in taken}
        names = [name for name in model.tensors if name not in mine]
        if names:
            yield LeftOut(Kind.UNUSED_TENSORS, model.label, tuple(_wholes(model, names, mine)))


def _wholes(model: Inventory, names: Iterable[str], used: set[str]) -> Iterator[str]:
    """Names, and `stack.3.*` for a layer of which nothing is used."""
    spots = model.architecture.spots
    begun = {
        (spots[name].module, spots[name].layer)
        for name in used
        if name in spots and spots[name].section is Section.LAYER
    }
    seen: set[str] = set()
    for name in names:
        spot = spots[name]
        shown = name
        if spot.section is Section.LAYER and (spot.module, spot.layer) not in begun:
            shown = model.architecture.stacks[spot.module].name(spot.layer, "*")
        if shown not in seen:
            seen.add(shown)
            yield shown
