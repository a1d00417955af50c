"""Ray's own memory monitor ends actors: each is tried again, then the error says what to do.

The monitor looks at the memory of the whole machine (RAY_memory_usage_threshold): it is set a
little above what is in use, and an actor takes more than is left below.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mergepipe.executors.crews import FEWER
from mergepipe.executors.home import Coordinator
from mergepipe.executors.places import FilesPlace
from mergepipe.executors.ray_cluster import RayExecutor
from mergepipe.executors.readings import NOTHING_READ
from mergepipe.executors.segments import Outcome, Segment, WorkersLost, WorkerSpec
from mergepipe.executors.versions import own_versions
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.progress import SILENT
from tests.executors.ray_sessions import small_ray

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the monitor is of Linux"),
]
ROOM = 0.08  # of the machine's memory, from what is used to the threshold
STEP_BYTES = 64 << 20


def memory():
    """The machine's memory and what of it is free, in bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))


@dataclass(frozen=True)
class Taking:
    """Takes memory for as long as it lives, up to a limit."""

    most_bytes: int

    def open(self, store):
        """Nothing to open."""
        return self

    def names(self, item):
        """What the item is about."""
        return [f"tensor {item}"]

    def do(self, item):
        """Take it; the monitor looks four times a second."""
        held: list[object] = []
        while len(held) * STEP_BYTES < self.most_bytes:
            held.append(np.ones(STEP_BYTES, np.uint8))
            time.sleep(0.02)
        time.sleep(5)
        return Outcome(len(held))

    def readings(self):
        """Nothing is read."""
        return NOTHING_READ


def test_an_actor_that_the_monitor_ends_is_tried_again_and_then_told(tmp_path, monkeypatch):
    total, free = memory()
    if free < total * 3 * ROOM:
        pytest.skip("there is too little free memory for the machine's sake")
    monkeypatch.setenv("RAY_memory_usage_threshold", str(round(1 - free / total + ROOM, 3)))
    (tmp_path / "packs").mkdir()
    # A cluster of somebody else has another threshold.
    with (
        small_ray(num_cpus=1),
        RayExecutor("", 1) as executor,
        pytest.raises(WorkersLost) as raised,
    ):
        job = Taking(int(total * 2 * ROOM))
        spec = WorkerSpec(FilesPlace(str(tmp_path)), None, job, own_versions())
        home = Coordinator(job, ObjectsInMemory(), SILENT)
        list(executor.results([Segment(0, (0,), 1)], spec, home))
    assert "tensor 0" in raised.value.message and "memory" in raised.value.message
    assert raised.value.hint == FEWER
