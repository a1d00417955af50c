"""Every method of the registry, streamed: rows shorter and longer than a block, vectors, stacks."""

import numpy as np
import pytest
from msgspec.structs import replace

from mergepipe.engine.replay import replay
from mergepipe.engine.transactions import MergeRequest
from mergepipe.errors import OverBudget
from mergepipe.methods import METHODS, Scalars, merge
from mergepipe.methods import statistics as stats
from mergepipe.objects.depths import Depth
from mergepipe.planner.budget import Budget
from mergepipe.repository.refnames import branch_ref
from tests.engine.merging import (
    EXPERTS,
    engine_of,
    random_model,
    repository,
    tensor_bytes_of,
    tensors_of,
    whole_unit,
    write_model,
)
from tests.engine.planning import planner_of
from tests.engine.spelling import Spelling

FILE = "model.safetensors"
# Blocks of some rows, of a part of a row, of a vector's part, of a part of a matrix in a stack.
SHAPES = {"m": (40, 96), "v": (5000,), "long": (4, 7000), "stack": (6, 40, 50)}
PARAMETERS = {"density": 0.5, "t": 0.4}
CASES = [
    (name, on_base)
    for name, method in METHODS.items()
    for on_base in ((True,) if method.needs_base else (True, False))
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods")
    repo = repository(path / "repo", block_size=4096, codec="auto")
    base = random_model(0, shapes=SHAPES)
    repo.commit(write_model(path / "base", base), branch="base", message="base")
    for index, name in enumerate(EXPERTS):
        values = random_model(index + 1, near=base, shapes=SHAPES, share=0.7)
        repo.commit(write_model(path / name, values), branch=name, base="base")
    yield repo
    repo.close()


def spelled(repo, name, on_base):
    """The merge of as many experts as the method takes, and what its lines have in common."""
    method = METHODS[name]
    experts = EXPERTS[: method.maximum_models or 3]
    takes = {parameter.name for parameter in method.parameters}
    shared = {key: value for key, value in PARAMETERS.items() if key in takes}
    merge = Spelling(repo, *EXPERTS, "base", base="base")
    for tensor in SHAPES:
        merge.line(
            tensor, name, [merge.of(one, tensor) for one in experts],
            base=merge.of("base", tensor) if on_base else None, file=FILE, dtype="F32",
            shared=shared, like=merge.tensors["base"][tensor],
        )  # fmt: skip
    return merge, experts


@pytest.mark.parametrize(("name", "on_base"), CASES)
def test_streamed_is_whole(repo, name, on_base):
    merging, experts = spelled(repo, name, on_base)
    planned = planner_of(repo).build_merge(merging.merge("base"))
    request = MergeRequest(branch=branch_ref("out"))
    made = engine_of(repo, 2).execute(planned.plan, request, reuse=False)
    read = made.expert_bytes_read + planned.measured_expert_bytes
    assert read == planned.costs.expert_bytes_planned
    assert replay(engine_of(repo, 1), made.manifest_id).same
    for line in merging.lines:
        stored = [tensors_of(repo, one)[FILE, line.name] for one in experts]
        under = tensors_of(repo, "base")[FILE, line.name] if on_base else None
        plain = Scalars.plain(len(stored))
        unit = whole_unit(repo, under, stored, plain, "F32", line.name, merging.seed)
        unit = replace(unit, slab_length=int(np.prod(SHAPES[line.name][1:])))
        values = {need: stats.measure(need, [unit]) for need in line.method.needs(line.settings)}
        unit = replace(unit, scalars=line.method.resolve(line.settings, values))
        got = np.frombuffer(tensor_bytes_of(repo, "out", line.name), np.float32)
        wanted = merge(line.method, unit).view(np.float32)
        # Sums over a tensor depend on how it is cut, in their last bits.
        assert np.abs(got - wanted).max() <= 1e-6, line.name


@pytest.mark.parametrize("name", [name for name, on_base in CASES if on_base])
def test_a_budget_holds_for_every_method(repo, name):
    merging, _ = spelled(repo, name, True)
    merge = merging.merge("base")
    full = planner_of(repo).build_merge(merge).costs.expert_bytes_full
    try:
        planned = planner_of(repo).build_merge(merge, Budget.parse("45%"))
    except OverBudget:
        # What takes several blocks at once is read whole, and here that is nearly everything.
        assert METHODS[name].scope != "element"
        return
    assert planned.costs.expert_bytes_planned <= planned.costs.budget_bytes < full
    depths = {depth for line in planned.plan.lines for own in line.depths for depth in own}
    assert depths & {Depth.OMITTED, Depth.COARSE}
    made = engine_of(repo, 2).execute(planned.plan, reuse=False)
    read = made.expert_bytes_read + planned.measured_expert_bytes
    assert read == planned.costs.expert_bytes_planned
    assert replay(engine_of(repo, 1), made.manifest_id).same
