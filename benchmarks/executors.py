"""What handing work out costs, and what more cores could give: threads, processes:2, Ray.

python benchmarks/executors.py [MEGABYTES] [ROUNDS] [SEGMENT_MEBIBYTES]

Makes a base of so many megabytes (64) and two fine-tunes; merges in segments of so many mebibytes
(8, so that a small model has several; a merge's are 256), by each executor in turn, so often (3),
after one merge that starts it. Processor times of this process and all that it started (of
Ray: its own servers, too), as medians with their spread, and ratios to threads. What the executor's
processes take when nothing is asked of them is measured beside it, for as long as a merge takes.
Then, by one thread: how much of the processor time of commit, merge and checkout holds the
interpreter lock, and what the main thread takes by itself.
"""

import ctypes
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
from msgspec.structs import replace
from two_versions import write_family

from mergepipe.api import Repository
from mergepipe.executors.choosing import parse
from mergepipe.executors.ray_cluster import RayExecutor
from mergepipe.executors.segments import Executor

WHO = "Bench <bench@example.org>"
EXPERTS = ("a", "b")
_SAMPLE_US = 200
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


_IDLE_S = 20.0


def processor_seconds(above: int) -> dict[int, float]:
    """Processor seconds so far of every process under one, by process id."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            seconds[pid] = (int(fields[11]) + int(fields[12])) * _TICK_S
            children.setdefault(int(fields[1]), []).append(pid)
    pending, found = [*children.get(above, ())], dict[int, float]()
    while pending:
        pid = pending.pop()
        found[pid] = seconds[pid]
        pending += children.get(pid, ())
    return found


def others(executor: Any) -> tuple[float, float]:
    """Processor seconds so far of an executor's workers, and of what else it had to start.

    Of the executors here only Ray has anything else: servers that every session of it runs.
    """
    pids = set(getattr(executor, "pids", []))
    by_process = processor_seconds(os.getpid())
    workers = sum(by_process.get(pid, 0.0) for pid in pids)
    if not isinstance(executor, RayExecutor):
        return workers, 0.0
    names = ("raylet", "gcs_server", "ray")
    servers = 0.0
    for pid, seconds in by_process.items():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if pid not in pids and any(name in command for name in names):
                servers += seconds
    return workers, servers


@dataclass(frozen=True)
class Took:
    """Processor seconds of this process, the workers, and Ray's servers, and how long it was.

    first_s  until the executor was given a first segment
    """

    here_s: float
    workers_s: float
    servers_s: float
    wall_s: float
    first_s: float

    @property
    def all_s(self) -> float:
        """Of everybody."""
        return self.here_s + self.workers_s + self.servers_s


def merge(repository: Repository, executor: Executor, number: int, segment_bytes: int) -> Took:
    """One merge by an executor, taking no remembered result.

    Each `number` weighs the experts otherwise, so that its blocks are new: those that the store has
    already are read and compared by the coordinator, which is not what a merge does.
    """
    first: list[float] = []

    @dataclass
    class Timed:
        is_elsewhere = executor.is_elsewhere

        def results(self, segments: Any, spec: Any, home: Any) -> Any:
            given = time.monotonic()

            def told() -> Any:
                waited = time.monotonic() - given
                for segment in segments:
                    laid_out = time.monotonic()
                    yield segment
                    first.append(waited + time.monotonic() - laid_out)

            return executor.results(told(), spec, home)

        def close(self) -> None:
            """The executor's owner closes it."""

    weights = [1.0, 1 + number / 1000]
    began, (workers, servers), here = time.monotonic(), others(executor), time.process_time()
    with repository.on(Timed()):
        planned = repository.plan(
            experts=list(EXPERTS), base="base", method="ties", weights=weights
        )
        engine = replace(repository.merging.engine(), segment_bytes=segment_bytes)
        engine.execute(planned.plan, reuse=False)
    took = time.process_time() - here
    after = others(executor)
    wall = time.monotonic() - began
    return Took(took, after[0] - workers, after[1] - servers, wall, first[0])


def idle(executor: Any) -> float:
    """Processor seconds a second that an executor takes, all of it, while nothing is asked."""
    before, here = sum(others(executor)), time.process_time()
    time.sleep(_IDLE_S)
    return (sum(others(executor)) - before + time.process_time() - here) / _IDLE_S


def show(name: str, values: list[float], scale: float, base: float | None = None) -> str:
    """A median with its spread, per MiB, and its ratio."""
    told = [value * scale for value in sorted(values)]
    ratio = "" if base is None else f"  {median(values) / base:.2f}x"
    return f"{name:14} {median(told):7.3f} ms/MiB ({told[0]:.3f} to {told[-1]:.3f}){ratio}"


def executors(repository: Repository, mebibytes: float, rounds: int, segment_bytes: int) -> None:
    """Merges by threads, two processes and Ray in turn."""
    kinds = ["threads", "processes:2"]
    try:
        import ray  # noqa: F401
    except ImportError:
        print("Ray is not installed: pip install 'mergepipe[ray]'")
    else:
        kinds.append("ray:2")
    made = {kind: parse(kind).executor(2) for kind in kinds}
    took: dict[str, list[Took]] = {kind: [] for kind in kinds}
    merges = count()
    try:
        for number in range(rounds + 1):
            for kind in kinds if number % 2 else kinds[::-1]:
                one = merge(repository, made[kind], next(merges), segment_bytes)
                if number:
                    took[kind].append(one)
        rest = {kind: idle(made[kind]) for kind in kinds[1:]}
    finally:
        for executor in made.values():
            executor.close()
    scale = 1000 / mebibytes
    base = median(one.all_s for one in took["threads"])
    print("merge, processor time of everybody:")
    for kind in kinds:
        print(" ", show(kind, [one.all_s for one in took[kind]], scale, base))
    for kind in kinds[1:]:
        wall = median(one.wall_s for one in took[kind])
        servers = [one.servers_s for one in took[kind]]
        print(" ", show(f"  {kind}'s servers", servers, scale))
        print(
            f"    idle, {kind} takes {rest[kind] * 1000:.1f} ms a second: "
            f"{rest[kind] * wall * scale:.3f} ms/MiB in the {wall:.1f} s that a merge takes"
        )
    print("merge, processor time of the coordinator alone, planning included:")
    for kind in kinds[1:]:
        here = median(one.here_s for one in took[kind])
        whole = median(one.all_s for one in took[kind])
        print(" ", show(kind, [one.here_s for one in took[kind]], scale), amdahl(here / whole))
        first = [one.first_s for one in took[kind]]
        print(f"    until a started executor has its first segment: {median(first):.3f} s")


def amdahl(serial: float) -> str:
    """What 16 and 64 cores give where this share is done by one at a time."""
    gains = ", ".join(f"{n} cores {1 / (serial + (1 - serial) / n):.1f}x" for n in (16, 64))
    return f"  {serial:.1%} by one at a time: {gains}"


class LockHeld:
    """Looks, from outside of it, whether any thread holds the interpreter lock."""

    def __init__(self) -> None:
        # The thread state of the holder is global up to Python 3.11, and each thread's own later.
        self.usable = sys.version_info < (3, 12)
        # Samples, those in which it was held, and whether to end.
        self._counts = np.array([0, 0, 1])
        self._sample = _sampler()
        self._sample(self._counts)  # compiled before anything is measured

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample meanwhile."""
        self._counts[:] = 0
        thread = threading.Thread(target=self._sample, args=(self._counts,))
        thread.start()
        try:
            yield
        finally:
            self._counts[2] = 1
            thread.join()

    @property
    def share(self) -> float:
        """Of the samples, those in which it was held."""
        return float(self._counts[1] / max(1, self._counts[0]))


def _sampler() -> Any:
    holder = ctypes.pythonapi._PyThreadState_UncheckedGet
    holder.restype, holder.argtypes = ctypes.c_size_t, []
    nap = ctypes.CDLL(None).usleep
    nap.restype, nap.argtypes = ctypes.c_int, [ctypes.c_uint]

    @numba.njit(nogil=True)
    def sample(counts: Any) -> None:
        while not counts[2]:
            nap(_SAMPLE_US)
            counts[0] += 1
            if holder():
                counts[1] += 1

    return sample


@dataclass
class Alone:
    """What one working thread took: processor seconds, of the main thread, share under the lock."""

    whole: list[float]
    main: list[float]
    share: list[float]

    @contextmanager
    def measuring(self, held: LockHeld) -> Iterator[None]:
        """Measure meanwhile."""
        whole, main = time.process_time(), time.thread_time()
        with held.sampling():
            yield
        self.whole.append(time.process_time() - whole)
        self.main.append(time.thread_time() - main)
        self.share.append(held.share)


def alone(where: Path, mebibytes: float, rounds: int, segment_bytes: int) -> None:
    """The interpreter lock, and the main thread, by one working thread."""
    held = LockHeld()
    took = {name: Alone([], [], []) for name in ("commit", "merge", "checkout")}
    one = parse("threads").executor(1)
    for number in range(rounds + 1):
        if number == 1:  # the first round loaded what there is to load
            took = {name: Alone([], [], []) for name in took}
        root = where / f"single-{number}"
        with Repository.init(root, who=WHO) as repository, repository.on(one):
            repository.configure("core.threads", "1")
            repository.commit(where / "base", branch="base", message="base")
            repository.commit(where / EXPERTS[1], branch=EXPERTS[1], base="base", message="b")
            with took["commit"].measuring(held):
                repository.commit(where / EXPERTS[0], branch=EXPERTS[0], base="base", message="a")
            with took["merge"].measuring(held):
                merge(repository, one, 0, segment_bytes)
            with took["checkout"].measuring(held):
                repository.checkout(EXPERTS[0], to=root / "out")
        shutil.rmtree(root)
    print("one thread: processor time, and how much of it holds the interpreter lock")
    for name, each in took.items():
        lock = amdahl(median(each.share)) if held.usable else "  (of Python 3.11 alone)"
        print(" ", show(name, each.whole, 1000 / mebibytes), lock)
        print("   ", show("main thread", each.main, 1000 / mebibytes))


def main(megabytes: int, rounds: int, segment_mebibytes: int) -> None:
    """Make the family, and measure."""
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        write_family(where, megabytes)
        mebibytes = (where / "base" / "model.safetensors").stat().st_size / (1 << 20)
        with Repository.init(where / "repository", who=WHO) as repository:
            repository.commit(where / "base", branch="base", message="base")
            for name in EXPERTS:
                repository.commit(where / name, branch=name, base="base", message=name)
            executors(repository, mebibytes, rounds, segment_mebibytes << 20)
        alone(where, mebibytes, rounds, segment_mebibytes << 20)


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:4]]
    main(*(sizes + [64, 3, 8][len(sizes) :]))
