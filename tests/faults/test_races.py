"""Two pushers, each a process, that both want one ref to be elsewhere."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from mergepipe.ids import ObjectId
from mergepipe.transfer.push_refs import Wanted
from tests.properties.trees import scratch

from .children import Child
from .limits import Tally, within_limit
from .places import CALM, HASTY
from .processes import Failure, push_in_child
from .proxy import Effect
from .pushes import World, worlds
from .source import Models, source_of

EFFECTS = {
    "http": tuple(Effect),
    "forked": tuple(Effect),
    "s3": tuple(Effect),
    "ssh": (Effect.CUT, Effect.STALL, Effect.LOST),
    "file": (),
}
LONG = [("file", 500), ("http", 500), ("s3", 20), ("ssh", 20)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@pytest.mark.parametrize("faulty", [False, True], ids=["fine", "faulty"])
@pytest.mark.parametrize(
    ("scheme", "runs"),
    [
        ("file", 3),
        ("forked", 3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in LONG),
    ],
)
def test_races(scheme: str, runs: int, faulty: bool, folder: Path) -> None:
    tally = Tally(f"race {scheme}{', faults' if faulty else ''}")
    for world, numbers in worlds(scheme, folder, runs, seed=41 + faulty):
        # The same history to begin with, and other models from then on.
        rival = Models(world.folder / "rival", int(world.seed))
        rival.chance = np.random.default_rng(world.seed + 1)
        assert rival.root == world.models.root
        try:
            for number in numbers:
                tally.note("runs", *_race(world, rival, number, faulty=faulty))
        finally:
            rival.close()
    tally.show()
    if not faulty:
        assert tally["done"] == tally["RefMoved"] == runs
    elif runs >= 20:
        assert tally["done"] and tally["RefMoved"]


@pytest.mark.parametrize(
    ("scheme", "runs"),
    [
        ("file", 3),
        ("forked", 3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in LONG),
    ],
)
def test_the_same_from_three(scheme: str, runs: int, folder: Path) -> None:
    """The same packs at once, to one ref or to three: everybody gets through."""
    tally = Tally(f"the same from three {scheme}")
    for world, numbers in worlds(scheme, folder, runs, seed=43):
        for number in numbers:
            tip = world.models.tune()
            one = bool(world.chance.random() < 0.5)
            refs = [f"refs/heads/same-{number}-{0 if one else at}" for at in range(3)]
            before = world.place.refs()
            children = [
                Child(push_in_child, world.folder / "source", world.place, [Wanted(ref, tip)])
                for ref in refs
            ]
            for child in children:
                child.wait_until_it_begins()
            for child in children:
                child.go()
            ended = [child.finish() for child in children]
            assert ended == ["done"] * 3
            goal: dict[str, ObjectId | None] = dict.fromkeys(refs, tip)
            world.check(before, goal, goal)
            world.check_nothing_is_left()
            tally.note("runs", "one ref" if one else "three refs")
    tally.show()


def _race(world: World, rival: Models, number: int, *, faulty: bool) -> list[str]:
    """One race; how the two ended."""
    chance = world.chance
    name, ref = f"race-{number}", f"refs/heads/race-{number}"
    models = {"source": world.models, "rival": rival}
    if world.proxy is not None:
        world.proxy.arm()
    old = None
    if chance.random() < 0.5:  # it is there, and both go forward
        old = world.models.root
        world.push([Wanted(ref, old)])
    mine = {who: each.branch_off(name) for who, each in models.items()}
    before = world.place.refs()
    if faulty and world.proxy is not None:
        world.proxy.arm(world.faults(EFFECTS[world.place.scheme], 4))
    children = {
        who: Child(
            push_in_child,
            world.folder / who,
            world.place,
            [Wanted(ref, commit)],
            HASTY[chance.integers(len(HASTY))] if faulty else CALM,
            _failure(chance) if faulty and world.place.scheme == "file" else None,
        )
        for who, commit in mine.items()
    }
    for child in children.values():
        child.wait_until_it_begins()
    for who in chance.permutation(sorted(children)):
        children[who].go()
    ended = {who: child.finish() for who, child in children.items()}
    assert set(ended.values()) <= {"done", "RefMoved", "RemoteUnreachable"}, ended
    won = [who for who, how in ended.items() if how == "done"]
    assert len(won) <= 1, "both were told that they won"
    assert faulty or (won and sorted(ended.values()) == ["RefMoved", "done"]), ended
    after = world.check(before, {ref: world.place.refs().get(ref)}, {})
    assert after.get(ref) in (old, *mine.values())
    moves = _moves(world, ref, after)
    for who, how in ended.items():
        if how == "done":
            assert mine[who] in moves, "an acknowledged push is not there"
        if how == "RefMoved":
            assert mine[who] not in moves, "a false conflict"
            assert after.get(ref) != old, "a conflict with nobody"
    _loser_insists(world, models, ref, mine, after)
    return list(ended.values())


def _failure(chance: np.random.Generator) -> Failure:
    """A call that fails; often one that is never made."""
    return Failure(int(chance.integers(40)), after=bool(chance.random() < 0.5))


def _moves(world: World, ref: str, after: Mapping[str, ObjectId | None]) -> list[ObjectId | None]:
    """Where a ref was and is: by the reflog, where there is one."""
    if world.place.bucket:
        return [after.get(ref)]
    with world.place.opened() as repo:
        assert repo.refs.reflog is not None
        return [entry.new for entry in repo.refs.reflog.read(ref)]


def _loser_insists(
    world: World,
    models: Mapping[str, Models],
    ref: str,
    mine: Mapping[str, ObjectId],
    after: Mapping[str, ObjectId | None],
) -> None:
    """Whoever has not won gets through by force, without faults."""
    loser = next(who for who, commit in sorted(mine.items()) if after.get(ref) != commit)
    wanted = [Wanted(ref, mine[loser], force=True)]
    if world.proxy is not None:
        world.proxy.arm()
    settled: dict[str, ObjectId | None] = {}
    source = source_of(models[loser].repo)
    within_limit(lambda: world.push(wanted, settled=settled, source=source))
    assert settled == {ref: mine[loser]}
    world.check(after, settled, settled)
