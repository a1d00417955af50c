"""A short run of the fuzzer; benchmarks/fuzz_codecs.py --inputs 1000000 is the long one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_mutated_payloads_are_refused_or_decode() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz_codecs.py"), "--inputs", "3000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3000 inputs")
