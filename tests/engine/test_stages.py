"""Lines that other lines take in: the same bytes as stage after stage, and nothing written."""

import numpy as np
import pytest

from mergepipe.dtypes import dtype_of
from mergepipe.engine.replay import replay
from mergepipe.engine.transactions import MergeRequest
from mergepipe.errors import MergeInputError, OverBudget
from mergepipe.objects.depths import Depth
from mergepipe.planner.budget import Budget
from mergepipe.repository.refnames import branch_ref
from mergepipe.values import decode
from tests.engine.merging import EXPERTS, SHAPES, engine_of, tensor_bytes_of, three_experts
from tests.engine.planning import planner_of
from tests.engine.spelling import Spelling

FILE = "model.safetensors"
FIRST = [
    ("linear", {"weight": 0.7}, False),
    ("linear", {}, True),
    ("task_arithmetic", {"weight": 0.4}, True),
    ("ties", {"density": 0.4}, True),
    ("slerp", {"t": 0.3}, False),
    ("della", {"density": 0.5}, True),
]
SECOND = [
    ("linear", {}, False),
    ("task_arithmetic", {"weight": 0.6}, True),
    ("ties", {"density": 0.5}, True),
    ("dare_ties", {"density": 0.5}, True),
    ("dare_linear", {"density": 0.5, "rescale_norm": "l1"}, True),
    ("slerp", {"t": 0.6}, False),
    ("della_linear", {"density": 0.5}, True),
    ("breadcrumbs", {"density": 0.5}, True),
    ("sce", {"select_topk": 0.5}, True),
]
# Every method in both places, and beside more than one other.
PAIRS = [
    (FIRST[(number + shift) % len(FIRST)], second, ("BF16", "F32")[shift // 2])
    for number, second in enumerate(SECOND)
    for shift in (0, 3)
]


def staged(repo, first, second, *, dtype="BF16", base="base"):
    """first of e0 and e1, then second of that and e2; all of one merge."""
    spelled = Spelling(repo, *EXPERTS, "base", base=base)
    for name in SHAPES:
        method, shared, on_base = first
        under = spelled.of("base", name) if on_base else None
        inner = spelled.line(
            f"stage.{name}", method, [spelled.of("e0", name), spelled.of("e1", name)],
            base=under, dtype=dtype, shared=shared,
        )  # fmt: skip
        method, shared, on_base = second
        under = spelled.of("base", name) if on_base else None
        spelled.line(
            name, method, [inner, spelled.of("e2", name)],
            base=under, file=FILE, shared=shared, like=spelled.tensors["base"][name],
        )  # fmt: skip
    return spelled.merge("base")


def in_turns(repo, first, second, *, dtype="BF16"):
    """The same, with the first stage committed in between."""
    method, shared, on_base = first
    inner = Spelling(repo, "e0", "e1", "base", base="base")
    for name in SHAPES:
        inner.line(
            f"stage.{name}", method, [inner.of("e0", name), inner.of("e1", name)],
            base=inner.of("base", name) if on_base else None, file=FILE, dtype=dtype,
            shared=shared, like=inner.tensors["base"][name],
        )  # fmt: skip
    execute(repo, inner.merge(), "stage")
    method, shared, on_base = second
    outer = Spelling(repo, "stage", "e2", "base", base="base")
    for name in SHAPES:
        outer.line(
            name, method, [outer.of("stage", f"stage.{name}"), outer.of("e2", name)],
            base=outer.of("base", name) if on_base else None, file=FILE,
            shared=shared, like=outer.tensors["base"][name],
        )  # fmt: skip
    return execute(repo, outer.merge("base"), "result")


def execute(repo, merge, branch, *, apart=True):
    """Merge; `apart`: no two tensors need the same records (made together, they read them once)."""
    planned = planner_of(repo).build_merge(merge)
    request = MergeRequest(branch=branch_ref(branch))
    made = engine_of(repo).execute(planned.plan, request, reuse=False)
    read = made.expert_bytes_read + planned.measured_expert_bytes
    promised = planned.costs.expert_bytes_planned
    assert read == promised if apart else 0 < read <= promised
    return made


@pytest.mark.parametrize(
    ("first", "second", "dtype"), PAIRS, ids=[f"{a[0]}-{b[0]}-{dtype}" for a, b, dtype in PAIRS]
)
def test_stages_in_one_merge_are_stages_in_turns(tmp_path, first, second, dtype):
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    wanted = in_turns(repo, first, second, dtype=dtype)
    made = execute(repo, staged(repo, first, second, dtype=dtype), "fused")
    assert made.snapshot == wanted.snapshot
    again = replay(engine_of(repo, 3), made.manifest_id)
    assert again.same
    assert again.readings.expert_bytes == made.expert_bytes_read
    repo.close()


def test_stages_of_stages_a_base_that_is_made_and_one_line_for_two(tmp_path):
    """Chains, a stage taken in twice, two tensors of one stage, other grids: all computed once."""
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    spelled = Spelling(repo, *EXPERTS, "base", base="base")
    name = "layer.w"
    one = spelled.line("one", "linear", [spelled.of("e0", name), spelled.of("e1", name)])
    two = spelled.line(
        "two", "ties", [one, spelled.of("e2", name)], base=spelled.of("base", name),
        shared={"density": 0.5}, dtype="F32",
    )  # fmt: skip
    spelled.line("w.0", "task_arithmetic", [two, two], base=one, file=FILE, shared={"weight": 0.3})
    spelled.line("w.1", "linear", [two, spelled.of("e1", name), one], file=FILE, dtype="F32")
    spelled.line("idle", "linear", [one, two])
    made = execute(repo, spelled.merge(), "fused", apart=False)
    assert len(made.manifest.tensors) == 2
    assert {use.model for use in made.manifest.tensors[0].inputs} == {0, 1, 2}

    def stored(revision, tensor, dtype="BF16"):
        return decode(dtype_of(dtype), tensor_bytes_of(repo, revision, tensor))

    x = [stored(expert, name) for expert in EXPERTS]
    base = stored("base", name)
    half = rounded((x[0] + x[1]) / np.float32(2))
    plain = Spelling(repo, *EXPERTS, "base", base="base")
    inner = plain.line("one", "linear", [plain.of("e0", name), plain.of("e1", name)], file=FILE)
    plain.line(
        "two", "ties", [inner, plain.of("e2", name)], base=plain.of("base", name), file=FILE,
        shared={"density": 0.5}, dtype="F32",
    )  # fmt: skip
    execute(repo, plain.merge(), "inner", apart=False)
    assert np.array_equal(stored("inner", "one"), half)
    trimmed = stored("inner", "two", "F32")
    assert not np.array_equal(trimmed, base)
    weight = np.float32(0.3)
    d = trimmed - half
    assert np.array_equal(stored("fused", "w.0"), rounded(half + (d * weight + d * weight)))
    total = (trimmed + x[1] + half) / np.float32(3)
    assert np.array_equal(stored("fused", "w.1", "F32"), total)
    repo.close()


def rounded(values):
    """To BF16, to nearest even, and back."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_a_stage_that_changes_nothing_is_what_it_was(tmp_path):
    """Passed through, or merged of the base alone: the tensor itself, with its profile."""
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    spelled = Spelling(repo, *EXPERTS, "base", base="base")
    for name in SHAPES:
        through = spelled.line("t", "passthrough", [spelled.of("e0", name)])
        still = spelled.line(
            "s", "task_arithmetic", [spelled.of("base", name)], base=spelled.of("base", name)
        )
        spelled.line(
            name, "ties", [through, spelled.of("e1", name)], base=still, file=FILE,
            shared={"density": 0.5}, like=spelled.tensors["base"][name],
        )  # fmt: skip
    planned = planner_of(repo).build_merge(spelled.merge("base"))
    plain = planner_of(repo).plan("base", EXPERTS[:2], "ties", density=0.5, seed=7)
    assert [line.inputs[0].stored for line in planned.plan.lines] == [
        line.inputs[0].stored for line in plain.plan.lines
    ]
    assert planned.measured_expert_bytes == 0
    one, other = (engine_of(repo).execute(one.plan, reuse=False) for one in (planned, plain))
    assert one.snapshot == other.snapshot
    repo.close()


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_a_budget_buys_what_stages_take_in(tmp_path, method):
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    first = ("task_arithmetic", {"weight": 0.5}, True)
    merge = staged(repo, first, (method, {"weight": 0.5}, True))
    full = planner_of(repo).build_merge(merge).costs.expert_bytes_full
    kept = []
    for share in ("15%", "40%", "75%"):
        planned = planner_of(repo).build_merge(merge, Budget.parse(share))
        costs = planned.costs
        assert 0 < costs.expert_bytes_planned <= costs.budget_bytes < full
        depths = {depth for line in planned.plan.lines for own in line.depths for depth in own}
        assert depths & {Depth.OMITTED, Depth.COARSE}
        for line in planned.plan.lines:
            for one, own in zip(line.inputs, line.depths, strict=True):
                assert one.made is None or set(own) == {Depth.EXACT}
        made = engine_of(repo).execute(planned.plan, reuse=False)
        assert made.expert_bytes_read == costs.expert_bytes_planned
        assert replay(engine_of(repo, 3), made.manifest_id).same
        kept.append(costs.energy_kept)
    assert kept == sorted(kept) and kept[0] < kept[-1] <= 1
    repo.close()


def test_thresholds_of_stages_have_no_plan_below_the_full_one(tmp_path):
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    merge = staged(repo, ("linear", {}, True), ("ties", {"density": 0.5}, True))
    with pytest.raises(MergeInputError, match="earlier stages"):
        planner_of(repo).build_merge(merge, Budget.parse("50%"))
    free = staged(repo, ("linear", {}, False), ("linear", {}, False))
    with pytest.raises(MergeInputError, match="needs a base"):
        planner_of(repo).build_merge(free, Budget.parse("50%"))
    forced = staged(repo, ("linear", {}, False), ("task_arithmetic", {}, True))
    with pytest.raises(OverBudget):
        planner_of(repo).build_merge(forced, Budget.parse("10%"))
    repo.close()


def test_stages_are_remembered_with_what_goes_into_them(tmp_path):
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    first: tuple = ("linear", {}, True)
    second: tuple = ("ties", {"density": 0.5}, True)
    merge = staged(repo, first, second)
    planned = planner_of(repo).build_merge(merge)
    made = engine_of(repo).execute(planned.plan)
    again = engine_of(repo).execute(planned.plan)
    assert again.snapshot == made.snapshot
    assert (again.expert_bytes_read, again.costs.blocks_computed) == (0, 0)
    other = staged(repo, ("linear", {"weight": 0.9, "normalize": False}, True), second)
    changed = engine_of(repo).execute(planner_of(repo).build_merge(other).plan)
    assert changed.costs.blocks_remembered == 0
    assert changed.snapshot != made.snapshot
    repo.close()
