"""Clocks that are wrong: by decades, either way, or that go back while a command runs.

Every command ends as it would have; nothing that is alive or young goes.
"""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from . import ground as world
from .limits import Tally
from .striking import Ready, grounds, hold
from .verbs import BY_NAME, READERS, TIMED, VERBS, Verb

CLOCKS = {
    "1970": (5.0, 1.0),
    "2001, before all that is there": (1e9, 1.0),
    "after the 31 bits": (2.0**31 + 5, 1.0),
    "after the 32 bits": (2.0**32 + 5, 1.0),
    "the year 10000": (253_402_300_805.0, 1.0),
    "back by an hour each time": (float(world.CLOCK), -3600.0),
    "back by a year each time": (2.0**31, -366 * 86400.0),
}
"""Where a clock begins, and how far it goes between two looks at it; both in seconds."""


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


def set_clock(clock: str) -> None:
    """In this process, from now on; dates of commits are by the clock, too."""
    start_s, step_s = CLOCKS[clock]
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return start_s + looks * step_s

    time.time = now
    time.time_ns = lambda: int(1e9 * now())
    os.environ.pop("MP_AUTHOR_DATE", None)


def run_at(verb: Ready, clock: str, tally: Tally) -> None:
    """The command with a wrong clock; then the rest of life with the right one."""

    def work() -> int:
        set_clock(clock)
        return world.mp(*verb.argv)

    verb.fresh()
    code = world.quietly(work)
    assert code == 0, f"{verb.verb.name}, {clock}: {code}"
    hold(verb, code, clock, tally)


@pytest.mark.parametrize("name", ["commit", "gc with grace", "prune with grace"])
@pytest.mark.parametrize("clock", ["1970", "the year 10000"])
def test_a_wrong_clock(name: str, clock: str, ready: Callable[[Verb], Ready]) -> None:
    run_at(ready(BY_NAME[name]), clock, Tally(name))


@pytest.mark.parametrize("clock", ["1970", "back by an hour each time"])
def test_what_is_young_stays_when_the_clock_goes_back(
    clock: str, ready: Callable[[Verb], Ready]
) -> None:
    """A branch that was just removed is there to be had back after a gc in the past."""
    verb = ready(BY_NAME["undo"])

    def collect() -> int:
        set_clock(clock)
        return world.mp("-C", str(verb.place / "repo"), "gc")

    verb.fresh()
    assert world.quietly(collect) == 0
    code = world.run(*verb.argv)
    assert code == 0
    hold(verb, code, f"gc at {clock}", Tally("undo"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in (*VERBS, *READERS, *TIMED)])
def test_every_wrong_clock(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"wrong clocks under {name}")
    verb = ready(BY_NAME[name])
    for clock in CLOCKS:
        run_at(verb, clock, tally)
    tally.show()
