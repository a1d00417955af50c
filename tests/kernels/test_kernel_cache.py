"""Kept code is stale as soon as any source beside it changes: it has their code inside."""

import os
import subprocess
import sys
from pathlib import Path

INNER = (
    "from mergepipe.kernels.declared import kernel\n@kernel()\ndef inner(x):\n    return x + {}\n"
)
OUTER = (
    "from mergepipe.kernels.declared import kernel\n"
    "from mergepipe.kernels.signatures import int64\nfrom inner import inner\n"
    "@kernel(int64(int64))\ndef outer(x):\n    return inner(x)\nprint(outer(1))\n"
)


def run(folder: Path) -> int:
    command = [sys.executable, "-B", "outer.py"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MP_KERNEL_CACHE": str(folder / "kernels"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_changing_a_called_kernel_changes_its_callers(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "inner.py").write_text(INNER.format(1))
    assert run(tmp_path) == 2
    assert list((tmp_path / "kernels").glob("*.o"))
    (tmp_path / "inner.py").write_text(INNER.format(2))
    assert run(tmp_path) == 3
