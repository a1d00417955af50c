"""A merge spelled out tensor by tensor: what every front end comes to, and plans are made from.

A simple recipe (`recipe.py`) has a line for each tensor of its layout. A mergekit config has what
its slices, modules, filters and stages say; tensors of an earlier stage that a later one takes in
are lines as well, which no file holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct, field

from mergepipe.dtypes import DType
from mergepipe.ids import ObjectId
from mergepipe.methods.parameters import Settings
from mergepipe.methods.protocol import Method
from mergepipe.objects.merging import LowRank, TermKind
from mergepipe.planner.recipe import Model
from mergepipe.plans.left_out import Kind, LeftOut
from mergepipe.reprs import brief


@brief
class Made(Struct, frozen=True):
    """The tensor that an earlier line makes, by its place among the lines."""

    line: int


Source: TypeAlias = ObjectId | Made


@brief
class LineInput(Struct, frozen=True):
    """One term of a line, or its base.

    model    place among the merge's models; -1 where it comes of a line that was made
    source   None: the model lacks it, and that counts as no delta. A tensor has the shape of
             `Line.like`
    factors  with FULL: added to the weights (model+lora); with LOW_RANK: all there is, no source.
             Their product has the elements of `Line.like`, in its order
    """

    model: int
    source: Source | None
    kind: TermKind = TermKind.FULL
    factors: LowRank | None = None


@brief
class Line(Struct, frozen=True):
    """One tensor to make.

    file      of the output that holds it; None for one that only later lines take in
    name      its own: of the output, and what random masks are drawn by
    like      a stored tensor with its shape and block grid (dtype may differ)
    settings  of the method, for the inputs in their order
    base      what differences are taken from; for methods without one None
    copied    the output is the first input that there is (a stored one) as it stands, bit for bit
    """

    file: str | None
    name: str
    like: ObjectId
    dtype: DType
    method: Method
    settings: Settings
    base: LineInput | None
    inputs: tuple[LineInput, ...]
    copied: bool = False


@brief
class Merge(Struct, frozen=True):
    """All lines of a merge, each after those it takes in.

    layout  a snapshot whose files the output has: its tensor files name the lines with a `file`, in
            their order (its tensors need not be those of the output), the others are taken over
    models  every model that a line reads, the base among them
    base    the model that commits lean on (its place among the models), or None
    warnings  what a user should know of it
    left_out  what of its models it leaves out, all of it
    """

    layout: ObjectId
    models: tuple[Model, ...]
    lines: tuple[Line, ...]
    base: int | None = None
    seed: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def unused_base(
    models: Sequence[Model], lines: Sequence[Line], base: int | None
) -> Iterator[LeftOut]:
    """A base whose weights no line takes: that of a method that takes no differences."""
    if base is None or not lines:
        return
    for line in lines:
        leaning = any(term.source is None or term.kind is not TermKind.FULL for term in line.inputs)
        if line.method.needs_base or leaning or line.copied:
            return
        if any(term.model == base for term in line.inputs):
            return
    methods = ", ".join(dict.fromkeys(line.method.name for line in lines))
    yield LeftOut(Kind.BASE_WEIGHTS, models[base].label, reason=methods)
