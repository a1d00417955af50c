"""The coordinator's side of handed out work: its own store, sink and progress."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.executors.segments import Doing, SegmentResult
from mergepipe.ids import BlockId
from mergepipe.packs.sink import Sink
from mergepipe.progress import Progress


class Coordinator(Struct, frozen=True):
    """Does segments here where need be, and takes over what others wrote.

    store  where packs are written here; None: nothing is stored
    files  the same store as other processes of its machine see it, whose packs are taken over
    known  blocks that are left out of packs written here; None: those that the sink has
    """

    job: Doing
    sink: Sink
    progress: Progress
    store: ByteStore | None = None
    files: LocalByteStore | None = None
    known: Callable[[BlockId], bool] | None = None

    def doing(self) -> Doing:
        """The job, opened here."""
        return self.job

    def target(self) -> ByteStore | None:
        """Where packs are written here."""
        return self.store

    def knows(self, block: BlockId, /) -> bool:
        """Whether a block is not to be written."""
        return self.sink.has_block(block) if self.known is None else self.known(block)

    def take_over(self, result: SegmentResult, /) -> SegmentResult:
        """Move packs into this process's session: their writer may end now."""
        packs = []
        for pack in result.packs:
            if pack.writer is None and self.files is not None:
                pack = replace(pack, writer=self.files.adopt(pack.key))
            packs.append(pack)
        return replace(result, packs=tuple(packs))

    def tidy(self) -> None:
        """Remove the sessions of processes that are gone."""
        if self.files is not None:
            self.files.remove_dead_sessions()

    def advance(self, made_bytes: int, pending_bytes: int = 0, /) -> None:
        """Tell it; `pending_bytes` are stored, and not with the sink yet."""
        self.progress.advance(made_bytes, self.sink.stored_bytes + pending_bytes)
