"""The example of continuous integration does what its page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINE = re.compile(r" *(\d+) +\S.*? MB +\S+ MB +\S+ +(\S+) MB +(\S+)  (.*)")


def test_days_are_checked_merged_published_and_taken_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/continuous_integration/run.py", tmp_path, "--days", "21"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    )
    lines = [match for line in done.stdout.splitlines() if (match := _LINE.fullmatch(line))]
    assert [int(line[1]) for line in lines] == list(range(1, 22))
    loss = [float(line[3]) for line in lines]
    verdicts = [line[4] for line in lines]
    assert loss[0] > loss[3] > loss[8]
    assert max(loss) < 1  # no day ends with a model worse than the base
    assert "code refused: it changed by" in verdicts[11]
    told = (
        r"published with loss [0-9.]+; law did it; rolled back, at the consumer too; "
        r"its model purged \(\d+ blocks\)"
    )
    assert re.fullmatch(told, verdicts[19])
    best = re.search(r"^audit: .* 1 purged; best loss ([0-9.]+)$", done.stdout, re.M)
    assert best is not None
    assert float(best[1]) == min(loss)
    assert done.stdout.endswith("fsck: no problems\n")
