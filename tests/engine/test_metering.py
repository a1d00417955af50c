"""What the meter says is what the process read, and nothing else can be read."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from mergepipe.engine.batches import Batcher
from mergepipe.engine.computing import MergeJob, Supply
from mergepipe.engine.encoding import OutputEncoder
from mergepipe.engine.estimates import columns_of
from mergepipe.engine.factors import FactorReader
from mergepipe.engine.laying import Laying
from mergepipe.engine.meter import Meter, UnplannedRead
from mergepipe.engine.replay import replay as replayed
from mergepipe.engine.steps import MergedTensor
from mergepipe.engine.work import Step
from mergepipe.errors import MissingObject
from mergepipe.ids import ObjectId
from mergepipe.objects.depths import Depth
from tests.engine.merging import engine_of, random_model, repository, write_model
from tests.engine.planning import planner_of

PROJECT = Path(__file__).parents[2]
EXPERTS = ("e0", "e1", "e2")


def experts(path, codec, *, shapes, block_size=65536):
    repo = repository(path / "repo", block_size=block_size, codec=codec)
    base = random_model(0, shapes=shapes)
    repo.commit(write_model(path / "base", base), branch="base", message="base")
    for index, name in enumerate(EXPERTS):
        values = random_model(index + 1, near=base, shapes=shapes)
        repo.commit(write_model(path / name, values), branch=name, base="base")
    return repo


SMALL = {"w": (256, 128), "v": (64, 128), "norm": (128,)}

# Runs in a process of its own: replays a merge with the page cache of all packs dropped.
MEASURE = """
import json, os, sys
from tests.engine.merging import WHO, engine_of
from mergepipe.api import Repository
from mergepipe.engine.replay import replay

def io():
    with open("/proc/self/io", "rb", buffering=0) as file:
        data = file.read(4096)
    found = dict(line.split(": ") for line in data.decode().split("\\n") if line)
    return int(found["rchar"]), int(found["read_bytes"])

repo = Repository.open(sys.argv[1], who=WHO)
engine = engine_of(repo, 2)
manifest = bytes.fromhex(sys.argv[2])
replay(engine, manifest)  # imports and compiled kernels are read here
for name in os.listdir("/proc/self/fd"):
    descriptor = int(name)
    try:
        packed = os.readlink(f"/proc/self/fd/{name}").endswith(".pack")
    except FileNotFoundError:
        continue
    if packed:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel reads nothing ahead
unmoved, before = io(), io()  # looking is reading too
found = replay(engine, manifest)
after = io()
read = found.readings
print(json.dumps({
    "same": found.same,
    "rchar": after[0] - before[0] - (before[0] - unmoved[0]),
    "read_bytes": after[1] - before[1],
    "reads": read.reads,
    "expert": read.expert_bytes,
    "base": read.base_bytes,
    "metadata": read.metadata_bytes,
}))
"""


def measured(root, manifest):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), manifest.hex()],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io")
@pytest.mark.parametrize("codec", ["raw", "auto"])
def test_bytes_read_are_the_bytes_promised(tmp_path, codec):
    shapes = {"w": (1024, 512), "v": (512, 512), "norm": (512,)}
    repo = experts(tmp_path, codec, shapes=shapes)
    planner = planner_of(repo)
    coarse = set()
    for budget in (None, "60%", "30%", "raw:8%"):
        if codec == "raw" and budget == "raw:8%":
            continue
        planned = planner.plan("base", EXPERTS, "task_arithmetic", budget=budget, weight=0.3)
        depths = {depth for line in planned.plan.lines for own in line.depths for depth in own}
        coarse.add(Depth.COARSE in depths)
        made = engine_of(repo).execute(planned.plan, reuse=False)
        promised = planned.costs.expert_bytes_planned
        assert made.expert_bytes_read == promised > 0
        found = measured(tmp_path / "repo", made.manifest_id)
        assert found["same"]
        assert found["expert"] == promised
        counted = found["expert"] + found["base"] + found["metadata"]
        # glibc, not we, reads one byte of /proc/sys/vm/overcommit_memory, once, when it trims.
        assert found["rchar"] - counted in (0, 1), budget
        # What really came from the disk is that, to page rounding (nothing on tmpfs).
        if found["read_bytes"]:
            assert found["expert"] * 0.9 < found["read_bytes"] <= counted + found["reads"] * 8192
    assert coarse == ({False} if codec == "raw" else {False, True})
    repo.close()


def works_of(repo, planned):
    plan = planned.plan
    columns = columns_of(plan.lines, plan.profiles, repo.objects)
    factors = FactorReader(repo.storage, Meter())
    batcher = Batcher(repo.storage, ObjectId(planned.id), factors)
    laying = Laying(plan.lines, plan.seed, repo.objects, columns)
    for number in range(len(plan.lines)):
        tensor = laying.lay(number)
        assert isinstance(tensor, MergedTensor)
        steps = [step for step in tensor.steps() if isinstance(step, Step)]
        yield from batcher.works(steps)


def test_a_record_that_is_not_in_the_plan_is_refused(tmp_path):
    repo = experts(tmp_path, "auto", shapes=SMALL)
    planned = planner_of(repo).plan("base", EXPERTS, "task_arithmetic")
    work = next(works_of(repo, planned))
    meter = Meter()
    worker = MergeJob(OutputEncoder("raw")).on(Supply(repo.store, meter, repo.storage))
    whole = meter.readings()
    assert worker.do(work).value
    assert meter.readings().expert_bytes > whole.expert_bytes
    taken = next(iter(work.permit.exact))
    # The same work when the plan had left that block out, or taken it coarsely.
    for coarse in (frozenset(), frozenset({taken})):
        permit = replace(work.permit, exact=work.permit.exact - {taken}, coarse=coarse)
        before = meter.readings()
        with pytest.raises(UnplannedRead):
            worker.do(replace(work, permit=permit))
        assert (
            meter.readings().expert_bytes - before.expert_bytes < planned.costs.expert_bytes_planned
        )
    repo.close()


def test_work_is_a_value_that_gives_the_same_twice(tmp_path):
    repo = experts(tmp_path, "auto", shapes=SMALL)
    planned = planner_of(repo).plan("base", EXPERTS, "ties", density=0.5)
    worker = MergeJob(OutputEncoder("auto")).open(repo.store)
    for work in works_of(repo, planned):
        first = worker.do(work)
        again = worker.do(pickle.loads(pickle.dumps(work)))
        assert again.value == first.value
        sizes = [[block.stored_bytes for block in one.encoded] for one in (again, first)]
        assert sizes[0] == sizes[1]
    repo.close()


def test_a_plan_for_coarse_layers_that_are_gone_is_refused_but_replays(tmp_path):
    """The same plan in a store without coarse layers: not merged, yet its ids can be checked."""
    rich = experts(tmp_path / "rich", "auto", shapes=SMALL, block_size=16384)
    planned = planner_of(rich).plan("base", EXPERTS, "task_arithmetic", budget="30%", weight=0.3)
    assert any(Depth.COARSE in own for line in planned.plan.lines for own in line.depths)
    made = engine_of(rich).execute(planned.plan)
    plain = experts(tmp_path / "plain", "raw", shapes=SMALL, block_size=16384)
    catalog = planner_of(plain)
    catalog.plan("base", EXPERTS, "task_arithmetic")  # makes the profiles
    with pytest.raises(MissingObject):
        engine_of(plain).execute(planned.plan)
    with engine_of(plain).transactions.begin() as transaction:
        plain.objects.put(planned.plan, transaction)
        plain.objects.put(made.manifest, transaction)
        transaction.publish()
    found = replayed(engine_of(plain), made.manifest_id)
    assert found.same, found.tensors
    assert found.readings.expert_bytes > made.expert_bytes_read
    rich.close()
    plain.close()
