"""Results remembered: which output block a step made, so that it need not be made again.

The key is a hash of all that the result depends on: method and version, resolved numbers, dtypes,
the blocks and pieces that go in and the depth of each, the keys of the lines that are computed on
the way, and, where chance or a product has a part in it, seed, tensor and place. The value is the
ids of the blocks made, kept in the index's cache. It is believed only while the blocks themselves
are in the store, and losing it costs time, no more.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec
from blake3 import blake3
from msgspec import Struct

from mergepipe.engine.work import (
    Adapted,
    Computed,
    Estimate,
    Input,
    LineTask,
    Making,
    Piece,
    Product,
    Step,
    Weights,
)
from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.methods import Method, Scope
from mergepipe.objects.merging import InputNumbers, LineNumbers
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.plans.numbers import stored_numbers

_PREFIX = b"m/"
_VERSION = b"mergepipe step 4\0"  # from 4 on, results are all finite numbers
_WORD = (1 << 64) - 1

Blocks: TypeAlias = tuple[BlockId, ...]


class Memory(Protocol):
    """What is known of earlier steps."""

    def find(self, steps: Sequence[Step]) -> list[Blocks | None]:
        """The known result of each step that has one."""
        ...

    def remember(self, step: Step, blocks: Sequence[BlockId]) -> None:
        """Note a result."""
        ...

    def save(self) -> None:
        """Keep what was noted. Once the blocks are published: before, it would help nobody."""
        ...


class Memo:
    """What steps made, of one repository. Used from one thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._new: list[tuple[bytes, bytes]] = []

    def find(self, steps: Sequence[Step]) -> list[Blocks | None]:
        """The known result of each step that has one."""

        def question(view: View) -> list[Blocks | None]:
            return [_known(view, _PREFIX + step.memo, step.blocks) for step in steps]

        return self._storage.ask(question)

    def remember(self, step: Step, blocks: Sequence[BlockId]) -> None:
        """Note a result; `save` keeps it."""
        self._new.append((_PREFIX + step.memo, b"".join(blocks)))

    def save(self) -> None:
        """Keep what was noted, in one transaction of the index."""
        if self._new:
            self._storage.index.cache(self._new)
        self._new.clear()


class NoMemo:
    """Remembers nothing: every step is made."""

    def find(self, steps: Sequence[Step]) -> list[Blocks | None]:
        """No result is known."""
        return [None] * len(steps)

    def remember(self, step: Step, blocks: Sequence[BlockId]) -> None:
        """Forget it."""

    def save(self) -> None:
        """Nothing to keep."""


def _known(view: View, key: bytes, count: int) -> Blocks | None:
    value = view.cached(key)
    if value is None or len(value) != ID_BYTES * count:
        return None
    blocks = tuple(BlockId(value[at : at + ID_BYTES]) for at in range(0, len(value), ID_BYTES))
    return blocks if all(view.has_block(block) for block in blocks) else None


class Head(Struct, frozen=True):
    """What the steps of one line share of their keys.

    placed  whether what is made depends on where in the tensor it lies
    """

    key: bytes
    placed: bool


def memo_head(method: Method, task: LineTask) -> Head:
    """What the steps of a line share."""
    numbers = stored_numbers(task.scalars)
    placed = _placed(numbers)
    rows = (task.row_length, task.slab_length) if method.scope is not Scope.ELEMENT else (0, 0)
    parts = (
        _VERSION,
        f"{method.name}\0{task.dtype.name}\0".encode(),
        struct.pack("<IQQ", method.version, *rows),
        msgspec.msgpack.encode(numbers),
        # What chance decides depends on where it is asked. A method's extras may be a
        # chance's; all other numbers but the density mean the same everywhere.
        struct.pack("<QQ", task.seed & _WORD, task.tensor_key) if placed else b"",
    )
    return Head(b"".join(parts), placed)


def memo_key(heads: Mapping[int, Head], making: Making, start: int) -> bytes:
    """The key of making a range from element `start` on: the same for the same work anywhere.

    heads: of each line, by its number.
    """
    head = heads[making.task.number]
    parts = [head.key]
    if head.placed or any(making.products()):
        parts.append(struct.pack("<Q", start))
    for one in (making.base, *making.inputs):
        parts += _input(heads, one, start)
    return blake3(b"".join(parts)).digest()


def _placed(numbers: tuple[LineNumbers, tuple[InputNumbers, ...]]) -> bool:
    """Whether what is made depends on where in the tensor it lies."""
    line, inputs = numbers
    return bool(line.extras) or any(one.density != 1 for one in inputs)


def _input(heads: Mapping[int, Head], one: Input | None, start: int) -> Iterator[bytes]:
    match one:
        case None:
            yield b"-"
        case Weights():
            yield (b"d" if one.delta else b"w") + one.dtype.name.encode()
            yield _pieces(one.pieces)
        case Estimate():
            yield b"e" + one.digest + struct.pack("<d", one.magnitude)
        case Adapted():
            yield b"a"
            yield from _product(one.product)
            yield from _input(heads, one.of, start)
        case Computed():
            yield b"m" + memo_key(heads, one.making, start)
        case _:
            yield b"u"


def _product(product: Product) -> Iterator[bytes]:
    yield struct.pack("<d?", product.scale, product.transposed)
    for factor in (product.up, product.down):
        size = struct.pack("<QQQ", len(factor.blocks), factor.rows, factor.columns)
        yield factor.dtype.name.encode() + size + b"".join(factor.blocks)


def _pieces(pieces: tuple[Piece, ...]) -> bytes:
    packed = [struct.pack("<32sQQ", piece.block, piece.begin, piece.end) for piece in pieces]
    return len(packed).to_bytes(8, "little") + b"".join(packed)
