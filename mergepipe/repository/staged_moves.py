"""Moves of refs that are made together: each checked when it is asked for, all made in one go."""

import threading
from collections.abc import Iterable, Iterator

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore, as_gathering
from mergepipe.errors import RefMoved
from mergepipe.repository.reflog import ReflogEntry


class StagedMove(Struct, frozen=True):
    """A ref that is to go from the bytes `old` to `new` (None: absent).

    `lines`: what its log, and perhaps HEAD's, say of it before. `drops_log`: its log goes after.
    """

    name: str
    old: bytes | None
    new: bytes | None
    why: str
    lines: tuple[tuple[str, ReflogEntry], ...] = ()
    drops_log: bool = False


class Staged:
    """Moves to be made, each of another ref. Only the thread that asked for them sees them."""

    def __init__(self) -> None:
        self._moves: dict[str, StagedMove] = {}
        self._thread = threading.get_ident()

    @property
    def is_mine(self) -> bool:
        """Whether this is the thread whose moves these are."""
        return threading.get_ident() == self._thread

    def __len__(self) -> int:
        return len(self._moves)

    def __contains__(self, name: str) -> bool:
        return name in self._moves

    def __iter__(self) -> Iterator[StagedMove]:
        return iter(self._moves.values())

    def add(self, move: StagedMove) -> None:
        """Take in one more."""
        self._moves[move.name] = move

    def value(self, name: str) -> bytes | None:
        """What a ref that is among them will be at."""
        return self._moves[name].new

    def names(self, present: Iterable[str], folder: str) -> list[str]:
        """The names that there will be in a folder, of those that are there, sorted."""
        after = set(present)
        for move in self:
            if move.new is None:
                after.discard(move.name)
            elif move.name.startswith(folder):
                after.add(move.name)
        return sorted(after)


def swap_all(store: ByteStore, moves: Iterable[StagedMove]) -> None:
    """Make the moves of values, durably; at once where the store can. Raises RefMoved."""
    swaps = [(move.name, move.old, move.new) for move in moves]
    gathering = as_gathering(store)
    if gathering is not None and len(swaps) > 1:
        if not gathering.swap_together(swaps):
            name = next((name for name, old, _ in swaps if store.get(name) != old), swaps[0][0])
            raise moved_meanwhile(name)
        return
    for name, old, new in swaps:
        if not store.compare_and_swap(name, old, new):
            raise moved_meanwhile(name)


def moved_meanwhile(name: str) -> RefMoved:
    """The error for a ref that somebody moved who does not take the lock."""
    return RefMoved(f"{name} was moved by another process meanwhile", "try again")
