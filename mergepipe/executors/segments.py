"""The values that travel between a coordinator and whoever does the work (docs/scale-out.md)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock
from mergepipe.packs.written import WrittenPack

SEGMENT_BYTES = 256 << 20
"""Output of a segment, about: one pack of the usual size comes of it."""


class NeedsRepair(Exception):
    """A worker met a damaged or missing record; who has the index does the segment."""


class WorkersLost(MergepipeError):
    """Whoever was given a piece of work was lost, time after time."""

    kind = "workers_lost"


class Outcome(Struct, frozen=True):
    """What came of one item: the job's value for it, blocks to store, raw bytes made.

    release   called once the blocks are written: what they are views of may be used again
    readings  for this item alone, where that is known
    """

    value: Any
    encoded: Sequence[EncodedBlock] = ()
    made_bytes: int = 0
    release: Callable[[], None] = lambda: None
    readings: Readings | None = None


class Doing(Protocol):
    """A job opened where it is done. May be used from any thread."""

    def do(self, item: Any, /) -> Outcome:
        """Do one item. Raises NeedsRepair where there is no index to mend damage with."""
        ...

    def readings(self) -> Readings:
        """What was read so far."""
        ...


@runtime_checkable
class Foresighted(Protocol):
    """A `Doing` that can say what it will read."""

    def ahead(self, item: Any, /) -> None:
        """Have what an item reads brought on its way: it is done in a moment."""
        ...


class Job(Protocol):
    """What is to be done with items. A plain value."""

    def open(self, store: ByteStore, /) -> Doing:
        """Ready to read from this store."""
        ...

    def names(self, item: Any, /) -> Sequence[str]:
        """What the item is about, for messages."""
        ...


class Place(Protocol):
    """Where a byte store is. A plain value; credentials are those of who opens it."""

    def open(self) -> ByteStore:
        """The store. Raises MergepipeError where it is not to be reached from here."""
        ...

    def settle(self, store: ByteStore, packs: Sequence[WrittenPack], /) -> tuple[WrittenPack, ...]:
        """Make packs written to the opened store durable, where the coordinator finds them."""
        ...


class WorkerSpec(Struct, frozen=True):
    """All that a worker must know: where blocks are read and packs written, and the job.

    source, target  None: the store is known here only, and the work cannot be sent elsewhere
    versions        what a worker must be of (`versions.own`)
    """

    source: Place | None
    target: Place | None
    job: Job
    versions: tuple[str, ...] = ()


class Segment(Struct, frozen=True):
    """Consecutive items, with the output they make, about, in bytes."""

    number: int
    items: tuple[Any, ...]
    made_bytes: int = 0


class SegmentResult(Struct, frozen=True):
    """What came of a segment: a value for each item, packs, bytes read, and who did it.

    attempts  readings of attempts that came to nothing, as far as they are known
    """

    number: int
    values: tuple[Any, ...]
    packs: tuple[WrittenPack, ...] = ()
    readings: Readings = NOTHING_READ
    host: str = ""
    seconds: float = 0.0
    attempts: tuple[Readings, ...] = ()


class Home(Protocol):
    """The coordinator's side: it can do everything itself, and takes over what others wrote."""

    def doing(self) -> Doing:
        """The job, opened here, where damage can be mended."""
        ...

    def target(self) -> ByteStore | None:
        """Where packs are written here; None if none are."""
        ...

    def knows(self, block: BlockId, /) -> bool:
        """Whether the store has a block, or what was taken over so far."""
        ...

    def take_over(self, result: SegmentResult, /) -> SegmentResult:
        """Make the packs of a result ours. Raises FileNotFoundError if one is gone."""
        ...

    def tidy(self) -> None:
        """Workers were lost: remove what they left behind."""
        ...

    def advance(self, made_bytes: int, pending_bytes: int = 0, /) -> None:
        """So much more was made (less, when an attempt was lost)."""
        ...


class Executor(Protocol):
    """Does segments somewhere."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether items may be done by other processes, which have no index."""
        ...

    def results(
        self, segments: Iterable[Segment], spec: WorkerSpec, home: Home
    ) -> Iterator[SegmentResult]:
        """The result of every segment, in their order; `segments` is taken from as room appears.

        Raises what the job raises, and WorkersLost.
        """
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def segmented(
    items: Iterable[Any], made_bytes: Callable[[Any], int], segment_bytes: int = SEGMENT_BYTES
) -> Iterator[Segment]:
    """Consecutive items as segments: each as many as make `segment_bytes`, or one more."""
    number, pending, size = 0, [], 0
    for item in items:
        pending.append(item)
        size += made_bytes(item)
        if size >= segment_bytes:
            yield Segment(number, tuple(pending), size)
            number, pending, size = number + 1, [], 0
    if pending:
        yield Segment(number, tuple(pending), size)


def with_attempts(result: SegmentResult, attempts: Sequence[Readings]) -> SegmentResult:
    """The result, with what earlier attempts read."""
    return replace(result, attempts=tuple(attempts)) if attempts else result
