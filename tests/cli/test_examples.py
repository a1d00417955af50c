"""The examples run as they are written."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import ROOT
from tests.cli.models import tensors, write_model


def test_the_python_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/python_api.py", tmp_path / "example"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    )
    assert "bit for bit the same: True" in done.stdout
    assert "A fine-tune" in done.stdout


def test_the_shell_tour(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    program = commands / "mp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mergepipe "$@"\n')
    program.chmod(0o755)
    base = write_model(tmp_path / "base")
    tuned = write_model(tmp_path / "tuned", tensors(changed=0.5))
    done = subprocess.run(
        ["sh", ROOT / "examples/tour.sh", base, tuned, tmp_path / "models"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ok: no problems" in done.stdout
