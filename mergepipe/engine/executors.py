"""Where units of work run: threads of this process now; the seam for a cluster later.

An executor takes work in order and gives results back in that order, with a bounded number of works
begun and not yet taken. Work is a plain value and idempotent, so another executor may send it
elsewhere, or run it twice.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mergepipe.engine.work import Work
from mergepipe.parallel import core_count, ordered_map

Made = TypeVar("Made")


class Executor(Protocol):
    """Runs work somewhere."""

    def results(self, works: Iterable[Work], run: Callable[[Work], Made]) -> Iterator[Made]:
        """`run` of every work, in the order of `works`, which is taken from as room appears."""
        ...


@dataclass(frozen=True, slots=True)
class ThreadExecutor:
    """Threads of this process; 0: one per core. Two works more than threads are in flight."""

    threads: int = 0

    def results(self, works: Iterable[Work], run: Callable[[Work], Made]) -> Iterator[Made]:
        """`run` of every work, on the pool."""
        threads = core_count(self.threads)
        with ThreadPoolExecutor(threads, thread_name_prefix="merge") as pool:
            yield from ordered_map(pool, run, works, window=threads + 2)
