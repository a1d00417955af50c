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
        assert f"lock (process {os.getpid()})" in mp("doctor").out
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
