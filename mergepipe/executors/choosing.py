"""Who does the work, as typed: `auto`, `threads`, `processes:4`, `ray`, `ray://HOST:PORT`."""

from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.errors import UsageError
from mergepipe.names import quoted

if TYPE_CHECKING:
    from mergepipe.executors.segments import Executor

AUTO = "auto"
THREADS = "threads"
PROCESSES = "processes"
RAY = "ray"
_MOST = 1024
PROCESSES_FROM = 8
"""Threads of a process at and above which processes are faster (docs/scale-out.md, "How far")."""


class Choice(Struct, frozen=True):
    """An executor by its kind. count: of processes, 0 for one per core; address: of a cluster."""

    kind: str
    count: int = 0
    address: str = ""

    def executor(self, threads: int) -> "Executor":
        """It, ready; `threads` is how many there are of this process. Raises UsageError."""
        many = self.kind == AUTO and threads >= PROCESSES_FROM
        if self.kind == PROCESSES or many:
            from mergepipe.executors.processes import ProcessExecutor

            return ProcessExecutor(self.count or threads)
        if self.kind == RAY:
            from mergepipe.executors.ray_cluster import RayExecutor

            return RayExecutor(self.address, self.count)
        from mergepipe.executors.threads import ThreadExecutor

        return ThreadExecutor(threads)


def parse(text: str) -> Choice:
    """What `--on` says. Raises UsageError."""
    kind, colon, rest = text.partition(":")
    if kind == RAY and rest.startswith("//") and len(rest) > 2:
        return Choice(RAY, address=text)
    if kind in (AUTO, THREADS) and not colon:
        return Choice(kind)
    if kind in (PROCESSES, RAY):
        if not colon:
            return Choice(kind)
        if rest.isdecimal() and rest.isascii() and 1 <= int(rest[:9]) <= _MOST:
            return Choice(kind, int(rest))
    raise UsageError(
        f"nobody works on {quoted(text)}",
        "--on auto, threads, processes, processes:N, ray, ray:N, or ray://HOST:PORT",
    )
