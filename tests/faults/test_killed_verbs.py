"""Every command that writes, killed before each of its durable steps, and at random moments.

The next command works unaided; refs and files are as before or as after; fsck finds nothing; done
again, the command ends where it would have ended. `FAULTS` multiplies how often the long ones go.
"""

import os
import random
from collections.abc import Callable, Iterator

import pytest

from .limits import Tally
from .striking import Ready, at_random, grounds, hold, killed_after, killed_at
from .verbs import BY_NAME, VERBS, Verb

TIMES = int(os.environ.get("FAULTS", "1"))
SHORT = ("commit", "pull", "gc", "clone")


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


@pytest.mark.parametrize("name", SHORT)
def test_killed_at_some_steps(name: str, ready: Callable[[Verb], Ready]) -> None:
    verb = ready(BY_NAME[name])
    for number in range(1, verb.points + 1, verb.points // 3):
        hold(verb, killed_at(verb, number), f"killed before step {number}", Tally(name))


def test_a_rollback_whose_files_had_not_followed_is_finished(
    ready: Callable[[Verb], Ready],
) -> None:
    verb = ready(BY_NAME["rollback"])
    moved = max(at for at, name in enumerate(verb.names, 1) if name == "reflog.write") + 6
    hold(verb, killed_at(verb, moved), f"killed before step {moved}", Tally("rollback"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_killed_at_every_step(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"killed at every step of {name}")
    verb = ready(BY_NAME[name])
    assert verb.points
    for number in range(1, verb.points + 1):
        code = killed_at(verb, number)
        hold(verb, code, f"killed before step {number}, {verb.names[number - 1]}", tally)
    tally.show()


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_killed_at_random(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"killed at random, {name}")
    verb, rng = ready(BY_NAME[name]), random.Random(name)
    for number in range(30 * TIMES):
        code = killed_after(verb, at_random(verb, rng))
        hold(verb, code, f"killed at random, {number}", tally)
    tally.show()
