"""What a report knows: the JSON in its page, and what `mp report --json` prints.

Sizes in bytes. Energy is the sum of squared weighted changes, as profiles estimate it; a share is
between 0 and 1, and null where no profile tells.
"""

from typing import Literal

import msgspec


class Value(msgspec.Struct, frozen=True):
    """Base of all that a report consists of."""


class Model(Value, frozen=True):
    """A model of a merge, called as people call it. `role`: base or expert."""

    name: str
    role: str
    commit: str | None
    snapshot: str
    bytes_raw: int = 0
    bytes_full: int = 0
    bytes_planned: int = 0
    energy_kept: float | None = None


class Cell(Value, frozen=True):
    """One expert's part in one tensor. `layer` is null for tensors outside of layers.

    energy  its share of the energy of all experts in all tensors
    read    bytes planned over those of the exact merge
    kept    share of its energy that is kept
    depth   most of its blocks: exact, coarse, omitted or equal
    """

    expert: str
    tensor: str
    layer: int | None
    part: str
    energy: float | None
    read: float
    kept: float | None
    depth: str


class CurvePoint(Value, frozen=True):
    """What a budget buys: bytes of experts, share of the energy kept."""

    bytes: int
    energy_kept: float


class Tensor(Value, frozen=True):
    """A tensor in a table. Of a merge: what it takes; of a difference: how far it moved."""

    name: str
    detail: str
    bytes: int
    moved: float | None


class Commit(Value, frozen=True):
    """A commit of the lineage, oldest first. `parents`, `base`: commits among those listed."""

    commit: str
    names: tuple[str, ...]
    title: str
    author: str
    date: str
    parents: tuple[str, ...]
    base: str | None
    merge: bool


class Stored(Value, frozen=True):
    """What a model takes: its files, its records alone, and what removing it would free."""

    name: str
    raw_bytes: int
    alone_bytes: int
    exclusive_bytes: int


class Fact(Value, frozen=True):
    """A line of the summary."""

    name: str
    value: str


class Report(Value, frozen=True):
    """Everything; what does not belong to a kind of report is empty."""

    kind: Literal["merge", "plan", "difference", "repository"]
    title: str
    facts: tuple[Fact, ...]
    commands: tuple[str, ...]
    models: tuple[Model, ...] = ()
    cells: tuple[Cell, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    chosen: CurvePoint | None = None
    warnings: tuple[str, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    lineage: tuple[Commit, ...] = ()
    storage: tuple[Stored, ...] = ()
