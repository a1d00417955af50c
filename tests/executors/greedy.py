"""A job that takes more memory than there is, as long as there is little of it."""

import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mergepipe.executors.readings import NOTHING_READ
from mergepipe.executors.segments import Outcome

ROOM_BYTES = 64 << 20
TAKEN_BYTES = 512 << 20


@dataclass(frozen=True)
class Greedy:
    """Needs TAKEN_BYTES. The first `limited` processes that open it may grow by ROOM_BYTES."""

    folder: str
    limited: int

    def open(self, store):
        """Limit this process, if it is one of the first."""
        begun = len(list(Path(self.folder).iterdir()))
        (Path(self.folder) / str(begun)).touch()
        if begun < self.limited:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + ROOM_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        return self

    def names(self, item):
        """What the item is about."""
        return [f"tensor {item}"]

    def do(self, item):
        """Take memory, and say how much."""
        return Outcome(np.empty(TAKEN_BYTES, np.uint8).size, made_bytes=1)

    def readings(self):
        """Nothing is read."""
        return NOTHING_READ
