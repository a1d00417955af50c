"""The directory of a run: gone after it, and what was left in it is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIDY = "import tempfile\ndef test_it(tmp_path):\n    (tmp_path / 'a').touch()\n"
UNTIDY = TIDY + "    tempfile.mkdtemp(prefix='forgotten-')\n"
FAILING = TIDY + "    assert False\n"


@pytest.mark.parametrize(
    ("source", "code", "said", "stays"),
    [(TIDY, 0, "1 passed", 0), (UNTIDY, 0, "forgotten-", 0), (FAILING, 1, "1 failed", 1)],
    ids=["tidy", "untidy", "failing"],
)
def test_a_run_leaves_nothing(
    source: str, code: int, said: str, stays: int, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntmp_path_retention_policy = failed\n")
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert said in done.stdout
    assert len(list((tmp_path / "temporary").iterdir())) == stays
