"""Functions called on threads from an event loop, and how many of them are under way."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class BusyThreads:
    """Counts the work of any number of pools."""

    def __init__(self) -> None:
        self._busy = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        """How many pieces of work are under way."""
        return self._busy

    async def run(
        self, threads: ThreadPoolExecutor, function: Callable[..., Result], *arguments: object
    ) -> Result:
        """Call a function on a thread of a pool."""

        def counted() -> Result:
            with self._lock:
                self._busy += 1
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._busy -= 1

        return await asyncio.get_running_loop().run_in_executor(threads, counted)
