"""What docs/python.md shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mergepipe import Repository
from tests.cli.conftest import ROOT
from tests.cli.families import SHAPES, write_family

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A repository in a directory of its own, with base, math and code."""
    directory = tmp_path / "repository"
    with Repository.init(directory) as repo:
        for name, path in write_family(tmp_path / "models").items():
            repo.commit(path, branch=name, base=None if name == "base" else "base")
    return directory


def _run(snippet: str, directory: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_merge(family: Path) -> None:
    planned, merged, tensor = _run(SNIPPETS[0], family)
    promised, read = int(planned.split()[1]), int(merged.split()[2])
    assert 0 < read <= promised
    assert tensor == f"torch.Size({list(SHAPES['embed'])}) torch.bfloat16"
    assert (family / "merged-model/model.safetensors").is_file()
    with Repository.open(family) as repo:
        assert repo.resolve("merged").hex() == merged.split()[0]


def test_the_parts(family: Path) -> None:
    first, again = _run(SNIPPETS[2], family), _run(SNIPPETS[2], family)
    assert first == again  # manifest and snapshot hold no time
    snapshot, manifest = first[0].split()
    with Repository.open(family) as repo:
        _, commit = repo.commit_of("HEAD")
        assert commit.snapshot.hex() == snapshot
        assert commit.manifest is not None
        assert commit.manifest.hex() == manifest


def test_weights(family: Path) -> None:
    told = _run(SNIPPETS[1], family)
    assert len(told) > 2
    assert f"embed BF16 {SHAPES['embed']} {2 * SHAPES['embed'][0] * SHAPES['embed'][1]}" in told
