"""Pushes over lines that are cut, stall, lose replies, or lead to servers in trouble."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties.trees import scratch

from .proxy import Effect
from .pushes import broken_pushes

KINDS = {
    "cut": (Effect.CUT,),
    "stalled": (Effect.STALL,),
    "replies-lost": (Effect.LOST,),
    "5xx": (Effect.REFUSED, Effect.GATEWAY),
    "all": tuple(Effect),
}
# What an http proxy answers means nothing in the middle of an ssh connection.
LONG = [
    *(("http", kind, 500) for kind in KINDS),
    *(("s3", kind, 20) for kind in KINDS),
    *(("ssh", kind, 20) for kind in ("cut", "stalled", "replies-lost")),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


def test_pushes(folder: Path) -> None:
    tally = broken_pushes("forked", list(KINDS.values()), folder, runs=10, seed=5)
    assert tally["struck"] >= 5
    assert tally["gave up"]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "kind", "runs"), LONG)
def test_many_pushes(scheme: str, kind: str, runs: int, folder: Path) -> None:
    tally = broken_pushes(scheme, [KINDS[kind]], folder, runs, seed=len(kind) * 1000 + runs)
    assert tally["runs"] == runs
    assert tally["struck"] >= runs // 2
    assert tally["gave up"] < runs
    assert tally["gave up"] or scheme == "s3"  # whose library tries again as it likes
