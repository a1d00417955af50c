"""Handing segments to workers that may be lost: order, attempts, and what comes back."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

from msgspec import Struct, field

from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import (
    Executor,
    Home,
    Segment,
    SegmentResult,
    WorkersLost,
    WorkerSpec,
    with_attempts,
)
from mergepipe.names import quoted

MOST_ATTEMPTS = 3
FEWER = "fewer workers have more memory each: --on processes:N or ray:N; the same again goes on"
"""What to do where memory runs out."""


class Heard(Struct, frozen=True):
    """So much was made of a segment so far, and read for it."""

    number: int
    made_bytes: int
    readings: Readings


class Lost(Struct, frozen=True):
    """Whoever had the segment is gone. `hint`: what to do if that goes on."""

    number: int
    why: str
    hint: str = ""


class Damaged(Struct, frozen=True):
    """A record of the segment needs repair."""

    number: int
    readings: Readings


class Failed(Struct, frozen=True):
    """The job raised an error, which another attempt would raise as well."""

    number: int
    error: Exception


News: TypeAlias = Heard | Lost | Damaged | Failed | SegmentResult


class Crew(Protocol):
    """Workers. Used from one thread."""

    @property
    def size(self) -> int:
        """How many there are meant to be."""
        ...

    def begin(self, spec: WorkerSpec) -> None:
        """What follows is for this spec."""
        ...

    def free(self) -> bool:
        """Whether a worker can be given a segment."""
        ...

    def give(self, segment: Segment) -> None:
        """Give a free worker a segment."""
        ...

    def news(self) -> Iterable[News]:
        """Wait until there is something to tell. Raises WorkersLost where nobody can be left."""
        ...

    def drop(self) -> bool:
        """What is under way is wanted no more; whether anybody had to be ended for that."""
        ...


class _Pending(Struct):
    """A segment that is with a worker, or waits for its turn in the order."""

    segment: Segment
    made_bytes: int = 0
    readings: Readings = NOTHING_READ
    attempts: list[Readings] = field(default_factory=list)
    result: SegmentResult | None = None


class _Handing(Struct):
    """One run of segments through a crew."""

    crew: Crew
    spec: WorkerSpec
    home: Home
    alone: Executor
    pending: dict[int, _Pending] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    lost: bool = False

    def results(self, segments: Iterable[Segment]) -> Iterator[SegmentResult]:
        coming = iter(segments)
        exhausted = False
        order: deque[int] = deque()
        window = 2 * self.crew.size + 2
        while True:
            while self.crew.free():
                if self.again:
                    self.crew.give(self.pending[self.again.popleft()].segment)
                    continue
                segment = next(coming, None) if not exhausted and len(order) < window else None
                if segment is None:
                    exhausted = exhausted or len(order) < window
                    break
                self.pending[segment.number] = _Pending(segment)
                order.append(segment.number)
                self.crew.give(segment)
            while order and (result := self.pending[order[0]].result) is not None:
                del self.pending[order.popleft()]
                yield result
            if not order and exhausted:
                return
            # With every result taken there is room again, and perhaps nobody to hear of.
            if order or not self.crew.free():
                for news in self.crew.news():
                    self._hear(news)

    def _hear(self, news: News) -> None:
        pending = self.pending.get(news.number)
        if pending is None or pending.result is not None:
            return  # of an attempt that is no longer wanted
        match news:
            case Heard():
                self.home.advance(news.made_bytes - pending.made_bytes)
                pending.made_bytes, pending.readings = news.made_bytes, news.readings
            case Lost():
                self._try_again(pending, news.why, news.hint)
            case Damaged():
                pending.attempts.append(news.readings)
                self._take_back(pending)
                (result,) = self.alone.results([pending.segment], self.spec, self.home)
                pending.result = with_attempts(self.home.take_over(result), pending.attempts)
            case Failed():
                raise news.error
            case SegmentResult():
                try:
                    result = self.home.take_over(news)
                except FileNotFoundError:
                    pending.readings = news.readings
                    self._try_again(pending, "its pack is gone")
                    return
                self.home.advance(pending.segment.made_bytes - pending.made_bytes)
                pending.result = with_attempts(result, pending.attempts)

    def _try_again(self, pending: _Pending, why: str, hint: str = "") -> None:
        self.lost = True
        pending.attempts.append(pending.readings)
        self._take_back(pending)
        if len(pending.attempts) >= MOST_ATTEMPTS:
            items = pending.segment.items
            names = dict.fromkeys(name for item in items for name in self.spec.job.names(item))
            told = ", ".join(quoted(name) for name in list(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WorkersLost(
                f"{MOST_ATTEMPTS} workers were lost, one after the other, over {told}{more}: {why}",
                hint or "see what ends them; --on threads works in this process",
            )
        self.again.append(pending.segment.number)

    def _take_back(self, pending: _Pending) -> None:
        self.home.advance(-pending.made_bytes)
        pending.made_bytes, pending.readings = 0, NOTHING_READ


def handed_out(
    crew: Crew, segments: Iterable[Segment], spec: WorkerSpec, home: Home, alone: Executor
) -> Iterator[SegmentResult]:
    """The results of segments that a crew does, in their order; `alone` does what needs repair.

    Raises what the job raises, and WorkersLost.
    """
    crew.begin(spec)
    handing = _Handing(crew=crew, spec=spec, home=home, alone=alone)
    try:
        yield from handing.results(segments)
    finally:
        if crew.drop() or handing.lost:
            home.tidy()
