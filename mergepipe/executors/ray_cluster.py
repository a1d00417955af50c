"""Actors on a Ray cluster (https://docs.ray.io), long-lived: many merges pay their start once.

The extra `mergepipe[ray]`. Ray reports usage to its makers unless told otherwise; it is told here.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from mergepipe.closing import Closing
from mergepipe.errors import RemoteUnreachable, UsageError
from mergepipe.executors.bench import Bench
from mergepipe.executors.crews import FEWER, Failed, Heard, Lost, News, handed_out
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import (
    Home,
    Segment,
    SegmentResult,
    WorkersLost,
    WorkerSpec,
)
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.worker import news_of
from mergepipe.names import quoted
from mergepipe.parallel import core_count

# How often workers are asked how far they are.
_LOOK_S = 1.0
# With no worker left, how long a cluster may take to give new ones.
_PATIENCE_S = 120.0
_GOODBYE_S = 5.0
# Of a Ray that is started here nobody looks at a dashboard: no history of tasks, no metrics of its
# servers and workers, which they otherwise make all the time. What the user has set stands.
# https://docs.ray.io/en/latest/ray-observability/ (settings are RAY_ and a name, read at start)
_QUIET = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
}


class RayExecutor(Closing):
    """Actors of a cluster; 0: as many as it has CPUs. Not for use from several threads.

    address  "": the cluster of this machine (or RAY_ADDRESS), started with this process's cores if
             there is none. Raises UsageError where Ray is not installed, RemoteUnreachable.
    """

    def __init__(self, address: str = "", count: int = 0) -> None:
        self._crew = _Actors(address, count)

    @property
    def is_elsewhere(self) -> bool:
        """Other processes, wherever the store can be opened from them."""
        return True

    def __repr__(self) -> str:
        return f"RayExecutor({self._crew.size})"

    def results(
        self, segments: Iterable[Segment], spec: WorkerSpec, home: Home
    ) -> Iterator[SegmentResult]:
        """The results; what needs repair, or can be read here only, is done by this process."""
        alone = ThreadExecutor()
        if spec.source is None:
            yield from alone.results(segments, spec, home)
            return
        yield from handed_out(self._crew, segments, spec, home, alone)

    @property
    def pids(self) -> list[int]:
        """The processes of the actors that answer, on whatever machine they are."""
        return self._crew.pids()

    def close(self) -> None:
        """Let the actors go, and the cluster, if it was started here."""
        self._crew.close()


class _Desk:
    """What an actor is: a bench, asked from one thread while it works in another."""

    def __init__(self) -> None:
        self._bench = Bench()

    def run(self, spec: WorkerSpec, segment: Segment) -> News:
        """What came of a segment."""
        return news_of(self._bench, segment, spec)

    def heard(self) -> tuple[int, Readings]:
        """How far the segment at hand is."""
        return self._bench.heard()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def rest(self) -> None:
        """Close what is open: Ray ends actors without a word, and nothing is to be left behind."""
        self._bench.close()


class _Actor(Struct):
    handle: Any
    ready: Any
    number: int | None = None
    result: Any = None
    progress: Any = None


class _Actors:
    """The crew. An actor that is lost is replaced; the new one counts once it answers."""

    def __init__(self, address: str, count: int) -> None:
        self._ray = _imported()
        self._ours = _connect(self._ray, address, count)
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        self.size = count or max(1, cpus)
        self._actors: list[_Actor] = []
        self._spec: Any = None
        self._looked = 0.0
        self._new = self._ray.remote(num_cpus=1, max_concurrency=2, max_restarts=0)(_Desk)
        for _ in range(self.size):
            self._start()

    def begin(self, spec: WorkerSpec) -> None:
        # Once in the cluster, not with every segment.
        self._spec = self._ray.put(spec)

    def free(self) -> bool:
        return self._idle() is not None

    def give(self, segment: Segment) -> None:
        actor = self._idle()
        assert actor is not None
        actor.number = segment.number
        actor.result = actor.handle.run.remote(self._spec, segment)
        actor.progress = None

    def news(self) -> Iterable[News]:
        waited = [actor.result for actor in self._busy()] + [
            actor.ready for actor in self._actors if actor.ready is not None
        ]
        ended, _ = self._ray.wait(waited, num_returns=1, timeout=_LOOK_S)
        for reference in ended:
            actor = next(one for one in self._actors if reference in (one.result, one.ready))
            if reference == actor.ready:
                self._greet(actor)
            else:
                yield self._received(actor)
        if not ended:
            yield from self._look()
        if not self._busy() and not self.free():
            self._wait_for_anyone()

    def drop(self) -> bool:
        busy = self._busy()
        for actor in busy:
            self._ray.kill(actor.handle)
            self._actors.remove(actor)
            self._start()
        self._rest()
        return bool(busy)

    def close(self) -> None:
        if not self._ray.is_initialized():
            return
        self._rest()
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)
        self._actors.clear()
        if self._ours:
            self._ray.shutdown()

    def _rest(self) -> None:
        resting = [actor.handle.rest.remote() for actor in self._actors if actor.ready is None]
        if resting:
            self._ray.wait(resting, num_returns=len(resting), timeout=_GOODBYE_S)

    def pids(self) -> list[int]:
        asked = [actor.handle.pid.remote() for actor in self._actors if actor.ready is None]
        pids = []
        for answer in asked:
            # Of one that died we hear with what it worked on, and replace it then.
            with contextlib.suppress(self._ray.exceptions.RayActorError):
                pids.append(self._ray.get(answer))
        return pids

    def _start(self) -> None:
        handle = self._new.remote()
        self._actors.append(_Actor(handle, handle.heard.remote()))

    def _idle(self) -> _Actor | None:
        return next(
            (actor for actor in self._actors if actor.ready is None and actor.number is None), None
        )

    def _busy(self) -> list[_Actor]:
        return [actor for actor in self._actors if actor.number is not None]

    def _greet(self, actor: _Actor) -> None:
        try:
            self._ray.get(actor.ready)
        except self._ray.exceptions.RayError:
            self._actors.remove(actor)
            self._start()
            time.sleep(_LOOK_S)  # a cluster that cannot start one is not asked all the time
            return
        actor.ready = None

    def _received(self, actor: _Actor) -> News:
        number = actor.number
        assert number is not None
        try:
            news: News = self._ray.get(actor.result)
        except self._ray.exceptions.RayTaskError as error:
            actor.number = None
            return Failed(number, RuntimeError(f"a worker failed:\n{error}"))
        except self._ray.exceptions.RayError as error:
            # It is gone, its node is, or the machine had no memory left.
            self._replace(actor)
            why = str(error).strip().splitlines() or [type(error).__name__]
            out_of_memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            return Lost(number, why[0], FEWER if out_of_memory else "")
        if isinstance(news, Lost):  # it has no memory left, and gives back what it holds
            self._replace(actor)
        actor.number = None
        return news

    def _replace(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle)
        self._actors.remove(actor)
        self._start()

    def _look(self) -> Iterator[News]:
        """How far everybody is: what was asked the last time is here by now."""
        for actor in self._busy():
            if actor.progress is not None:
                done, _ = self._ray.wait([actor.progress], timeout=0)
                if not done:
                    continue
                with contextlib.suppress(self._ray.exceptions.RayError):
                    made_bytes, readings = self._ray.get(actor.progress)
                    assert actor.number is not None
                    yield Heard(actor.number, made_bytes, readings)
            actor.progress = actor.handle.heard.remote()

    def _wait_for_anyone(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not self.free():
            waiting = [actor.ready for actor in self._actors if actor.ready is not None]
            ended, _ = self._ray.wait(waiting, num_returns=1, timeout=_LOOK_S)
            for reference in ended:
                self._greet(next(one for one in self._actors if one.ready == reference))
            if time.monotonic() > until:
                raise WorkersLost(
                    f"the Ray cluster gave no worker in {_PATIENCE_S:.0f} s",
                    "`ray status` shows what it has free; --on ray:N asks for fewer",
                )


def _imported() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--on ray needs Ray, which is not installed", "pip install 'mergepipe[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str, count: int) -> bool:
    """Connect to a cluster; whether that is this executor's to undo.

    One that is started here has room for `count` actors, and no process for a core that is not
    asked for: Ray starts a worker for each, at a second of processor time.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}},
    }
    wanted = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if wanted:
            ray.init(address=wanted, **options)
            return True
        try:
            ray.init(address="auto", **options)
        except ConnectionError:
            # "local" also where a cluster that is gone left its address behind.
            cpus = core_count(count)
            with _quiet():
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        raise RemoteUnreachable(
            f"no Ray cluster answers at {quoted(wanted or 'this machine')}: "
            f"{str(error).splitlines()[0]}",
            "`ray status` on its head node; docs/cluster.md",
        ) from error
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """`_QUIET` in the environment of what is started meanwhile, and no longer in ours."""
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
