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
UNWRITABLE = {
    # numba's own choice of folders, cut down to one that nobody can make
    "no folder": {
        "NUMBA_CACHE_LOCATOR_CLASSES": "_UserProvidedCacheLocator",
        "NUMBA_CACHE_DIR": "/dev/null/cache",
    },
}


@pytest.mark.parametrize("environment", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_kernel_runs_without_a_cache(environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "42\n", "")


def test_a_kernel_runs_where_its_code_cannot_be_saved(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script.write_text(ignore + limit + SCRIPT.replace("print(", "assert 42 == ("))
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, **cache},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
