"""Kernels run also where their compiled code cannot be kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from mergepipe.jit import kernel

@kernel("int64(int64)")
def doubled(value):
    return 2 * value

print(doubled(21))
"""


@pytest.mark.parametrize("folder", ["/dev/null/cache", "read-only"])
def test_a_kernel_runs_without_a_cache(folder: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "read-only").mkdir(mode=0o500)
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MP_KERNEL_CACHE": folder},
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "42\n", "")


def test_a_kernel_runs_where_its_code_cannot_be_saved(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script.write_text(ignore + limit + SCRIPT.replace("print(", "assert 42 == ("))
    cache = {"MP_KERNEL_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, **cache},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
