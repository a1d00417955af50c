"""Turns at an index: many use it at once, or one alone changes its shape."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """Lets many in, or one. `prepare` is called by each of the many, one after the other."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    def enter(self) -> None:
        """Wait until nobody is alone; `leave` must follow. Raises what `prepare` raises."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._prepare()
            self._inside += 1

    def leave(self) -> None:
        """The end of what `enter` began."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is inside. Not for a thread that has entered: it would wait for itself."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
