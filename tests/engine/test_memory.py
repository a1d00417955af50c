"""Memory stays within the bound of engine.streaming, however many experts and however large."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.merging import random_model, repository, write_model

PROJECT = Path(__file__).parents[2]
MIB = 1 << 20

# In a process of its own: the most memory resident during a merge, over what it had before.
MEASURE = """
import json, resource, sys
from tests.engine.merging import WHO, engine_of
from tests.engine.planning import planner_of
from mergepipe.api import Repository
repo = Repository.open(sys.argv[1], who=WHO)
engine = engine_of(repo, 2)
experts = [f"e{number}" for number in range(int(sys.argv[2]))]
def run(names):
    planned = planner_of(repo).plan("base", names, "task_arithmetic")
    return engine.execute(planned.plan, reuse=False)
run(["small"])  # brings in kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = run(experts)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"grown": (after - before) * 1024, "read": made.expert_bytes_read}))
"""


def measured(root, count):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), str(count)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("codec", ["raw", "auto"])
def test_memory_is_flat_in_experts_and_size(tmp_path, codec):
    shapes = {f"layer.{number}": (2048, 1024) for number in range(10)}  # 40 MiB
    repo = repository(tmp_path / "repo", block_size=MIB, codec=codec)
    base = random_model(0, shapes=shapes)
    repo.commit(write_model(tmp_path / "base", base), branch="base")
    for number in range(6):
        near = random_model(number + 1, near=base, shapes=shapes)
        repo.commit(write_model(tmp_path / "next", near), branch=f"e{number}", base="base")
    small = dict(base)
    small["layer.0"] = small["layer.0"] + 0.01
    repo.commit(write_model(tmp_path / "next", small), branch="small", base="base")
    repo.close()
    two, six = measured(tmp_path / "repo", 2), measured(tmp_path / "repo", 6)
    assert six["read"] > 2.9 * two["read"]
    # Six experts are 240 MiB raw. Two threads fetch 16 MiB and hold a block per input at a time.
    assert six["grown"] < 110 * MIB
    assert six["grown"] - two["grown"] < 40 * MIB


def test_a_merge_on_the_cpu_needs_no_torch(tmp_path):
    shapes = {"w": (64, 64)}
    repo = repository(tmp_path / "repo", codec="auto")
    base = random_model(0, shapes=shapes)
    repo.commit(write_model(tmp_path / "base", base), branch="base")
    for number in range(2):
        near = random_model(number + 1, near=base, shapes=shapes)
        repo.commit(write_model(tmp_path / "next", near), branch=f"e{number}", base="base")
    repo.commit(write_model(tmp_path / "next", base), branch="small", base="base")
    repo.close()
    script = MEASURE + "\nassert 'torch' not in sys.modules\n"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", script, str(tmp_path / "repo"), "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
