"""The examples run as they stand, and show what they say they show."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, directory: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_budget_sweep(tmp_path: Path) -> None:
    shown = run(ROOT / "examples/budget_sweep.py", tmp_path / "out", directory=tmp_path)
    means = [float(mean) for mean in re.findall(r'"mean": ([\d.]+)', shown)]
    assert len(means) == 4
    assert min(means) == means[-1]  # the exact merge is the best
    assert (tmp_path / "out/sweep.svg").read_text().startswith("<svg")


def test_adapters_and_one_tensor(tmp_path: Path) -> None:
    shown = run(ROOT / "examples/lora_adapters.py", tmp_path / "out", directory=tmp_path)
    difference = re.search(r"float64: (\S+)", shown)
    assert difference is not None
    assert float(difference[1]) < 1e-6
    one = ROOT / "examples/one_tensor.py"
    repository = tmp_path / "out/repository"
    assert len(run(one, repository, "base", directory=tmp_path).splitlines()) == 4
    name = "model.layers.0.self_attn.q_proj.weight"
    compared = run(one, repository, "base..both", name, directory=tmp_path)
    assert "half way between them" in compared


def test_the_notebook(tmp_path: Path) -> None:
    """Its cells in order, as code: what a kernel adds is not ours to test."""
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    # It leaves its repository to who reads on.
    assert "energy_kept" in run(script, directory=tmp_path, TMPDIR=str(tmp_path))
    assert all(cell["outputs"] == [] for cell in cells)


@pytest.mark.slow
def test_the_cluster_demo(tmp_path: Path) -> None:
    for name in ("ray", "moto", "obstore"):
        pytest.importorskip(name)
    shown = run(ROOT / "examples/cluster_demo/run.py", tmp_path / "out", directory=tmp_path)
    assert "killing the second node" in shown
    assert shown.count("  same\n") == 5
    assert "DIFFERENT" not in shown
    assert "the push sent 0 blocks" in shown
    grown = re.search(r"grew by (\S+) KiB for (\d+) MiB", shown)
    assert grown is not None
    assert float(grown[1].replace(",", "")) < 0.01 * 1024 * float(grown[2])
