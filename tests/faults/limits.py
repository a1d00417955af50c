"""No run may hang; what came of many runs."""

import faulthandler
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

LIMIT_S = 900.0
"""What takes longer hangs, on a busy machine too: the idle timeout is half a second, the tries are
a handful."""

Made = TypeVar("Made")


@dataclass
class Tally:
    """What happened in many runs; printed at the end."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, *what: str) -> None:
        """Count each of these."""
        self.counts.update(what)

    def __getitem__(self, what: str) -> int:
        return self.counts[what]

    def show(self) -> None:
        """Print, for the report of a long run (pytest -rP)."""
        said = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
        print(f"faults: {self.name}: {said}")


def within_limit(work: Callable[[], Made], limit_s: float = LIMIT_S) -> Made:
    """What `work` gives, on another thread. Fails if that takes too long."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="run")
    try:
        return pool.submit(work).result(limit_s)
    except TimeoutError as error:
        faulthandler.dump_traceback(sys.stderr)
        raise AssertionError(f"it hangs: not done after {limit_s:g} s") from error
    finally:
        pool.shutdown(wait=False)


def soon(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Whether something comes true before long: another process has to notice first."""
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
