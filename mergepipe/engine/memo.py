"""Results remembered: which output block a step made, so that it need not be made again.

The key is a hash of all that the result depends on: method and version, scalars, dtypes, the blocks
and pieces that go in and the depth of each, and, where a random mask is drawn, seed, tensor and
place. The value is a block id, kept in the index's cache. It is believed only while the block
itself is in the store, and losing it costs time, no more.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from blake3 import blake3

from mergepipe.engine.work import Estimate, Input, Piece, Step, TensorTask, Weights
from mergepipe.ids import ID_BYTES, BlockId
from mergepipe.methods import Method, Scope
from mergepipe.packs.index import View
from mergepipe.packs.storage import Storage

_PREFIX = b"m/"
_VERSION = b"mergepipe step 1\0"
_WORD = (1 << 64) - 1


class Memory(Protocol):
    """What is known of earlier steps."""

    def find(self, steps: Sequence[Step]) -> list[BlockId | None]:
        """The known result of each step that has one."""
        ...

    def remember(self, step: Step, block: BlockId) -> None:
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

    def find(self, steps: Sequence[Step]) -> list[BlockId | None]:
        """The known result of each step that has one."""

        def question(view: View) -> list[BlockId | None]:
            return [_known(view, _PREFIX + step.memo) for step in steps]

        return self._storage.ask(question)

    def remember(self, step: Step, block: BlockId) -> None:
        """Note a result; `save` keeps it."""
        self._new.append((_PREFIX + step.memo, block))

    def save(self) -> None:
        """Keep what was noted, in one transaction of the index."""
        if self._new:
            self._storage.index.cache(self._new)
        self._new.clear()


class NoMemo:
    """Remembers nothing: every step is made."""

    def find(self, steps: Sequence[Step]) -> list[BlockId | None]:
        """No result is known."""
        return [None] * len(steps)

    def remember(self, step: Step, block: BlockId) -> None:
        """Forget it."""

    def save(self) -> None:
        """Nothing to keep."""


def _known(view: View, key: bytes) -> BlockId | None:
    found = view.cached(key)
    if found is None or len(found) != ID_BYTES:
        return None
    return BlockId(found) if view.has_block(BlockId(found)) else None


def memo_head(method: Method, task: TensorTask) -> bytes:
    """What the steps of one tensor share of their keys."""
    dtypes = [task.dtype, task.base, *task.experts]
    names = [method.name, *("-" if dtype is None else dtype.name for dtype in dtypes)]
    row = task.row_length if method.scope is not Scope.ELEMENT else 0
    scalars = task.scalars
    return b"".join(
        (
            _VERSION,
            "\0".join(names).encode(),
            struct.pack("<xIQ", method.version, row),
            bytes(task.kinds),
            struct.pack("<??d", scalars.elect, scalars.normalize, scalars.scale),
            *(
                struct.pack(
                    "<5d", own.weight, own.threshold, own.coarse_scale, own.density, own.rescale
                )
                for own in scalars.experts
            ),
        )
    )


def memo_key(
    head: bytes, task: TensorTask, start: int, base: Weights | None, inputs: tuple[Input, ...]
) -> bytes:
    """The key of one step: the same for the same work anywhere."""
    parts = [head]
    if any(own.density < 1 for own in task.scalars.experts):
        parts.append(struct.pack("<QQQ", task.seed & _WORD, task.tensor_key, start))
    parts.append(_pieces(() if base is None else base.pieces))
    for one in inputs:
        if isinstance(one, Weights):
            parts += (b"w", _pieces(one.pieces))
        elif isinstance(one, Estimate):
            parts += (b"e", one.digest, struct.pack("<d", one.magnitude))
        else:
            parts.append(b"u")
    return blake3(b"".join(parts)).digest()


def _pieces(pieces: tuple[Piece, ...]) -> bytes:
    packed = [struct.pack("<32sQQ", piece.block, piece.begin, piece.end) for piece in pieces]
    return len(packed).to_bytes(8, "little") + b"".join(packed)
