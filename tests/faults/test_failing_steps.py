"""Every durable step of every command that writes may fail: a full disk, a quota, a bad sector.

A failure is told by its exit code, or was of no account; refs and files are as before or as after,
and the command works as soon as there is room again.
"""

from collections.abc import Callable, Iterator

import pytest

from mergepipe.failpoints import ANY, Strike

from .limits import Tally
from .striking import Ready, grounds, hold, refused, struck
from .verbs import BY_NAME, VERBS, Verb


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


def fail(verb: Ready, strike: Strike, tally: Tally) -> None:
    """Let a step fail, and check."""
    code = struck(verb, strike)
    refused(verb, code, strike)
    where = strike.point if strike.at is None else verb.names[strike.at - 1]
    hold(verb, code, f"{strike.what} at {where}, {strike.at}", tally)


@pytest.mark.parametrize("name", ["commit", "switch"])
@pytest.mark.parametrize("what", ["ENOSPC", "EIO"])
def test_some_steps_fail(name: str, what: str, ready: Callable[[Verb], Ready]) -> None:
    verb = ready(BY_NAME[name])
    for number in range(2, verb.points + 1, verb.points // 2):
        fail(verb, Strike(ANY, what, number), Tally(name))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_every_step_fails(name: str, what: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"{what} at every step of {name}")
    verb = ready(BY_NAME[name])
    for number in range(1, verb.points + 1):
        fail(verb, Strike(ANY, what, number), tally)
    tally.show()


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS if not verb.mends])
def test_a_disk_that_stays_full(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"a full disk under {name}")
    verb = ready(BY_NAME[name])
    for point in ("file.write", "export.write", "index.commit", "reflog.write", "file.create"):
        if point in verb.names:
            fail(verb, Strike(point, "ENOSPC"), tally)
    tally.show()
