"""Threads of this process: items of one segment and the next run side by side."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.executors.packing import SegmentPacks
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.segments import (
    Home,
    Outcome,
    Segment,
    SegmentResult,
    WorkerSpec,
)
from mergepipe.parallel import core_count, ordered_map


class ThreadExecutor(Struct, frozen=True):
    """Threads of this process; 0: one per core. Two items more than threads are in flight."""

    threads: int = 0
    is_elsewhere: ClassVar[bool] = False

    def results(
        self, segments: Iterable[Segment], spec: WorkerSpec, home: Home
    ) -> Iterator[SegmentResult]:
        """The results, as packs are written by the thread that asks for them."""
        threads = core_count(self.threads)
        begun: list[Segment] = []

        def items() -> Iterator[object]:
            for segment in segments:
                begun.append(segment)
                yield from segment.items

        doing = home.doing()
        counted = Readings()
        with ThreadPoolExecutor(threads, thread_name_prefix="work") as pool:
            outcomes = ordered_map(pool, doing.do, items(), window=threads + 2)
            while (first := next(outcomes, None)) is not None:
                result, known = _collected(first, outcomes, begun.pop(0), home)
                if not known:
                    readings = doing.readings()  # and of what was begun of segments that follow
                    result = replace(result, readings=readings - counted)
                    counted = readings
                yield result

    def close(self) -> None:
        """Threads end with each run."""


def _collected(
    first: Outcome, outcomes: Iterator[Outcome], segment: Segment, home: Home
) -> tuple[SegmentResult, bool]:
    """The result of a segment of which the first outcome is here, and others follow.

    With it, whether all items said what was read for them.
    """
    target = home.target()
    started = time.perf_counter()
    packs = None if target is None else SegmentPacks(target, home.knows)
    values = []
    readings, known = NOTHING_READ, True
    try:
        for number in range(len(segment.items)):
            outcome = first if number == 0 else next(outcomes)
            if packs is not None:
                packs.add(outcome.encoded)
            outcome.release()
            if outcome.readings is None:
                known = False
            else:
                readings += outcome.readings
            values.append(outcome.value)
            home.advance(outcome.made_bytes, 0 if packs is None else packs.pending_bytes)
        written = () if packs is None else packs.finish()
    finally:
        if packs is not None:
            packs.abort()
    seconds = time.perf_counter() - started
    result = SegmentResult(segment.number, tuple(values), written, readings, seconds=seconds)
    return result, known
