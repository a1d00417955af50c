"""Memory that runs out in a worker: others go on, or an error says so and what is done is kept."""

import sys

import pytest

from mergepipe.executors.home import Coordinator
from mergepipe.executors.places import FilesPlace
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.executors.segments import Segment, WorkersLost, WorkerSpec
from mergepipe.executors.versions import own_versions
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.progress import SILENT
from tests.executors.family import Killing, copied, family, leftovers, merged, runs_left
from tests.executors.greedy import TAKEN_BYTES, Greedy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc of Linux")


@pytest.fixture
def folder(tmp_path):
    """Where workers leave their marks; the store beside it is empty."""
    (tmp_path / "packs").mkdir()
    (tmp_path / "begun").mkdir()
    return tmp_path


def greedy(folder, executor, limited):
    job = Greedy(str(folder / "begun"), limited)
    spec = WorkerSpec(FilesPlace(str(folder)), None, job, own_versions())
    home = Coordinator(job, ObjectsInMemory(), SILENT)
    segments = [Segment(number, (number,), 1) for number in range(3)]
    return list(executor.results(segments, spec, home))


def test_who_has_no_memory_left_is_replaced(folder):
    with ProcessExecutor(1) as executor:
        results = greedy(folder, executor, 1)
    assert [result.values for result in results] == [(TAKEN_BYTES,)] * 3
    assert len(results[0].attempts) == 1 and not results[1].attempts
    assert len(list((folder / "begun").iterdir())) == 2


def test_where_nobody_has_memory_the_error_says_so(folder):
    with ProcessExecutor(1) as executor, pytest.raises(WorkersLost) as raised:
        greedy(folder, executor, 99)
    assert "tensor 0" in raised.value.message and "no memory left" in raised.value.message
    assert "fewer workers" in raised.value.hint


def test_a_merge_that_ran_out_of_memory_goes_on_later(tmp_path, monkeypatch):
    """Workers that are started from the fourth segment on are given too little to begin with."""
    with family(tmp_path) as repo, copied(repo, tmp_path / "other") as other:
        threads, _ = merged(repo, "threads")
        small = tmp_path / "python"
        small.write_text(f'#!/bin/sh\nulimit -v 65536\nexec {sys.executable} "$@"\n')
        small.chmod(0o755)

        class Starving(Killing):
            def _after(self, number):
                if number == 3:
                    monkeypatch.setattr(sys, "executable", str(small))
                    super()._after(number)

        with ProcessExecutor(1) as executor, pytest.raises(WorkersLost, match=r"layer\."):
            merged(other, Starving(executor, {3}))
        monkeypatch.undo()
        assert runs_left(other)
        processes, result = merged(other, "threads")
        assert processes == threads and result.costs.resumed >= 2
        assert other.fsck(read_data=True).ok
        assert not leftovers(other) and not runs_left(other)
