"""Every method, streamed block by block, against float64 over whole tensors."""

import numpy as np
import pytest

from mergepipe.dtypes import dtype_of
from mergepipe.values import decode
from tests.engine.merging import (
    EXPERTS,
    SHAPES,
    Recipe,
    engine_of,
    merged_whole,
    plan_by_hand,
    random_model,
    repository,
    tensor_bytes_of,
    three_experts,
    write_model,
)


def deltas(repo, name, dtype):
    def values(revision):
        raw = tensor_bytes_of(repo, revision, name)
        return decode(dtype_of(dtype), raw).astype(np.float64)

    base = values("base")
    return base, [values(one) - base for one in EXPERTS]


def reference(method, shared, base, found):
    """The formulas, in float64, over a whole tensor; and where no sign hangs on rounding."""
    weights = shared.get("weight", 1.0)
    anywhere = np.ones(base.size, bool)
    if method == "linear":
        return base + sum(found) / len(found), anywhere
    if method == "task_arithmetic":
        return base + weights * sum(found), anywhere
    density = shared.get("density", 1.0)
    count = max(1, int(density * base.size))
    kept = []
    for d in found:
        size = np.abs(d.astype(np.float32))
        kept.append(np.where(size >= np.sort(size)[base.size - count], d, 0.0))
    total = weights * sum(kept)
    sign = np.where(total >= 0, 1, -1)
    agree = [np.sign(d) == sign for d in kept]
    merged = sum(np.where(one, d, 0) for one, d in zip(agree, kept, strict=True))
    number = sum(one.astype(float) for one in agree)
    clear = np.abs(total) >= 1e-6 * sum(map(np.abs, kept))
    return base + merged / np.maximum(number, 1), clear


CASES = [
    ("linear", {}),
    ("task_arithmetic", {"weight": 0.3}),
    ("ties", {"density": 0.5}),
    ("ties", {"density": 0.2}),
]
# Half a unit in the last place, as a share of the least value that has it.
ULP = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("block_size", [4096, 65536, 1 << 20])
def test_merge_is_the_formula_over_whole_tensors(tmp_path, dtype, block_size):
    repo = three_experts(tmp_path, dtype=dtype, block_size=block_size)
    for method, shared in CASES:
        plan = plan_by_hand(repo, Recipe(method, "base", EXPERTS, shared))
        made = engine_of(repo).execute(plan).commit.hex()
        for name in SHAPES:
            base, found = deltas(repo, name, dtype)
            wanted, certain = reference(method, shared, base, found)
            got = decode(dtype_of(dtype), tensor_bytes_of(repo, made, name)).astype(np.float64)
            bound = ULP[dtype] * np.maximum(np.abs(wanted), 2.0**-8) * 1.01 + 1e-7
            wrong = certain & (np.abs(got - wanted) > bound)
            assert wrong.sum() == 0, (method, name, np.abs(got - wanted)[wrong][:5])
            assert certain.mean() > 0.99
    repo.close()


@pytest.mark.parametrize(
    ("method", "shared"),
    [
        *CASES,
        ("dare_linear", {"density": 0.4}),
        ("dare_linear", {"density": 0.4, "rescale_norm": "l1"}),
        ("dare_ties", {"density": 0.7}),
    ],
)
def test_blocks_make_the_same_bytes_as_one_piece(tmp_path, method, shared):
    repo = three_experts(tmp_path, block_size=4096)
    recipe = Recipe(method, "base", EXPERTS, shared)
    made = engine_of(repo).execute(plan_by_hand(repo, recipe)).commit.hex()
    for name in SHAPES:
        assert tensor_bytes_of(repo, made, name) == merged_whole(repo, recipe, name)
    repo.close()


@pytest.mark.parametrize(("method", "shared"), [("slerp", {"t": 0.3}), ("linear", {})])
def test_two_models_without_a_base(tmp_path, method, shared):
    repo = three_experts(tmp_path, block_size=4096)
    recipe = Recipe(method, None, EXPERTS[:2], shared)
    made = engine_of(repo).execute(plan_by_hand(repo, recipe))
    assert made.base_bytes_read == 0
    for name in SHAPES:
        assert tensor_bytes_of(repo, made.commit.hex(), name) == merged_whole(repo, recipe, name)
    repo.close()


@pytest.mark.parametrize("codec", ["raw", "auto"])
def test_threads_and_codecs_change_no_id(tmp_path, codec):
    repo = three_experts(tmp_path, block_size=4096, codec=codec)
    plan = plan_by_hand(repo, Recipe("dare_ties", "base", EXPERTS, {"density": 0.5}))
    made = [engine_of(repo, threads).execute(plan, reuse=False) for threads in (1, 2, 5)]
    assert len({(one.snapshot, one.manifest_id, one.plan_id) for one in made}) == 1
    other = three_experts(tmp_path / "other", block_size=4096, codec="raw")
    again = plan_by_hand(other, Recipe("dare_ties", "base", EXPERTS, {"density": 0.5}))
    assert again == plan
    assert engine_of(other, 1).execute(again).manifest_id == made[0].manifest_id
    repo.close()
    other.close()


def test_what_is_left_out_is_not_there(tmp_path):
    """Omitted blocks count as the base's; what is read is what the plan names."""
    repo = three_experts(tmp_path, block_size=4096)

    def depth(name, expert, block):
        return 0 if (block + expert) % 2 else 2

    recipe = Recipe("task_arithmetic", "base", EXPERTS, {"weight": 0.5}, depths=depth)
    plan = plan_by_hand(repo, recipe)
    made = engine_of(repo).execute(plan)
    tensors = {one.name: one for one in plan.lines}
    width = 2
    for name, shape in SHAPES.items():
        base = np.frombuffer(tensor_bytes_of(repo, "base", name), np.uint16)
        experts = [np.frombuffer(tensor_bytes_of(repo, one, name), np.uint16) for one in EXPERTS]
        row_bytes = int(np.prod(shape[1:])) * width
        block = 4096 // row_bytes * row_bytes // width
        seen = []
        for index, own in enumerate(experts):
            mask = np.repeat(np.frombuffer(tensors[name].depths[index], np.uint8) == 2, block)
            seen.append(np.where(mask[: base.size], own, base))
        as_values = [decode(dtype_of("BF16"), one.tobytes()).astype(np.float64) for one in seen]
        under = decode(dtype_of("BF16"), base.tobytes()).astype(np.float64)
        wanted = under + 0.5 * sum(one - under for one in as_values)
        raw = tensor_bytes_of(repo, made.commit.hex(), name)
        got = decode(dtype_of("BF16"), raw).astype(np.float64)
        assert np.all(np.abs(got - wanted) <= ULP["BF16"] * np.maximum(np.abs(wanted), 1e-2) * 1.01)
    read = sum(
        repo.blocks.resolve([block])[block].stored_bytes
        for line in plan.lines
        for index, one in enumerate(line.inputs)
        for block, how in zip(
            repo.objects.tensor(one.source).block_ids(), line.depths[index], strict=True
        )
        if how == 2
    )
    assert made.expert_bytes_read == read > 0
    repo.close()


@pytest.mark.parametrize(("dtype", "to"), [("BF16", "F32"), ("F32", "BF16"), ("F32", "F16")])
def test_output_in_another_dtype(tmp_path, dtype, to):
    repo = three_experts(tmp_path, dtype=dtype, block_size=4096)
    recipe = Recipe("ties", "base", EXPERTS, {"density": 0.5}, dtype=to)
    made = engine_of(repo).execute(plan_by_hand(repo, recipe))
    for name in SHAPES:
        assert tensor_bytes_of(repo, made.commit.hex(), name) == merged_whole(repo, recipe, name)
    out = repo.checkout(made.commit.hex(), to=tmp_path / "out")
    from safetensors import safe_open

    with safe_open(out / "model.safetensors", "numpy" if to != "BF16" else "pt") as file:
        assert sorted(file.keys()) == sorted(SHAPES)
        assert file.metadata() == {"format": "pt"}
    kind = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[to]
    assert f'"torch_dtype": "{kind}",\n  "layers": 2' in (out / "config.json").read_text()
    repo.close()


def test_inputs_cut_otherwise_are_read_once(tmp_path):
    """An expert in another dtype under the same block size pairs with nothing, and is streamed."""
    repo = repository(tmp_path / "repo", block_size=4096)
    base = random_model(0)
    repo.commit(write_model(tmp_path / "base", base, "BF16"), branch="base", message="base")
    repo.commit(write_model(tmp_path / "wide", random_model(1, near=base), "F32"), branch="wide")
    repo.commit(write_model(tmp_path / "near", random_model(2, near=base), "BF16"), branch="near")
    recipe = Recipe("task_arithmetic", "base", ("wide", "near"), {"weight": 0.5})
    made = engine_of(repo, 3).execute(plan_by_hand(repo, recipe))
    for name in SHAPES:
        assert tensor_bytes_of(repo, made.commit.hex(), name) == merged_whole(repo, recipe, name)
    stored = 0
    for revision in ("wide", "near"):
        for file in repo.snapshot_of(revision).files:
            for entry in getattr(file.content, "tensors", ()):
                blocks = repo.objects.tensor(entry.tensor).block_ids()
                stored += sum(one.stored_bytes for one in repo.blocks.resolve(blocks).values())
    assert made.expert_bytes_read == stored
    repo.close()


def test_identity_merge_is_the_base_bit_for_bit(tmp_path):
    repo = three_experts(tmp_path)
    plan = plan_by_hand(repo, Recipe("ties", "base", ("base", "base"), {}))
    made = engine_of(repo).execute(plan)
    assert made.snapshot == repo.commit_of("base")[1].snapshot
    assert (made.expert_bytes_read, made.base_bytes_read) == (0, 0)
    assert made.costs.blocks_computed == 0
    repo.close()


def test_a_delta_is_a_term_like_any_other(tmp_path):
    """An expert that holds differences gives what one that holds their sums with the base does."""
    from mergepipe.objects.merging import TermKind

    repo = repository(tmp_path / "repo", block_size=4096)
    base = {name: np.round(values * 256) / 256 for name, values in random_model(0).items()}
    change = {name: np.round(v * 4096) / 4096 for name, v in random_model(9).items()}
    full = {name: base[name] + change[name] for name in base}
    for name, values in {"base": base, "delta": change, "full": full}.items():
        repo.commit(write_model(tmp_path / name, values, "F32"), branch=name, message=name)
    given = {}
    for name in ("delta", "full"):
        plan = plan_by_hand(repo, Recipe("task_arithmetic", "base", (name,), {"weight": 0.5}))
        if name == "delta":
            import msgspec

            lines = tuple(
                msgspec.structs.replace(
                    line, inputs=(msgspec.structs.replace(line.inputs[0], kind=TermKind.DELTA),)
                )
                for line in plan.lines
            )
            plan = msgspec.structs.replace(plan, lines=lines)
        given[name] = engine_of(repo).execute(plan).snapshot
    assert given["delta"] == given["full"]
    repo.close()
