"""Named points before each durable step, where tests end the process or make the step fail.

Off, a point costs a look at one variable. `MERGEPIPE_FAILPOINTS`, read when this is imported, says
what happens where: `file.rename@2=kill,index.commit=ENOSPC` kills the process right before the
second rename, and lets each write to the index fail. `*` is any point: `*@17=kill`. What
is promised of a process that ends so, and how often it was tried, is in docs/reliability.md.
"""

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct, field

VARIABLE: Final = "MERGEPIPE_FAILPOINTS"
ANY: Final = "*"
KILL: Final = "kill"


class Strike(Struct, frozen=True):
    """What happens at a point: `what` is `kill`, or an errno's name.

    It happens the `at`-th time that the point is reached, from 1, or each time.
    """

    point: str
    what: str
    at: int | None = None


class Strikes(Struct):
    """Counts how often each point was reached, from any thread, and strikes."""

    strikes: tuple[Strike, ...]
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str) -> None:
        """Count, and strike if it is time. Raises OSError."""
        with self.lock:
            for point in (name, ANY):
                self.counts[point] += 1
            hits = [
                strike
                for strike in self.strikes
                if strike.point in (name, ANY) and strike.at in (None, self.counts[strike.point])
            ]
        for strike in hits:
            if strike.what == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            number = getattr(errno, strike.what)
            raise OSError(number, f"{os.strerror(number)} (failpoint {name})")


def parse(text: str) -> tuple[Strike, ...]:
    """What a value of MERGEPIPE_FAILPOINTS says. Raises ValueError."""
    return tuple(_parse_one(part.strip()) for part in text.split(",") if part.strip())


def _parse_one(text: str) -> Strike:
    where, _, what = text.partition("=")
    point, _, at = where.partition("@")
    known = what == KILL or isinstance(getattr(errno, what, None), int)
    if not point or not known or (at and not at.isdecimal()):
        raise ValueError(f"{VARIABLE}: {text!r} is not NAME[@N]=kill or NAME[@N]=ERRNO")
    return Strike(point, what, int(at) if at else None)


def arm(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of each point that is reached from now on; None turns it off."""
    global _hook
    _hook = hook


def reached(name: str) -> None:
    """A durable step follows. Does nothing unless something was armed. May raise OSError."""
    if _hook is not None:
        _hook(name)


_hook: Callable[[str], None] | None = None
if VARIABLE in os.environ:
    arm(Strikes(parse(os.environ[VARIABLE])))
