"""The threads of a hub: what reads disks, decodes or commits runs here, not on the event loop."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mergepipe.parallel import core_count
from mergepipe.transfer.serving.busy_threads import BusyThreads

_ANSWERING = 8
_FETCHING = 16
_COMMITTING = 2
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Work:
    """Pools of threads by what they do, so that none stands in line with what takes longer."""

    def __init__(self) -> None:
        self.calls = BusyThreads()
        self.cores = core_count()
        self._answering = ThreadPoolExecutor(_ANSWERING, thread_name_prefix="hub")
        self.decoding = ThreadPoolExecutor(self.cores, thread_name_prefix="hub-decode")
        self.fetching = ThreadPoolExecutor(_FETCHING, thread_name_prefix="hub-fetch")
        """For what has to come from elsewhere before it is decoded."""
        self.committing = ThreadPoolExecutor(_COMMITTING, thread_name_prefix="hub-commit")

    async def call(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Call what looks something up, or writes a little."""
        return await self.calls.run(
            self._answering, functools.partial(function, *arguments, **named)
        )
