"""A server killed while it receives or takes in, with gc running there all the time."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.retries import Retries
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import ObjectId
from tests.properties.trees import scratch
from tests.repository.checkpoints import WHO

from .children import Child, serve_in_child
from .limits import LIMIT_S, Tally
from .places import Patience, Place, ssh_places, start_server
from .processes import collect_in_child
from .pushes import World, worlds_at

# One that waits for the server to come back, and one that does not.
_PATIENCE = (Patience(1.0, Retries(4, 0.1, 1.0)), Patience(1.0, Retries(0)))


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@dataclass
class Servers:
    """The server that runs now, how it is killed, and how the next one is started."""

    start: Callable[[Path], int]
    kill: Callable[[], None]


@contextmanager
def forked() -> Iterator[Servers]:
    """The code of `mp serve`, in processes that start in no time."""
    running: list[Child] = []

    def start(folder: Path) -> int:
        running.append(Child(serve_in_child, folder))
        return int(str(running[-1].wait_until_it_begins()))

    def kill() -> None:
        while running:
            running[-1].kill()
            assert running.pop().finish() == "killed"

    try:
        yield Servers(start, kill)
    finally:
        kill()


@contextmanager
def commands() -> Iterator[Servers]:
    """`mp serve` itself."""
    running = []

    def start(folder: Path) -> int:
        process, port = start_server(folder)
        running.append(process)
        return port

    def kill() -> None:
        while running:
            running[-1].kill()
            running.pop().communicate()

    try:
        yield Servers(start, kill)
    finally:
        kill()


@pytest.mark.parametrize(
    ("started", "runs"),
    [
        (forked, 4),
        pytest.param(forked, 500, marks=pytest.mark.slow),
        pytest.param(commands, 20, marks=pytest.mark.slow),
    ],
)
def test_killed_servers(
    started: Callable[[], AbstractContextManager[Servers]], runs: int, folder: Path
) -> None:
    tally = Tally(f"push http, server killed ({started.__name__})")
    with started() as servers:

        def make(folder: Path) -> Place:
            servers.kill()
            Repository.init(folder, who=WHO).close()
            return Place("http", folder, servers.start(folder))

        for world, numbers in worlds_at(make, folder, runs, seed=51):
            _killed(world, numbers, servers, tally)
    tally.show()
    assert tally["completed"] and tally["gave up"]


def _killed(world: World, numbers: range, servers: Servers, tally: Tally) -> None:
    proxy = world.proxy
    assert proxy is not None
    began = time.monotonic()
    world.push(world.grow(more=False))
    usual_s = time.monotonic() - began
    collector = Child(collect_in_child, world.place.folder)
    collector.wait_until_it_begins()
    try:
        for number in numbers:
            wanted = world.grow()
            goal = {ref.name: ref.new for ref in wanted}
            before = world.place.refs()
            settled: dict[str, ObjectId | None] = {}
            proxy.arm()
            with ThreadPoolExecutor(1) as pool:
                pushing = pool.submit(world.push, wanted, _PATIENCE[number % 2], settled)
                time.sleep(float(world.chance.uniform(0, usual_s)))
                tally.note("over before" if pushing.done() else "killed while it worked")
                servers.kill()
                world.check(before, goal, dict(settled))  # a crash, as it was left
                proxy.server_port = servers.start(world.place.folder) or proxy.server_port
                try:
                    pushing.result(LIMIT_S)
                    assert settled == goal
                    tally.note("completed")
                except RemoteUnreachable:
                    tally.note("gave up")
            tally.note("runs")
            world.check(before, goal, settled)
            world.finish(wanted)
    finally:
        collector.go()
    tally.note(*["packs left in quarantine"] * world.left)
    ended = collector.finish()
    assert ended == "done", ended


@pytest.mark.slow
def test_killed_ssh_servers(folder: Path) -> None:
    runs = 20
    tally = Tally("push ssh, server killed")
    with ssh_places(folder / "ssh") as make:
        for world, numbers in worlds_at(make, folder, runs, seed=52):
            with _killing_everywhere(world.place.folder) as servers:
                _killed(world, numbers, servers, tally)
    tally.show()
    assert tally["completed"] and tally["gave up"]


@contextmanager
def _killing_everywhere(folder: Path) -> Iterator[Servers]:
    """Kills each `mp serve --stdio` of a repository; sshd starts others itself."""

    def kill() -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _serves(entry, folder):
                os.kill(int(entry.name), signal.SIGKILL)

    yield Servers(lambda folder: 0, kill)


def _serves(process: Path, folder: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"--stdio" in words and bytes(folder) in words
