"""A repository that grows, one that receives it over a line that breaks, and what must hold."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.packs.format import RecordHeader
from mergepipe.packs.reader import read_footer
from mergepipe.packs.view import View
from mergepipe.repository.layout import DIRECTORY
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Decision, Wanted
from mergepipe.transfer.quarantine import Quarantine
from mergepipe.transfer.source import Source

from .limits import Tally, soon, within_limit
from .places import CALM, HASTY, Make, Patience, Place, places
from .proxy import Effect, Fault, Proxy, Traffic, proxied
from .recording import Recorder, recording
from .source import Models, source_of

# What goes to a server beside packs: at first, and with every exchange (signed, for a bucket).
_ASIDE_BYTES = {"http": (8 << 10, 512), "s3": (8 << 10, 1200), "ssh": (20 << 10, 64)}
_RUNS_PER_WORLD = 25
MAIN = "refs/heads/main"
Refs = Mapping[str, ObjectId | None]


class World:
    """A source, and the place it is pushed to."""

    def __init__(self, folder: Path, place: Place, seed: int) -> None:
        self.folder = folder
        self.place = place
        self.seed = seed
        self.models = Models(folder / "source", seed)
        self.chance = np.random.default_rng(seed)
        self.proxy: Proxy | None = None
        self.usual = Traffic(0, 0, 0, ())
        self._others: list[str] = []
        self.left = 0
        """Packs found in quarantine when all was done."""

    @contextmanager
    def connected(self) -> Iterator["World"]:
        """A proxy before the server, where there is one; main is there, usual traffic is known."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.models.close)
            if self.place.port:
                self.proxy = stack.enter_context(proxied(self.place.port))
                self.place = replace(self.place, line=self.proxy.port)
            self.push([Wanted(MAIN, self.models.root)])
            if self.proxy is not None:
                self.proxy.arm()
                self.push(self.grow(more=False))
                self.usual = self.proxy.traffic
            yield self

    def grow(self, *, more: bool = True) -> list[Wanted]:
        """Something new to push: a fine-tune on main, perhaps other refs that come and go."""
        wanted = [Wanted(MAIN, self.models.tune())]
        if more and self.chance.random() < 0.3:
            name = f"other-{self.models.count}"
            ref = f"refs/heads/{name}"
            wanted.append(Wanted(ref, self.models.branch_off(name)))
            if self._others and self.chance.random() < 0.5:
                wanted.append(Wanted(self._others.pop(), None))
            self._others.append(ref)
        return wanted

    def push(
        self,
        wanted: Sequence[Wanted],
        patience: Patience = CALM,
        settled: dict[str, ObjectId | None] | None = None,
        wrap: Callable[[ByteStore], ByteStore] = lambda store: store,
        source: Source | None = None,
    ) -> Recorder:
        """One push. What was settled is noted as it happens: the push may fail afterwards."""

        def moved(decision: Decision) -> None:
            if settled is not None:
                settled[decision.name] = decision.new

        with self.place.connect(patience) as store:
            line = recording(wrap(store))
            self.last = line
            push(source or source_of(self.models.repo), line, wanted, moved=moved)
        return line

    def faults(self, effects: Sequence[Effect], most: int = 3) -> list[Fault]:
        """Some faults, somewhere in what a push usually moves."""
        return [self._fault(effects) for _ in range(self.chance.integers(1, most, endpoint=True))]

    def _fault(self, effects: Sequence[Effect]) -> Fault:
        effect = Effect(self.chance.choice(list(effects)))
        if effect in (Effect.CUT, Effect.STALL):
            to_server = bool(self.chance.random() < 0.5)
            reach = self.usual.up if to_server else self.usual.down
            return Fault(effect, int(self.chance.integers(reach)), to_server)
        return Fault(effect, int(self.chance.integers(self.usual.exchanges)))

    # What must hold

    def check(self, before: Refs, wanted: Refs, settled: Refs) -> Refs:
        """Each ref where it was or where it was to go, those told of there, and all of it whole."""
        now: Refs = self.place.refs()
        for name in {*before, *wanted, *now}:
            old = before.get(name)
            allowed = [wanted[name]] if name in settled else [old, wanted.get(name, old)]
            assert now.get(name) in allowed, f"{name}: {now.get(name)!r} is none of {allowed}"
        if now == before and self.chance.random() < 0.8:
            return now  # nothing was taken in; what lies in quarantine is looked at in the end
        with self.place.opened() as repo:
            report = repo.fsck(read_data=True)
        assert report.ok, report.problems
        return now

    def check_nothing_is_left(self) -> None:
        """No unfinished packs, once servers have noticed, and none in quarantine that matters.

        Whoever was killed after copying what was needed out of a pack leaves it, for gc to remove.
        """
        if self.place.bucket:
            return
        directory = self.place.folder / DIRECTORY
        assert soon(lambda: not _files(directory / "tmp")), _files(directory / "tmp")
        left = [PackId(bytes.fromhex(path.stem)) for path in directory.glob("incoming/*.pack")]
        self.left += len(left)
        if left:
            with self.place.opened() as repo, Quarantine(directory) as quarantine:
                for pack in left:
                    _, records = read_footer(quarantine.packs, pack)
                    assert repo.storage.ask(partial(_has_all, records=records)), "not taken in"

    def aside_bytes(self, traffic: Traffic) -> int:
        """What may have gone to the server that was no pack."""
        base, each = _ASIDE_BYTES[self.place.scheme]
        return base + each * traffic.exchanges

    def finish(self, wanted: Sequence[Wanted]) -> Recorder:
        """A push without faults: it completes, and sends nothing that had arrived whole."""
        if self.proxy is not None:
            self.proxy.arm()
        arrived, there = self.place.packs(), self.place.refs()
        # Where the first push removed a ref, there is none to remove.
        wanted = [ref for ref in wanted if ref.new is not None or ref.name in there]
        settled: dict[str, ObjectId | None] = {}
        line = within_limit(lambda: self.push(wanted, settled=settled))
        assert not arrived & line.sizes.keys(), "a pack that was there was sent again"
        goal = {ref.name: ref.new for ref in wanted}
        assert settled == goal
        self.check(there, goal, settled)
        self.check_nothing_is_left()
        if self.proxy is not None:
            spent = self.proxy.traffic.up - sum(line.sizes.values())
            assert spent < self.aside_bytes(self.proxy.traffic), spent
        return line


def _has_all(view: View, records: Sequence[tuple[RecordHeader, int]]) -> bool:
    return all(
        view.object(ObjectId(header.id)) is not None or view.has_block(BlockId(header.id))
        for header, _ in records
    )


def _files(folder: Path) -> list[str]:
    """Files in it, at any depth; those that go meanwhile are none."""
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def worlds(scheme: str, folder: Path, runs: int, seed: int) -> Iterator[tuple[World, range]]:
    """A fresh world for every few runs, so that none grows large; and the numbers of those."""
    with places(scheme, folder) as make:
        yield from worlds_at(make, folder, runs, seed)


def worlds_at(make: Make, folder: Path, runs: int, seed: int) -> Iterator[tuple[World, range]]:
    """The same, in places that `make` makes."""
    for first in range(0, runs, _RUNS_PER_WORLD):
        numbers = range(first, min(runs, first + _RUNS_PER_WORLD))
        inner = folder / f"world-{first}"
        inner.mkdir()
        with World(inner, make(inner / "there"), seed + first).connected() as world:
            yield world, numbers
        shutil.rmtree(inner, ignore_errors=True)


def broken_pushes(
    scheme: str, kinds: Sequence[Sequence[Effect]], folder: Path, runs: int, seed: int
) -> Tally:
    """Pushes over a line that breaks, each followed by one over a line that does not."""
    tally = Tally(f"push {scheme} {'; '.join('+'.join(effects) for effects in kinds)}")
    for world, numbers in worlds(scheme, folder, runs, seed):
        assert world.proxy is not None
        for number in numbers:
            effects = kinds[number % len(kinds)]
            patience = HASTY[number // len(kinds) % len(HASTY)]
            wanted = world.grow()
            goal = {ref.name: ref.new for ref in wanted}
            before = world.place.refs()
            world.proxy.arm(world.faults(effects))
            settled: dict[str, ObjectId | None] = {}
            try:
                # RefMoved would be a false conflict; nothing but a broken line may be told.
                within_limit(partial(world.push, wanted, patience, settled))
                assert settled == goal
                tally.note("completed")
            except RemoteUnreachable:
                tally.note("gave up")
            traffic = world.proxy.traffic
            tally.note("runs", "struck" if traffic.struck else "not struck")
            tally.note(*(f"{fault.effect}s" for fault in traffic.struck))
            first = world.last
            world.check(before, goal, settled)
            second = world.finish(wanted)
            check_bytes(world, traffic, first, second)
    tally.show()
    return tally


def check_bytes(world: World, traffic: Traffic, first: Recorder, second: Recorder) -> None:
    """Each fault may cost the pack that was on its way, and no other."""
    packs = first.sizes | second.sizes
    resent = traffic.up + sum(second.sizes.values()) - sum(packs.values())
    most = len(traffic.struck) * max(packs.values(), default=0)
    aside = world.aside_bytes(traffic) * (1 + len(traffic.struck))  # ssh connects again each time
    assert resent < most + aside, (resent, most, aside)
