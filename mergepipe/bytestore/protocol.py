"""What a byte store is: keys to immutable bytes, and a few small values that move.

Keys are relative POSIX paths (`packs/<id>.pack`, `refs/heads/main`), never absolute, without `..`.
Every implementation passes tests/bytestore/test_conformance.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeAlias, runtime_checkable

from mergepipe.closing import Closing
from mergepipe.errors import RemoteRefused
from mergepipe.ids import PackId

Buffer: TypeAlias = bytes | bytearray | memoryview


class NotOffered(RemoteRefused):
    """A question that the other side does not take: it is of an earlier release, perhaps."""


class ByteWriter(Protocol):
    """One unpublished stream of bytes. Invisible until published; gone if aborted."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk, in order. Raises NoSpace."""
        ...

    def sync(self) -> None:
        """Return once what was written is durable (it is still invisible)."""
        ...

    def abort(self) -> None:
        """Forget what was written. Does nothing after publication or a first abort."""
        ...


class _Entered(Protocol):
    """Something whose context is left when it is done with."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ByteStore(_Entered, Protocol):
    """Bytes by key. All methods may be called from any thread."""

    def close(self) -> None:
        """Release file descriptors and connections."""
        ...

    def get(self, key: str) -> bytes | None:
        """The whole value, or None if there is none."""
        ...

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset`; returns bytes read, fewer only at the end of the value.

        Raises FileNotFoundError if the key is not there.
        """
        ...

    def size(self, key: str) -> int | None:
        """Length of the value in bytes, or None if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix` (a folder, ending in `/`, or empty), sorted.

        Never silently incomplete: raises OSError where a part cannot be listed.
        """
        ...

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones (`refs/`), in one exchange where there is a wire.

        Sorted by key. Bounded: raises RemoteRefused where another side offers absurdly many.
        """
        ...

    def create(self) -> ByteWriter:
        """Begin an unpublished value."""
        ...

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Make synced values visible under their keys, in order, and durable before returning.

        A key that is already there keeps its value or takes the new one: such keys name their
        content, so the two differ only where the old value is damaged.
        """
        ...

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value atomically and durably."""
        ...

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` (None: absent) durably; False if the value is not `old`.

        A reply that is lost is looked up, never reported as False (docs/format-remote.md).
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens if it is not there."""
        ...


@runtime_checkable
class Seeking(Protocol):
    """A byte store that lists from a key on without looking at all that comes before it."""

    def keys_after(self, prefix: str, after: str, /) -> Iterator[str]:
        """The keys of `list` that come after a key."""
        ...

    def items_after(self, prefix: str, after: str, /) -> Iterator[tuple[str, bytes]]:
        """The same with their values, which are small."""
        ...


@runtime_checkable
class Foldered(Protocol):
    """A byte store whose folders can be looked into one by one."""

    def within(self, folder: str, /) -> Sequence[str]:
        """Keys that lie in a folder itself, and folders (with a slash) in it; in no order."""
        ...


def keys_after(store: ByteStore, prefix: str, after: str = "") -> Iterator[str]:
    """The keys of a folder that come after a key, sorted. Raises as `list` does."""
    if isinstance(store, Seeking):
        return store.keys_after(prefix, after)
    return (key for key in store.list(prefix) if key > after)


def items_after(store: ByteStore, prefix: str, after: str = "") -> Iterator[tuple[str, bytes]]:
    """The same with their values, one at a time: unlike `values`, nothing is kept of them."""
    if isinstance(store, Seeking):
        yield from store.items_after(prefix, after)
        return
    for key in keys_after(store, prefix, after):
        value = store.get(key)
        if value is not None:
            yield key, value


@runtime_checkable
class Holding(Protocol):
    """A byte store whose other side can tell what it holds."""

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is there whole: all its layers, and the bases it needs."""
        ...


@runtime_checkable
class Picking(Protocol):
    """A byte store that gives several small values at once."""

    def pick(self, keys: Sequence[str], /) -> dict[str, bytes]:
        """The values of these keys, of those that are there. Raises NotOffered."""
        ...


@runtime_checkable
class Locating(Protocol):
    """A byte store whose other side knows where its records are."""

    def locate(self, ids: Sequence[bytes], /) -> list[PackId]:
        """The packs where these blocks and objects are, and what these blocks lean on.

        Raises NotOffered.
        """
        ...

    def footers(self, packs: Sequence[PackId], /) -> list[bytes | None]:
        """Their footers; None for one that is not to be had like that. Raises NotOffered."""
        ...


@runtime_checkable
class Purging(Protocol):
    """A byte store whose other side removes models for good, if it allows that."""

    def purge(self, request: bytes) -> bytes:
        """Remove what a request names; returns the report (docs/format-remote.md, "Purging")."""
        ...


@runtime_checkable
class WriteAware(Protocol):
    """A byte store that remembers writes by their id, so that a lost reply can be looked up."""

    def swap_with_id(self, key: str, old: bytes | None, new: bytes | None, write_id: bytes) -> bool:
        """Compare and swap, as `compare_and_swap`; the same id again gives the same answer."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A byte store that is far away, and glad to know what will be read next."""

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Bring ranges (key, offset, length) near, side by side: they are read in a moment."""
        ...


class Turn(_Entered, Protocol):
    """Leave to write where nobody computes, until its context is left."""

    def check(self) -> None:
        """Raise RemoteUnreachable where it may have been lost: before what was sent is named."""
        ...


class NoTurn(Closing):
    """Of a store whose other side sees to it itself."""

    def close(self) -> None:
        """Nothing was taken."""

    def check(self) -> None:
        """Nothing can be lost."""


@runtime_checkable
class TakingTurns(Protocol):
    """A byte store where nobody computes: who relies on what is there says so, and gc waits."""

    def writing(self, command: str) -> Turn:
        """The turn of a writer. Raises Locked while gc is at work there."""
        ...


Swap: TypeAlias = tuple[str, bytes | None, bytes | None]
"""A key, what it is to be at, and its new value (None: absent)."""


@runtime_checkable
class Gathering(Protocol):
    """A byte store that swaps many values for little more than the price of one."""

    def swap_together(self, swaps: Sequence[Swap], near: Sequence[str] = (), /) -> bool:
        """Make all of these swaps, or none of them and return False: then one at a time tells why.

        Cut short, it may have made the first ones. `near`: keys whose values most likely are what
        the new ones build on, so that not all of them need be looked at.
        """
        ...


@runtime_checkable
class SwappingTogether(Protocol):
    """A byte store that swaps many values at once, and remembers each swap by its id."""

    def swap_with_ids(
        self, swaps: Sequence[Swap], write_ids: Sequence[bytes], near: Sequence[str], /
    ) -> bool:
        """As `Gathering.swap_together`; the same ids again give the same answer."""
        ...


def as_holding(store: ByteStore) -> Holding | None:
    """The store, if its other side can tell what it holds."""
    return store if isinstance(store, Holding) else None


def as_gathering(store: ByteStore) -> Gathering | None:
    """The store, if it swaps many values at once."""
    return store if isinstance(store, Gathering) else None


def pick(store: ByteStore, keys: Sequence[str]) -> dict[str, bytes]:
    """The values of some keys, of those that are there, in as few exchanges as the store allows."""
    if len(keys) > 1 and isinstance(store, Picking):
        with contextlib.suppress(NotOffered):
            return store.pick(keys)
    values = ((key, store.get(key)) for key in keys)
    return {key: value for key, value in values if value is not None}


def as_write_aware(store: ByteStore) -> WriteAware | None:
    """The store, if it remembers writes by their id."""
    return store if isinstance(store, WriteAware) else None


def expect(store: ByteStore, ranges: Sequence[tuple[str, int, int]]) -> None:
    """Tell a store what is going to be read, if it cares and there is more than one exchange."""
    if len(ranges) > 1 and isinstance(store, Expecting):
        store.expect(ranges)


def writing_to(store: ByteStore, command: str) -> Turn:
    """The turn of a writer of any store. Raises Locked."""
    return store.writing(command) if isinstance(store, TakingTurns) else NoTurn()
