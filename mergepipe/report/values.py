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
    conflict  of the weights that it and another expert change much, the share where they disagree
    cosine  mean of the cosines of its change with those of the other experts

    The last two are estimates, from the signs that profiles keep; null also where no other expert
    changes the tensor.
    """

    expert: str
    tensor: str
    layer: int | None
    part: str
    energy: float | None
    read: float
    kept: float | None
    depth: str
    conflict: float | None = None
    cosine: float | None = None


class Layer(Value, frozen=True):
    """One expert's part in all tensors of a layer; fields as in a cell."""

    expert: str
    layer: int
    energy: float | None
    read: float
    kept: float | None
    conflict: float | None
    cosine: float | None


class Pair(Value, frozen=True):
    """Two experts over all tensors; estimates as in a cell."""

    first: str
    second: str
    conflict: float | None
    cosine: float | None


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
    """A commit of the lineage, newest first. `parents`, `base`: commits among those listed.

    `lane`: the column that its node is drawn in, from 0.
    """

    commit: str
    names: tuple[str, ...]
    title: str
    author: str
    date: str
    parents: tuple[str, ...]
    base: str | None
    merge: bool
    lane: int = 0


class Stored(Value, frozen=True):
    """What a model takes: its files, its records alone, and what removing it would free."""

    name: str
    raw_bytes: int
    alone_bytes: int
    exclusive_bytes: int


class Grown(Value, frozen=True):
    """A repository up to a commit: its models' files, and the records that they need, in bytes."""

    commit: str
    title: str
    date: str
    raw_bytes: int
    stored_bytes: int


class Metric(Value, frozen=True):
    """A number that was measured of a revision, like a loss. `source`: a file's name, or note."""

    revision: str
    name: str
    value: float
    source: str


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
    layers: tuple[Layer, ...] = ()
    pairs: tuple[Pair, ...] = ()
    metrics: tuple[Metric, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    chosen: CurvePoint | None = None
    warnings: tuple[str, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    lineage: tuple[Commit, ...] = ()
    storage: tuple[Stored, ...] = ()
    growth: tuple[Grown, ...] = ()
