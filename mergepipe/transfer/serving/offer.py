"""What a server lets its clients do with a byte store, whatever the wire: keys, limits, scopes."""

from collections.abc import Sequence

from mergepipe.bytestore import wire
from mergepipe.bytestore.protocol import (
    Buffer,
    ByteStore,
    ByteWriter,
    Purging,
    as_holding,
    items_after,
    keys_after,
)
from mergepipe.errors import MergepipeError, RemoteRefused, UsageError
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

    def _swap(self, asked: wire.SwapRequest) -> bool:
        self._check_writable()
        self._check(asked.key, self._surface.swapped)
        for value in (asked.old, asked.new):
            if value is not None and len(value) > wire.LARGEST_VALUE:
                raise TooLarge(f"a value has at most {wire.LARGEST_VALUE:,} bytes")
        return self._swaps.swap(asked)

    def holds(self, ids: Sequence[bytes]) -> bytes:
        """One byte for each id: whether it is here whole."""
        holding = as_holding(self._store)
        if holding is None:
            raise UsageError("this store cannot tell what it holds")
        if len(ids) > wire.MOST_IDS or any(len(each) != wire.ID_BYTES for each in ids):
            raise UsageError(f"at most {wire.MOST_IDS:,} ids of {wire.ID_BYTES} bytes at once")
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


def is_published(key: str) -> bool:
    """Whether a value is a stream that is published, not a small one that is put."""
    return key.startswith("packs/")


def _listing(document: object) -> bytes:
    body = wire.encode(document)
    if len(body) > wire.LARGEST_LISTING:
        raise RemoteRefused(f"the listing has more than {wire.LARGEST_LISTING:,} bytes")
    return body
