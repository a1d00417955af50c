"""Reads that fail and calls that do half of what they were asked to, under every command.

A read that fails is told by an exit code, or was of no account: it is never damage to be mended, so
nothing is lost by it, and with the disk well again all is as it was. Calls that move less than they
were asked to change nothing at all.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.torture.syscalls import require_strace

from .limits import Tally
from .striking import Ready, grounds, hold
from .system_calls import files_read, in_small_pieces, unreadable
from .verbs import BY_NAME, READERS, VERBS, Verb

_TOLD = (0, 1, 12)
WHEN = ("1+", "2+")
"""All reads of a file fail, or all but the first: a bad sector further on."""


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


def fail_reads(verb: Ready, every: int, tally: Tally) -> None:
    """Let every `every`-th file be unreadable, each in two ways."""
    files = files_read(verb, verb.place.parent / "reads")
    assert files or verb.verb.name == "init"
    for path in files[::every]:
        for when in WHEN:
            code = unreadable(verb, path, when)
            how = f"reads {when} of {path.relative_to(verb.place)} fail"
            assert code in _TOLD, (verb.verb.name, how, code)
            hold(verb, code, how, tally)


@pytest.mark.parametrize("name", ["commit", "fetch", "log"])
def test_some_files_cannot_be_read(name: str, ready: Callable[[Verb], Ready]) -> None:
    require_strace()
    fail_reads(ready(BY_NAME[name]), every=9, tally=Tally(name))


@pytest.mark.parametrize("name", ["commit", "pull", "switch", "fsck"])
def test_calls_that_do_a_part(name: str, ready: Callable[[Verb], Ready]) -> None:
    verb = ready(BY_NAME[name])
    code = in_small_pieces(verb, seed=0)
    assert code == 0
    hold(verb, code, "in small pieces", Tally(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in (*VERBS, *READERS)])
def test_no_file_can_be_read(name: str, ready: Callable[[Verb], Ready]) -> None:
    require_strace()
    tally = Tally(f"unreadable files under {name}")
    fail_reads(ready(BY_NAME[name]), every=1, tally=tally)
    tally.show()


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in (*VERBS, *READERS)])
def test_calls_that_do_a_part_many_times(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"calls that do a part, under {name}")
    verb = ready(BY_NAME[name])
    for seed in range(10):
        code = in_small_pieces(verb, seed)
        assert code == 0, seed
        hold(verb, code, f"in small pieces, {seed}", tally)
    tally.show()
