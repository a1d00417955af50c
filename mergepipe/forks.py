"""What a forked child cannot use: the parent's threads, locks and sessions."""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that has to begin anew in a child process."""

    def after_fork(self) -> None:
        """In the child: drop what is the parent's."""
        ...


def watch(thing: Forked) -> None:
    """Call `after_fork` in every child that is forked while `thing` lives."""
    _watched.add(thing)


def unwatch(thing: Forked) -> None:
    """Do that no more."""
    _watched.discard(thing)


_watched: "weakref.WeakSet[Forked]" = weakref.WeakSet()


def _after_fork() -> None:
    for thing in list(_watched):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
