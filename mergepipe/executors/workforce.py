"""Who does the work on one store, and what comes of jobs that only read."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct, field

from mergepipe.executors.home import Coordinator
from mergepipe.executors.segments import (
    SEGMENT_BYTES,
    Doing,
    Executor,
    Job,
    Place,
    Segment,
    SegmentResult,
    WorkerSpec,
    segmented,
)
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.versions import own_versions
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.progress import SILENT, Progress


def nowhere(writes: bool) -> None:
    """The place of a store that only this process can open."""


class Workforce(Struct, frozen=True):
    """An executor, and where it finds a store.

    place          where other processes find the store, to write or only to read; None: they do not
    segment_bytes  of what is handed out at once, about
    """

    executor: Executor = field(default_factory=ThreadExecutor)
    place: Callable[[bool], Place | None] = nowhere
    segment_bytes: int = SEGMENT_BYTES

    def is_elsewhere(self, writes: bool) -> bool:
        """Whether items may be done where there is no index, and have to say where records are."""
        return self.executor.is_elsewhere and self.place(writes) is not None

    def spec(self, job: Job, writes: bool) -> WorkerSpec:
        """What workers must know of a job."""
        place = self.place(writes)
        # Threads of this process are of its version, and need not load every method to say so.
        versions = own_versions() if self.is_elsewhere(writes) else ()
        return WorkerSpec(place, place if writes else None, job, versions)

    def answers(
        self,
        items: Iterable[Any],
        made_bytes: Callable[[Any], int],
        job: Job,
        doing: Doing,
        progress: Progress = SILENT,
        note: Callable[[SegmentResult], None] = lambda result: None,
    ) -> Iterator[tuple[Any, Any]]:
        """Every item with its value, in order, of a job that writes nothing.

        `doing`: the job as it is done here. `note` hears what was read, and who did it. Raises what
        the job raises, and WorkersLost.
        """
        begun: dict[int, Segment] = {}

        def segments() -> Iterator[Segment]:
            for segment in segmented(items, made_bytes, self.segment_bytes):
                begun[segment.number] = segment
                yield segment

        home = Coordinator(doing, ObjectsInMemory(), progress)
        for result in self.executor.results(segments(), self.spec(job, writes=False), home):
            note(result)
            yield from zip(begun.pop(result.number).items, result.values, strict=True)
