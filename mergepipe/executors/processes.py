"""Processes of this machine. They have no interpreter lock in common, and live until `close`.

Each has a pipe of its own: a worker that is killed can leave no lock held that others wait for,
as it can with a shared queue.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path

from msgspec import Struct

from mergepipe.closing import Closing
from mergepipe.executors.crews import FEWER, Heard, Lost, News, handed_out
from mergepipe.executors.segments import (
    Home,
    Segment,
    SegmentResult,
    WorkersLost,
    WorkerSpec,
)
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.parallel import core_count

# A worker that dies before it has done anything would be started for ever.
_MOST_DEATHS = 32
_GOODBYE_S = 5.0
WORKER = "mergepipe.executors.worker"


class ProcessExecutor(Closing):
    """Processes of this machine; 0: one per core. Of several threads one at a time has them."""

    def __init__(self, count: int = 0) -> None:
        self._crew = _Processes(core_count(count))
        self._busy = threading.Lock()

    @property
    def is_elsewhere(self) -> bool:
        """Other processes, wherever the store can be opened from them."""
        return True

    def __repr__(self) -> str:
        return f"ProcessExecutor({self._crew.size})"

    def results(
        self, segments: Iterable[Segment], spec: WorkerSpec, home: Home
    ) -> Iterator[SegmentResult]:
        """The results; what needs repair, or can be read here only, is done by this process.

        So is a lone segment, which threads share among them, and what is asked for from another
        thread while the processes are at work.
        """
        alone = ThreadExecutor(self._crew.size)
        if spec.source is None or not self._busy.acquire(blocking=False):
            yield from alone.results(segments, spec, home)
            return
        try:
            coming = iter(segments)
            begun = list(islice(coming, 2))
            if len(begun) < 2:
                yield from alone.results(begun, spec, home)
            else:
                yield from handed_out(self._crew, chain(begun, coming), spec, home, alone)
        finally:
            self._busy.release()

    @property
    def pids(self) -> list[int]:
        """The processes that there are now."""
        return self._crew.pids()

    def close(self) -> None:
        """End the processes."""
        self._crew.close()


class _Worker(Struct):
    process: subprocess.Popen[bytes]
    line: Connection
    spec: WorkerSpec | None = None
    number: int | None = None


class _Processes:
    """The crew: a worker is started when it is first needed, and again when it dies."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[_Worker] = []
        self._spec: WorkerSpec | None = None
        self._deaths = 0

    def begin(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._deaths = 0

    def free(self) -> bool:
        return len(self._workers) < self.size or any(
            worker.number is None for worker in self._workers
        )

    def give(self, segment: Segment) -> None:
        idle = next((worker for worker in self._workers if worker.number is None), None)
        worker = idle or self._start()
        worker.number = segment.number
        # One that is dead already is noticed by `news`.
        with contextlib.suppress(OSError):
            if worker.spec != self._spec:
                worker.line.send(self._spec)
                worker.spec = self._spec
            worker.line.send(segment)

    def news(self) -> Iterable[News]:
        busy = {worker.line: worker for worker in self._workers if worker.number is not None}
        for line in wait(list(busy)):
            assert isinstance(line, Connection)
            worker = busy[line]
            try:
                news: News = line.recv()
            except (EOFError, OSError):
                yield self._bury(worker)
                continue
            if isinstance(news, Lost):  # it has no memory left, and gives back what it holds
                worker.process.terminate()
                self._bury(worker)
            elif not isinstance(news, Heard):
                worker.number = None
            yield news

    def drop(self) -> bool:
        busy = [worker for worker in self._workers if worker.number is not None]
        for worker in busy:
            worker.process.terminate()
            self._bury(worker)
        for worker in self._workers:
            worker.spec = None
            with contextlib.suppress(OSError):
                worker.line.send(None)
        return bool(busy)

    def close(self) -> None:
        for worker in self._workers:
            worker.line.close()
        for worker in self._workers:
            try:
                worker.process.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def _start(self) -> _Worker:
        # Neither forked, as threads of this process may hold locks, nor spawned by
        # multiprocessing, which runs the user's script once more.
        here, there = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _path()},
        )
        there.close()
        worker = _Worker(process, Connection(here.detach()))
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> Lost:
        self._workers.remove(worker)
        worker.line.close()
        code = worker.process.wait()
        assert worker.number is not None
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            raise WorkersLost(
                f"{self._deaths} worker processes ended while they worked",
                "see what ends them (memory?); --on threads works in this process",
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        # A kernel without memory kills so, and says so in its log.
        hint = f"if memory ran out (dmesg): {FEWER}" if code == -signal.SIGKILL else ""
        return Lost(worker.number, f"a worker process ended with {how}", hint)


def _path() -> str:
    """Where workers find this very mergepipe."""
    package = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
