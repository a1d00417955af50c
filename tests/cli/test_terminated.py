"""SIGTERM, as a scheduler sends it when a job's time is up, to a process amid its work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Mp
from tests.cli.models import tensors, write_model

TIES = ["merge", "math", "code", "--base", "base", "-b", "merged"]
# The signal is sent where work has begun, so that no clock decides when.
TERMINATED = """
import os, signal, sys
from mergepipe.cli import progress

def advance(self, raw_bytes, stored_bytes=0):
    os.kill(os.getpid(), signal.SIGTERM)

progress.TracedProgress.advance = advance
from mergepipe.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def terminated(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, *(str(each) for each in arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "interrupted"), done


def left_over(repository: Path) -> list[str]:
    return [path.name for path in (repository / ".mergepipe" / "tmp").iterdir()]


def test_commit(committed: Path, tmp_path: Path, mp: Mp) -> None:
    other = write_model(tmp_path / "other", tensors(1))
    terminated("commit", other)
    assert len(mp("log", "--json").document) == 1
    assert left_over(committed) == []
    mp("commit", other)


def test_merge(merging: Path, tmp_path: Path, mp: Mp) -> None:
    out = tmp_path / "out"
    terminated(*TIES, "--out", out)
    assert left_over(merging) == []
    assert not out.exists()
    assert "merged" not in mp("branch").out
    mp(*TIES, "--out", out)
    assert mp("verify", out, "merged").code == 0


def test_fetch_and_clone(committed: Path, tmp_path: Path, mp: Mp) -> None:
    folder = tmp_path / "clones"
    folder.mkdir()
    terminated("clone", committed, folder / "c")
    assert not (folder / "c").exists()
    mp("clone", committed, folder / "c")
    assert [path.name for path in folder.iterdir()] == ["c"]
    mp("commit", write_model(tmp_path / "other", tensors(1)), "-b", "other")
    terminated("-C", folder / "c", "fetch")
    assert left_over(folder / "c") == []
    mp("-C", folder / "c", "fetch")
    assert mp("-C", folder / "c", "verify", tmp_path / "other", "origin/other").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_ignores_a_signal_goes_on(committed: Path, tmp_path: Path, number: int) -> None:
    """As under `nohup`, or a parent that wants its children to finish."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            TERMINATED.replace("SIGTERM", signal.Signals(number).name),
            "commit",
            str(write_model(tmp_path / "other", tensors(1))),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert done.returncode == 0
