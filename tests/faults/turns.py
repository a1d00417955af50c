"""Processes that take turns, as a seed says: which of them goes on, and for how many steps.

A step is what others can tell: a file of a repository opened, renamed or removed, a folder listed,
a lock tried, a durable step (failpoints). Between two of them only one process runs, so a seed
plays the same race on a fast machine and on a slow one; no sleep and no clock decides.
"""

import contextlib
import fcntl
import os
import random
import select
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mergepipe import failpoints
from mergepipe.repository.layout import DIRECTORY
from tests.torture.models import finish, in_child

_STEPS = frozenset(
    ("open", "os.rename", "os.remove", "os.link", "os.utime", "os.scandir", "os.listdir")
)
_LENGTHS = (1, 1, 2, 4, 8, 16, 40)
# Who is let go and says nothing for so long waits for another inside of LMDB: that one goes on.
_SILENT_S = 2.0


class _Pauses:
    """In a process: counts its steps, and stands still when it has taken those it was given."""

    def __init__(self, told: int, asked: int) -> None:
        self._told, self._asked = told, asked
        self._left = 0
        self._one_thread = threading.Lock()
        self._inside = threading.local()

    def step(self, name: str) -> None:
        """A failpoint; of those within a transaction of the index others cannot be let in."""
        if not name.startswith("index."):
            self._take()

    def audited(self, event: str, arguments: tuple[object, ...]) -> None:
        """What Python tells of calls to the system (PEP 578)."""
        if getattr(self._inside, "yes", False):
            return
        if event == "fcntl.flock":
            self._take()
            descriptor, operation = arguments
            assert isinstance(descriptor, int) and isinstance(operation, int)
            self._lock(descriptor, operation)
        elif event in _STEPS and _is_of_a_repository(arguments[0]):
            self._take()

    def _lock(self, descriptor: int, operation: int) -> None:
        """Who would wait for a lock stands still; it is held when the call itself is made."""
        if operation & (fcntl.LOCK_NB | fcntl.LOCK_UN):
            return
        while True:
            self._inside.yes = True
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._take(all_of_them=True)
            finally:
                self._inside.yes = False

    def _take(self, *, all_of_them: bool = False) -> None:
        with self._one_thread:
            self._left = 0 if all_of_them else self._left - 1
            if self._left <= 0:
                os.write(self._told, b".")
                given = os.read(self._asked, 1)
                self._left = given[0] if given else 1 << 60


def _is_of_a_repository(place: object) -> bool:
    return isinstance(place, str | bytes | os.PathLike) and DIRECTORY in os.fsdecode(place)


def take_turns(works: Sequence[Callable[[], int]], seed: int) -> tuple[list[int], int]:
    """Do each in a process of its own; their exit codes, and how often the turn changed."""
    chance = random.Random(seed)
    children: list[int] = []
    tells: dict[int, int] = {}  # by what a process tells: what it is told
    for work in works:
        telling, told = os.pipe()
        asked, asking = os.pipe()
        others = (*tells, *tells.values(), telling, asking)

        def begin(
            work: Callable[[], int] = work,
            ends: tuple[int, int] = (told, asked),
            others: Sequence[int] = others,
        ) -> None:
            for descriptor in others:
                os.close(descriptor)
            _begin(work, ends)

        children.append(in_child(begin))
        os.close(told)
        os.close(asked)
        tells[telling] = asking
    changes = _let_go(tells, chance)
    for telling, asking in tells.items():
        os.close(telling)
        os.close(asking)
    return [finish(child) for child in children], changes


def _begin(work: Callable[[], int], ends: tuple[int, int]) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if "FAULTS_LOUD" not in os.environ:
            os.dup2(nowhere.fileno(), 2)
    pauses = _Pauses(*ends)
    failpoints.arm(pauses.step)
    sys.addaudithook(pauses.audited)
    os._exit(work())


def _let_go(tells: dict[int, int], chance: random.Random) -> int:
    """Until all are done: let one that stands still take some steps."""
    left, still = list(tells), set[int]()
    changes, last = 0, -1
    while left:
        waiting = [each for each in left if each in still]
        if waiting:
            chosen = chance.choice(waiting)
            changes += chosen != last
            last = chosen
            still.discard(chosen)
            with contextlib.suppress(BrokenPipeError):
                os.write(tells[chosen], bytes([chance.choice(_LENGTHS)]))
        moving = [each for each in left if each not in still]
        ready, _, _ = select.select(moving, [], [], _SILENT_S if waiting else None)
        for each in ready:
            if os.read(each, 1):
                still.add(each)
            else:
                left.remove(each)
    return changes
