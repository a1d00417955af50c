"""What a repository was promised: records that a remote has, and that come when they are read."""

from collections.abc import Iterable
from typing import Protocol

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import PackId
from mergepipe.packs.records import Location


class Promises(Protocol):
    """What those who look after a repository ask about records that may not be here."""

    @property
    def remote(self) -> str:
        """What the remote is called that has them; empty where nothing is promised."""
        ...

    def promised(self) -> set[PackId]:
        """Packs of which something may still be with the remote."""
        ...

    def has_record(self, at: Location, /) -> bool:
        """Whether a record is here, so that reading it asks nobody."""
        ...

    def has_range(self, key: str, offset: int, length: int) -> bool:
        """Whether reading a range of a pack most likely asks nobody."""
        ...

    def absent_bytes(self) -> int:
        """Bytes of promised packs that are not here, as the file system counts them."""
        ...

    def promise(self, remote: ByteStore, packs: Iterable[PackId], /) -> None:
        """Have the promise of a remote's packs. Raises as `relist`."""
        ...

    def relist(self) -> None:
        """Promise what is new on the other side, and give up what it has no more.

        Raises RemoteUnreachable, RemoteRefused, Corruption, NoSpace.
        """
        ...


class NoPromises:
    """All that the index knows is here."""

    remote = ""

    def promised(self) -> set[PackId]:
        """None."""
        return set()

    def has_record(self, at: Location, /) -> bool:
        """Always."""
        return True

    def has_range(self, key: str, offset: int, length: int) -> bool:
        """Always."""
        return True

    def absent_bytes(self) -> int:
        """None."""
        return 0

    def promise(self, remote: ByteStore, packs: Iterable[PackId], /) -> None:
        """Nothing to do."""

    def relist(self) -> None:
        """Nothing to do."""
