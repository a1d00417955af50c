"""`mp doctor`, and the step before the first long work of an installation."""

import os
from pathlib import Path

import pytest

from mergepipe.repository import layout, locks
from tests.cli.conftest import Mp


def test_it_works_outside_of_a_repository(tmp_path: Path, mp: Mp) -> None:
    document = mp("doctor", "--json").document
    assert document["repository"] is None
    assert document["packages"]["numba"]
    said = mp("doctor").out
    assert "mergepipe" in said
    assert "kernels" in said


def test_it_names_the_process_that_holds_a_lock(repository: Path, mp: Mp) -> None:
    assert "none is held" in mp("doctor").out
    with locks.acquire(repository / ".mergepipe" / layout.LOCK, timeout_s=1):
        said = mp("doctor").out
        assert f"lock (process {os.getpid()}: " in said
        [held] = mp("doctor", "--json").document["repository"]["locks"]
        assert (held["name"], held["process"]) == ("lock", os.getpid())
        assert "python" in held["command"]
        assert held["age_s"] > 0
    assert "none is held" in mp("doctor").out


def test_kernels_are_kept_where_it_is_told(
    committed: Path, model: Path, tmp_path: Path, process: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one test that compiles them all. The second process finds them, and may not write."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv("MP_KERNEL_CACHE", str(folder))
    assert not process("doctor", "--json").document["kernels"]["complete"]
    refused = process("commit", tmp_path / "absent", expect=1)
    assert "compiling" not in refused.err
    first = process("commit", model, "-b", "other", "-m", "Compiles")
    assert first.err.startswith("compiling kernels, once")
    found = process("doctor", "--json").document["kernels"]
    assert found == {"directory": str(folder), "writable": True, "complete": True}
    for place in (folder, *folder.iterdir()):
        if place.is_dir():
            place.chmod(0o500)
    second = process("commit", model, "-b", "another", "-m", "Reads")
    assert "compiling" not in second.err


def test_it_says_who_works_and_on_what(committed: Path, mp: Mp) -> None:
    from mergepipe.api import Repository

    with Repository.open(committed) as repo:
        repo.command = "mp merge"
        with repo.writing():
            assert f"mp merge (process {os.getpid()} on " in mp("doctor").out
            [work] = mp("doctor", "--json").document["repository"]["working"]
            assert (work["command"], work["process"]) == ("mp merge", os.getpid())
    here = mp("doctor", "--json").document["repository"]
    assert here["working"] == []
    assert here["file_system"]
    assert here["locks_work"]
    assert 0 < here["index"]["used_bytes"] <= here["index"]["map_bytes"]
    assert 0 <= here["index"]["readers"] < here["index"]["most_readers"]
    assert here["clock_ahead_s"] == 0


def test_it_tells_of_a_clock_that_is_wrong_and_a_damaged_index(committed: Path, mp: Mp) -> None:
    pack = next((committed / ".mergepipe/packs").iterdir())
    later = pack.stat().st_mtime + 3 * 86400
    os.utime(pack, (later, later))
    assert "2 days in the future" in mp("doctor").out


def test_file_systems_without_locks(
    repository: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergepipe.bytestore import flocks
    from mergepipe.repository import health

    monkeypatch.setattr(health, "_NETWORK", frozenset([flocks.mount_of(repository)[0]]))
    assert "locks are as good as its server's" in mp("doctor").out
