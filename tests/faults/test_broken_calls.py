"""Pushes to a path: killed at any moment; with calls that fail before or after they are done."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import ObjectId
from tests.properties.trees import scratch

from .children import Child
from .limits import Tally, within_limit
from .processes import how_long, push_in_child
from .pushes import World, worlds
from .recording import Failing

RUNS = [4, pytest.param(500, marks=pytest.mark.slow)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@pytest.mark.parametrize("runs", RUNS)
def test_calls_that_fail(runs: int, folder: Path) -> None:
    tally = Tally("push file, a call fails")
    for world, numbers in worlds("file", folder, runs, seed=31):
        usual = _calls(world)
        for number in numbers:
            wanted = world.grow()
            goal = {ref.name: ref.new for ref in wanted}
            before = world.place.refs()
            at, after = int(world.chance.integers(usual)), bool(number % 2)
            settled: dict[str, ObjectId | None] = {}

            def failing(store: ByteStore, at: int = at, after: bool = after) -> ByteStore:
                return Failing(store, at, after=after)

            try:
                within_limit(lambda: world.push(wanted, settled=settled, wrap=failing))  # noqa: B023
                tally.note("completed")
            except RemoteUnreachable:
                tally.note("gave up after" if after else "gave up before")
            tally.note("runs")
            world.check(before, goal, settled)
            world.finish(wanted)
    tally.show()
    assert tally["gave up before"] and tally["gave up after"]


def _calls(world: World) -> int:
    """How many calls a push makes."""
    line = Failing(world.place.connect(), 1 << 30, after=False)
    world.push(world.grow(more=False), wrap=lambda store: _counting(line, store))
    return line.calls


def _counting(line: Failing, store: ByteStore) -> Failing:
    line.inner.close()
    line.inner = store
    return line


@pytest.mark.parametrize("runs", RUNS)
def test_killed_pushers(runs: int, folder: Path) -> None:
    tally = Tally("push file, pusher killed")
    for world, numbers in worlds("file", folder, runs, seed=32):
        killed_pushes(world, numbers, tally)
    tally.show()
    assert tally["killed"]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "runs"), [("http", 500), ("s3", 20), ("ssh", 20)])
def test_killed_pushers_elsewhere(scheme: str, runs: int, folder: Path) -> None:
    tally = Tally(f"push {scheme}, pusher killed")
    for world, numbers in worlds(scheme, folder, runs, seed=33):
        killed_pushes(world, numbers, tally)
    tally.show()
    assert tally["killed"] > runs // 3


def killed_pushes(world: World, numbers: range, tally: Tally) -> None:
    """A pusher that is killed, then one that is not."""
    source = world.folder / "source"
    usual = how_long(Child(push_in_child, source, world.place, world.grow(more=False)))
    for _ in numbers:
        wanted = world.grow()
        goal = {ref.name: ref.new for ref in wanted}
        before = world.place.refs()
        child = Child(push_in_child, source, world.place, wanted)
        child.wait_until_it_begins()
        child.go()
        time.sleep(_moment(world.chance, usual))
        child.kill()
        ended = child.finish()
        assert ended in ("killed", "done"), ended
        tally.note("runs", ended)
        world.check(before, goal, {name: goal[name] for name in child.moved})
        world.finish(wanted)


def _moment(chance: np.random.Generator, usual_s: float) -> float:
    return float(chance.uniform(0, 1.1 * usual_s))
