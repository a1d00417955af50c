"""One command, struck: killed, or failed, at a point of its work. What must then be true."""

import functools
import importlib
import json
import os
import pkgutil
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import typer.main

import mergepipe
from mergepipe import failpoints
from mergepipe.failpoints import KILL, Strike, Strikes
from tests.properties.trees import scratch
from tests.torture.models import finish, in_child, problems, unfinished

from . import ground as world
from .limits import Tally
from .verbs import Verb

_ERRORS = {"ENOSPC": (15,), "EDQUOT": (15,), "EIO": (1, 12)}


@dataclass(frozen=True, slots=True)
class Ready:
    """A verb with the world before it and after it, and what it takes."""

    verb: Verb
    kept: Path
    place: Path
    before: world.World
    after: world.World
    points: int
    names: tuple[str, ...]
    seconds: float

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        return self.verb.line(self.place)

    def fresh(self) -> None:
        """Put the world as it was before."""
        world.copied(self.kept, self.place)


@contextmanager
def grounds() -> Iterator[Callable[[Verb], Ready]]:
    """Makes verbs ready, on a disk that costs nothing where there is one."""
    with scratch() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("MP_AUTHOR", "A U Thor <a@example.org>")
        patch.setenv("MP_AUTHOR_DATE", str(world.CLOCK))
        patch.delenv("MP_DIR", raising=False)
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        _load_all()
        place = folder / "ground"
        place.mkdir()
        world.make(place)
        start = folder / "start"
        place.rename(start)

        def ready(verb: Verb) -> Ready:
            world.copied(start, place)
            verb.prepare(place)
            kept = world.copied(place, folder / "kept")
            before = _seen(place)
            names = _trace(verb.line(place), folder / "points")
            begun = time.monotonic()
            world.copied(kept, place)
            begun = time.monotonic()
            world.must(*verb.line(place))
            seconds = time.monotonic() - begun
            after = _seen(place)
            assert verb.reads == (before == after) or verb.mends or verb.quiet, verb.name
            return Ready(verb, kept, place, before, after, len(names), tuple(names), seconds)

        yield ready


def _load_all() -> None:
    """Import what commands import when they run, so that those that are forked need not."""
    world.mp("--version")
    for module in pkgutil.walk_packages(mergepipe.__path__, "mergepipe."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _trace(argv: tuple[str, ...], file: Path) -> list[str]:
    """The points that a command reaches, in order."""
    file.write_bytes(b"")

    def work() -> int:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)

        def note(name: str) -> None:
            os.write(descriptor, f"{name}\n".encode())

        failpoints.arm(note)
        return world.mp(*argv)

    assert world.quietly(work) == 0, argv
    return file.read_text().splitlines()


def _seen(place: Path) -> world.World:
    """The world, looked at in a child: this process opens no index of it."""
    reader, writer = os.pipe()

    def tell() -> None:
        found = world.look(place)
        with os.fdopen(writer, "w") as pipe:
            json.dump((found.refs, found.files), pipe)

    child = in_child(tell)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert finish(child) == 0
    refs, files = json.loads(text)
    return world.World(refs, files)


def killed_at(ready: Ready, number: int) -> int:
    """SIGKILL right before durable step `number`; the exit code."""
    return struck(ready, Strike(failpoints.ANY, KILL, number))


def struck(ready: Ready, strike: Strike) -> int:
    """Run the command with a failpoint armed; the exit code."""

    def work() -> int:
        failpoints.arm(Strikes((strike,)))
        return world.mp(*ready.argv)

    ready.fresh()
    return world.quietly(work)


def killed_after(ready: Ready, seconds: float) -> int:
    """SIGKILL after some time; the exit code."""
    ready.fresh()
    child = in_child(partial(_quiet, ready.argv))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return finish(child)


def _quiet(argv: tuple[str, ...]) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(world.mp(*argv))


def hold(ready: Ready, code: int, how: str, tally: Tally) -> None:
    """Check all that must be true after a command was struck, and that it works when done again."""
    verdict = in_child(partial(_hold, ready, code, how))
    assert finish(verdict) == 0, f"{ready.verb.name}: {how}"
    tally.note(f"{ready.verb.name}", "done" if code == 0 else "struck")


def _hold(ready: Ready, code: int, how: str) -> None:
    verb, place = ready.verb, ready.place
    now = world.look(place)
    assert not (wrong := world.between(now.refs, ready.before.refs, ready.after.refs)), wrong
    assert not (wrong := world.between(now.files, ready.before.files, ready.after.files)), wrong
    if code == 0:
        assert now == ready.after, "it said that it was done"
    for root in world.repositories(place):
        if not verb.mends:
            assert problems(root) == [], root.name
        assert world.mp("-C", str(root), "branch") == 0
    again = world.mp(*ready.argv)
    assert again in (0, *verb.again), f"done again: {again}"
    now = world.look(place)
    wanted = ready.before if verb.turns or (again and verb.leaves) else ready.after
    assert not (wrong := world.between(now.refs, wanted.refs, ready.after.refs)), wrong
    assert not (wrong := world.between(now.files, wanted.files, ready.after.files)), wrong
    for root in world.repositories(place):
        assert world.mp("-C", str(root), "gc", "--prune=now") == 0
        assert unfinished(root) == []
        assert problems(root) == [], root.name
    left = [path for path in place.rglob(".*") if world._UNFINISHED.fullmatch(path.name)]
    assert not left, left


def refused(ready: Ready, code: int, strike: Strike) -> None:
    """A step that failed is told by the exit code for it, or was of no account."""
    assert code in (0, *_ERRORS[strike.what]), (ready.verb.name, strike, code)


def at_random(ready: Ready, rng: random.Random) -> float:
    """A moment in the time that the command takes, or shortly after."""
    return rng.uniform(0, 1.1 * ready.seconds)
