"""Pushers, fetchers and collectors in processes of their own, which may be killed."""

import contextlib
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from mergepipe.api import Repository
from mergepipe.errors import Locked, RefMoved, RemoteUnreachable
from mergepipe.transfer.fetch import fetch
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Decision, Wanted
from tests.repository.checkpoints import WHO

from .children import Child
from .places import CALM, Patience, Place
from .recording import Failing
from .source import source_of

_FETCH_PACK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Failure:
    """Call number `at` of the byte store fails, before or `after` it took effect."""

    at: int
    after: bool


def push_in_child(
    pipe: Connection,
    source: Path,
    place: Place,
    wanted: Sequence[Wanted],
    patience: Patience = CALM,
    failure: Failure | None = None,
) -> None:
    """Push, once told to."""

    def moved(decision: Decision) -> None:
        pipe.send(decision.name)

    with Repository.open(source, who=WHO) as repo, place.connect(patience) as store:
        line = store if failure is None else Failing(store, failure.at, after=failure.after)
        _begin(pipe)
        with _telling(pipe):
            push(source_of(repo), line, wanted, moved=moved)


def fetch_in_child(pipe: Connection, target: Path, place: Place) -> None:
    """Fetch from `place` into the repository at `target`, once told to."""
    with Repository.open(target, who=WHO) as repo, place.connect() as store:
        _begin(pipe)
        with _telling(pipe):
            fetch(repo, "origin", store, pack_bytes=_FETCH_PACK_BYTES)


def collect_in_child(pipe: Connection, folder: Path) -> None:
    """Collect again and again, until told to stop."""
    pipe.send("begun")
    with _telling(pipe):
        while not pipe.poll(0.4):
            with Repository.open(folder, who=WHO) as repo, contextlib.suppress(Locked):
                repo.gc(grace_s=0)


def _begin(pipe: Connection) -> None:
    pipe.send("begun")
    pipe.recv()


@contextlib.contextmanager
def _telling(pipe: Connection) -> Iterator[None]:
    try:
        yield
    except RefMoved:
        pipe.send("RefMoved")
    except RemoteUnreachable:
        pipe.send("RemoteUnreachable")
    except BaseException:
        pipe.send(f"failed: {traceback.format_exc()}")
    else:
        pipe.send("done")


def how_long(child: Child) -> float:
    """Seconds from the go to the end."""
    child.wait_until_it_begins()
    begun = time.monotonic()
    child.go()
    assert child.finish() == "done"
    return time.monotonic() - begun
