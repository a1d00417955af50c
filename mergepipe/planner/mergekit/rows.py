"""A row: one tensor of a stage's output, and which tensors of its models come together in it."""

from dataclasses import dataclass
from typing import TypeAlias

from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.schema import Parameters
from mergepipe.planner.mergekit.settings import Position

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
    key     what it is called in every layer: the rest of its name; outside of layers all of it
    order   place in the files of that model
    alone   its one cell is taken as it is: the slice has a model that nothing is merged into
    """

    name: str
    module: str
    cells: tuple[Cell, ...]
    base: Cell | None
    position: Position
    shared: Levels
    layer: int
    origin: tuple[Inventory, int]
    key: str
    order: int
    alone: bool = False
