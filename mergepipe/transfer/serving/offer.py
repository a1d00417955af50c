"""What a server lets its clients do with a byte store, whatever the wire: keys, limits, scopes."""

from collections.abc import Sequence

from mergepipe.bytestore import wire
from mergepipe.bytestore.protocol import (
    Buffer,
    ByteStore,
    ByteWriter,
    Locating,
    Purging,
    as_holding,
    items_after,
    keys_after,
)
from mergepipe.errors import MergepipeError, RemoteRefused, UsageError
from mergepipe.ids import PackId
from mergepipe.names import quoted
from mergepipe.repository.push_log import PushLog
from mergepipe.transfer.serving.recording import Caller, Recorder
from mergepipe.transfer.serving.surface import REPOSITORY, Rule, Surface
from mergepipe.transfer.serving.swaps import Swaps

NOBODY = Caller()
"""Who is not known."""


class TooLarge(RemoteRefused):
    """More bytes than are taken."""


class ReadOnly(RemoteRefused):
    """Nothing may be written here."""


class Offer:
    """A byte store as clients see it. Raises MergepipeError for whatever is not on offer."""

    def __init__(
        self,
        store: ByteStore,
        *,
        surface: Surface = REPOSITORY,
        read_only: bool = False,
        log: PushLog | None = None,
    ) -> None:
        """`log`: where it is written down who pushed what."""
        self._store = store
        self._surface = surface
        self._read_only = read_only
        self._swaps = Swaps(store)
        self.recorder = Recorder(log)

    def size(self, key: str) -> int | None:
        """Length of a value in bytes, or None."""
        self._check(key, self._surface.readable)
        return self._store.size(key)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of a value. Raises FileNotFoundError."""
        self._check(key, self._surface.readable)
        return self._store.read_into(key, offset, out)

    def keys(self, prefix: str, after: str | None = None) -> bytes:
        """The keys of a folder, sorted, as they travel: the page after a key, or None: all."""
        readable = self._folder(prefix)
        keys = filter(readable, keys_after(self._store, prefix, after or ""))
        return _listing(list(keys)) if after is None else wire.page_of_keys(keys)

    def values(self, prefix: str, after: str | None = None) -> bytes:
        """The small values of a folder by key, as they travel: a page, or all of them."""
        readable = self._folder(prefix)
        if after is None:
            values = self._store.values(prefix)
            return _listing({key: value for key, value in values.items() if readable(key)})
        items = items_after(self._store, prefix, after)
        return wire.page_of_values((key, value) for key, value in items if readable(key))

    def pick(self, keys: Sequence[str]) -> bytes:
        """The small values of some keys, as they travel: the first of them, as many as fit."""
        if len(keys) > wire.MOST_PICKED:
            raise UsageError(f"at most {wire.MOST_PICKED:,} keys at once")
        for key in keys:
            self._check(key, self._surface.readable)
            if is_published(key):
                raise UsageError(f"no small value: {quoted(key)}")
        values = ((key, self._store.get(key)) for key in keys)
        return wire.page_of_values((key, value) for key, value in values if value is not None)

    def locate(self, ids: Sequence[bytes]) -> bytes:
        """The packs where blocks and objects are, as they travel."""
        _check_ids(ids, wire.MOST_SOUGHT)
        return wire.encode(self._locating().locate(ids))

    def footers(self, packs: Sequence[bytes]) -> bytes:
        """The footers of the first of these packs, as they travel."""
        _check_ids(packs, wire.MOST_SOUGHT)
        locating = self._locating()
        return wire.page_of_footers(locating.footers([PackId(each)])[0] for each in packs)

    def _locating(self) -> Locating:
        if not isinstance(self._store, Locating):
            raise UsageError("this store cannot tell where its records are")
        return self._store

    def check_upload(self, key: str, size: int) -> None:
        """Raises unless `size` bytes may be published, or put, under `key`."""
        self._check_writable()
        allowed = self._surface.published if is_published(key) else self._surface.replaced
        self._check(key, allowed)
        if size > wire.largest_value(key):
            raise TooLarge(f"a value has at most {wire.largest_value(key):,} bytes")

    def create(self) -> ByteWriter:
        """Begin a value that is published."""
        self._check_writable()
        return self._store.create()

    def publish(self, writer: ByteWriter, key: str, caller: Caller = NOBODY) -> None:
        """Make a value visible, or forget it where that is refused."""
        try:
            self.check_upload(key, writer.size)
            writer.sync()
            self._store.publish([(writer, key)])
            self.recorder.sent(caller, writer.size)
        finally:
            writer.abort()

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value."""
        self.check_upload(key, len(value))
        self._store.put(key, value)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._check_writable()
        self._check(key, self._surface.replaced)
        self._store.delete(key)

    def swap(self, asked: wire.SwapRequest, caller: Caller = NOBODY) -> bool:
        """Compare and swap, under a write id; it is written down who asked, and what came of it."""
        try:
            done = self._swap(asked)
        except (MergepipeError, OSError) as error:
            self.recorder.swapped(caller, asked, "refused", str(error))
            raise
        self.recorder.swapped(caller, asked, "done" if done else "moved")
        return done

    def swaps(self, asked: wire.SwapsRequest, caller: Caller = NOBODY) -> bool:
        """Swaps that are made together, or none of them: False, and single ones tell why."""
        if len(asked.swaps) > wire.MOST_SWAPS:
            raise TooLarge(f"at most {wire.MOST_SWAPS:,} swaps at once")
        for each in asked.swaps:
            self._check_swap(each)
        done = self._swaps.swap_together(asked.swaps, asked.near)
        if done:  # else each is asked for by itself, and told then
            for each in asked.swaps:
                self.recorder.swapped(caller, each, "done")
        return done

    def _swap(self, asked: wire.SwapRequest) -> bool:
        self._check_swap(asked)
        return self._swaps.swap(asked)

    def _check_swap(self, asked: wire.SwapRequest) -> None:
        self._check_writable()
        self._check(asked.key, self._surface.swapped)
        for value in (asked.old, asked.new):
            if value is not None and len(value) > wire.LARGEST_VALUE:
                raise TooLarge(f"a value has at most {wire.LARGEST_VALUE:,} bytes")

    def holds(self, ids: Sequence[bytes]) -> bytes:
        """One byte for each id: whether it is here whole."""
        holding = as_holding(self._store)
        if holding is None:
            raise UsageError("this store cannot tell what it holds")
        _check_ids(ids, wire.MOST_IDS)
        return bytes(holding.holds(ids))

    def purge(self, request: bytes, caller: Caller = NOBODY) -> bytes:
        """Have models removed for good."""
        try:
            self._check_writable()
            if not isinstance(self._store, Purging):
                raise UsageError("this store cannot purge")
            report = self._store.purge(request)
        except (MergepipeError, OSError) as error:
            self.recorder.purged(caller, "refused", str(error))
            raise
        self.recorder.purged(caller, "done")
        return report

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnly("this server is read-only")

    def _folder(self, prefix: str) -> Rule:
        if not self._surface.listable(prefix):
            raise RemoteRefused(f"{quoted(prefix)} is no folder for others")
        return self._surface.readable

    def _check(self, key: str, allowed: Rule) -> None:
        if not wire.is_key(key):
            raise UsageError("not a key")
        if not allowed(key):
            raise RemoteRefused(f"{quoted(key)} is not for others to use like that")


def _check_ids(ids: Sequence[bytes], most: int) -> None:
    if len(ids) > most or any(len(each) != wire.ID_BYTES for each in ids):
        raise UsageError(f"at most {most:,} ids of {wire.ID_BYTES} bytes at once")


def is_published(key: str) -> bool:
    """Whether a value is a stream that is published, not a small one that is put."""
    return key.startswith("packs/")


def _listing(document: object) -> bytes:
    body = wire.encode(document)
    if len(body) > wire.LARGEST_LISTING:
        raise RemoteRefused(f"the listing has more than {wire.LARGEST_LISTING:,} bytes")
    return body
