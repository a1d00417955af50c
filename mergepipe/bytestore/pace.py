"""When the other side of an exchange has stopped, or moves so little that it might as well have.

A socket's timeout begins anew with each byte, so a peer that sends one byte every 29 seconds is
never late. Here bytes count, not calls.
"""

import time
from collections.abc import Callable

IDLE_S = 30.0
"""How long an exchange may go without `LEAST_BYTES` or its end."""
LEAST_BYTES = 128 << 10
LONGEST_WORK_S = 6 * 3600.0
"""How long the other side may say "still working" before it has to answer."""


class Stalled(TimeoutError):
    """Nothing, or next to nothing, came or went for too long."""


class Pace:
    """The clock of one exchange; `now` gives seconds that never go back."""

    def __init__(self, idle_s: float = IDLE_S, now: Callable[[], float] = time.monotonic) -> None:
        self.idle_s = idle_s
        self._now = now
        self._began = now()
        self._deadline = self._began + idle_s
        self._moved = 0

    def left(self) -> float:
        """Seconds that may pass until something has to move. Raises Stalled if none are left."""
        left = self._deadline - self._now()
        if left <= 0:
            raise Stalled(f"nothing came for {self.idle_s:g} s")
        return left

    def moved(self, count: int) -> None:
        """Bytes came or went."""
        self._moved += count
        if self._moved >= LEAST_BYTES:
            self.restart()

    def restart(self) -> None:
        """A step of the exchange is done: the next one has its own time."""
        self._moved = 0
        self._deadline = self._now() + self.idle_s

    def alive(self) -> None:
        """The other side says that it is still at work. Raises Stalled if it said so for hours."""
        if self._now() - self._began > LONGEST_WORK_S:
            raise Stalled(f"no answer within {LONGEST_WORK_S / 3600:g} hours")
        self.restart()
