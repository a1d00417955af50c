"""Low-rank factors as inputs: against numpy, at any block size, by their own few bytes."""

import numpy as np
import pytest

from mergepipe.dtypes import dtype_of
from mergepipe.engine.factors import product_values
from mergepipe.engine.replay import replay
from mergepipe.engine.transactions import MergeRequest
from mergepipe.engine.work import Factor, Product
from mergepipe.errors import MergeInputError, OverBudget
from mergepipe.objects.merging import TermKind
from mergepipe.planner.budget import Budget
from mergepipe.repository.refnames import branch_ref
from mergepipe.values import decode
from tests.engine.merging import engine_of, random_model, repository, tensor_bytes_of, write_model
from tests.engine.planning import planner_of
from tests.engine.spelling import Spelling

FILE = "model.safetensors"
SHAPES = {"w": (96, 80), "long": (3, 9000), "turned": (80, 64), "deep": (12, 5, 16)}
RANK = 4
SCALE = 0.75
# Factors of each tensor; one is of the transpose.
FACTORS = {
    "w": ((96, RANK), (RANK, 80)),
    "long": ((3, RANK), (RANK, 9000)),
    "turned": ((64, RANK), (RANK, 80)),
    "deep": ((12, RANK, 1), (RANK, 5, 16)),
}


def models(path, block_size, dtype="BF16", factors="F32", codec="auto"):
    repo = repository(path / "repo", block_size=block_size, codec=codec)
    base = random_model(0, shapes=SHAPES)
    repo.commit(write_model(path / "base", base, dtype), branch="base", message="base")
    repo.commit(
        write_model(path / "e0", random_model(1, near=base, shapes=SHAPES), dtype),
        branch="e0", base="base",
    )  # fmt: skip
    shapes = {
        f"{name}.{side}": shape
        for name, pair in FACTORS.items()
        for side, shape in zip(("up", "down"), pair, strict=True)
    }
    for number in range(2):
        adapter = random_model(20 + number, shapes=shapes)
        repo.commit(write_model(path / f"a{number}", adapter, factors), branch=f"a{number}")
    return repo


def low(spelled, adapter, name, scale=SCALE):
    return (adapter, f"{name}.up", f"{name}.down", scale, name == "turned")


def values(repo, revision, name, dtype):
    return decode(dtype_of(dtype), tensor_bytes_of(repo, revision, name)).astype(np.float32)


def change(repo, adapter, name, factors, scale=SCALE):
    """The difference, in float32, in the order of the rank."""
    rows = FACTORS[name][0][0]
    a = values(repo, adapter, f"{name}.up", factors).reshape(rows, RANK)
    b = values(repo, adapter, f"{name}.down", factors).reshape(RANK, -1)
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for rank in range(RANK):
        total += a[:, rank, None] * b[rank]
    total *= np.float32(scale)
    return (total.T if name == "turned" else total).reshape(-1)


def adapted(repo, *, file=FILE):
    """task_arithmetic of an adapter, a model, and a model with an adapter, for every tensor."""
    spelled = Spelling(repo, "e0", "a0", "a1", "base", base="base")
    for name in SHAPES:
        spelled.line(
            name, "task_arithmetic",
            [
                spelled.of("a0", None, kind=TermKind.LOW_RANK, factors=low(spelled, "a0", name)),
                spelled.of("e0", name),
                spelled.of("e0", name, factors=low(spelled, "a1", name, 0.5)),
            ],
            base=spelled.of("base", name), file=file, dtype="F32",
            own=[{"weight": 0.5}, {"weight": 0.25}, {"weight": 1.0}],
            like=spelled.tensors["base"][name],
        )  # fmt: skip
    return spelled.merge("base")


def stored_bytes(repo, *revisions):
    """What is stored of all blocks of some models' tensors."""
    blocks = {
        block
        for revision in revisions
        for file in repo.snapshot_of(revision).files
        for entry in getattr(file.content, "tensors", ())
        for block in repo.objects.tensor(entry.tensor).block_ids()
    }
    return sum(
        sum(at.stored_bytes for at in repo.blocks.resolve([block])[block].layers)
        for block in blocks
    )


@pytest.mark.parametrize(("dtype", "factors"), [("BF16", "F32"), ("F32", "BF16"), ("F32", "F64")])
@pytest.mark.parametrize("block_size", [4096, 20000])
def test_adapters_are_terms_like_any_others(tmp_path, block_size, dtype, factors):
    repo = models(tmp_path, block_size, dtype, factors)
    planned = planner_of(repo).build_merge(adapted(repo))
    request = MergeRequest(branch=branch_ref("out"))
    made = engine_of(repo, 3).execute(planned.plan, request, reuse=False)
    assert made.expert_bytes_read == planned.costs.expert_bytes_planned
    assert replay(engine_of(repo, 1), made.manifest_id).same
    f = np.float32
    for name in SHAPES:
        base, x = values(repo, "base", name, dtype), values(repo, "e0", name, dtype)
        one, two = change(repo, "a0", name, factors), change(repo, "a1", name, factors, 0.5)
        total = one * f(0.5) + (x - base) * f(0.25) + ((x + two) - base) * f(1.0)
        assert np.array_equal(values(repo, "out", name, "F32"), base + total), name
    repo.close()


def test_block_sizes_and_threads_change_no_bit(tmp_path):
    snapshots = set()
    for block_size, threads in ((4096, 1), (4096, 4), (65536, 2)):
        repo = models(tmp_path / f"{block_size}-{threads}", block_size)
        made = engine_of(repo, threads).execute(planner_of(repo).build_merge(adapted(repo)).plan)
        snapshots.add(tuple(tensor_bytes_of(repo, made.commit.hex(), name) for name in SHAPES))
        repo.close()
    assert len(snapshots) == 1


def test_any_range_of_a_product_is_that_of_the_whole(tmp_path):
    rng = np.random.default_rng(3)
    f32 = dtype_of("F32")
    for rows, columns, turned in ((40, 30, False), (30, 40, True), (2, 200_000, False)):
        up = rng.normal(size=(rows, RANK)).astype(np.float32)
        down = rng.normal(size=(RANK, columns)).astype(np.float32)
        product = Product(Factor((), f32, rows, RANK), Factor((), f32, RANK, columns), 0.3, turned)
        count = rows * columns
        whole = product_values(product, up.tobytes(), down.tobytes(), 0, count)
        exact = up.astype(np.float64) @ down.astype(np.float64) * 0.3
        assert np.allclose(whole, (exact.T if turned else exact).reshape(-1), atol=1e-5)
        for start, end in rng.integers(0, count + 1, (20, 2)):
            start, end = min(start, end), max(start, end)
            part = product_values(
                product, up.tobytes(), down.tobytes(), int(start), int(end - start)
            )
            assert np.array_equal(part, whole[start:end])


def test_an_adapter_alone_reads_its_own_few_bytes(tmp_path):
    repo = models(tmp_path, 4096, codec="raw")
    spelled = Spelling(repo, "a0", "base", base="base")
    for name in SHAPES:
        spelled.line(
            name, "task_arithmetic",
            [spelled.of("a0", None, kind=TermKind.LOW_RANK, factors=low(spelled, "a0", name))],
            base=spelled.of("base", name), file=FILE, like=spelled.tensors["base"][name],
        )  # fmt: skip
    merge = spelled.merge("base")
    planned = planner_of(repo).build_merge(merge)
    assert planned.costs.expert_bytes_full == stored_bytes(repo, "a0")
    made = engine_of(repo).execute(planned.plan)
    assert made.expert_bytes_read == stored_bytes(repo, "a0")
    assert made.base_bytes_read == stored_bytes(repo, "base")
    again = engine_of(repo).execute(planned.plan)
    assert (again.expert_bytes_read, again.snapshot) == (0, made.snapshot)
    with pytest.raises(OverBudget, match="have to be read whatever"):
        planner_of(repo).build_merge(merge, Budget.parse("50%"))
    repo.close()


def test_a_budget_goes_to_what_is_not_low_rank(tmp_path):
    repo = models(tmp_path, 4096)
    spelled = Spelling(repo, "e0", "a0", "base", base="base")
    for name in SHAPES:
        spelled.line(
            name, "ties",
            [
                spelled.of("a0", None, kind=TermKind.LOW_RANK, factors=low(spelled, "a0", name)),
                spelled.of("e0", name),
            ],
            base=spelled.of("base", name), file=FILE, like=spelled.tensors["base"][name],
        )  # fmt: skip
    merge = spelled.merge("base")
    exact = planner_of(repo).build_merge(merge)
    planned = planner_of(repo).build_merge(merge, Budget.parse("85%"))
    assert planned.costs.expert_bytes_planned <= planned.costs.budget_bytes
    assert planned.costs.blocks_coarse + planned.costs.blocks_omitted > 0
    for line in planned.plan.lines:
        assert set(line.depths[0]) == {2}
    for one in (exact, planned):
        made = engine_of(repo).execute(one.plan, reuse=False)
        assert made.expert_bytes_read == one.costs.expert_bytes_planned
        assert replay(engine_of(repo, 3), made.manifest_id).same
    repo.close()


def test_statistics_of_products_take_passes_over_their_factors(tmp_path):
    repo = models(tmp_path, 4096, codec="raw")
    spelled = Spelling(repo, "a0", "base", base="base")
    inputs = [
        spelled.of("a0", None, kind=TermKind.LOW_RANK, factors=low(spelled, "a0", "w")),
        spelled.of("base", "w", factors=low(spelled, "a0", "w", 0.1)),
    ]
    spelled.line(
        "w", "ties", inputs, base=spelled.of("base", "w"), file=FILE, shared={"density": 0.5},
        dtype="F32",
    )  # fmt: skip
    planned = planner_of(repo).build_merge(spelled.merge())
    request = MergeRequest(branch=branch_ref("out"))
    made = engine_of(repo).execute(planned.plan, request)
    read = made.expert_bytes_read + planned.measured_expert_bytes
    assert read == planned.costs.expert_bytes_planned == 3 * made.expert_bytes_read
    base = values(repo, "base", "w", "BF16")
    total = np.zeros_like(base)
    terms = [
        change(repo, "a0", "w", "F32"),
        base + change(repo, "a0", "w", "F32", 0.1) - base,
    ]
    kept = [np.where(np.abs(d) >= np.sort(np.abs(d))[len(d) // 2], d, 0) for d in terms]
    sign = np.where(sum(kept) >= 0, 1, -1)
    count = sum((np.sign(d) == sign).astype(np.float32) for d in kept)
    for d in kept:
        total += np.where(np.sign(d) == sign, d, 0)
    wanted = base + total / np.maximum(count, 1)
    assert np.allclose(values(repo, "out", "w", "F32"), wanted, atol=1e-6)
    repo.close()


def test_factors_of_other_shapes_are_refused(tmp_path):
    repo = models(tmp_path, 4096)

    def refused(match, one, base="base"):
        spelled = Spelling(repo, "e0", "a0", "base", base="base")
        under = None if base is None else spelled.of(base, "w")
        like = spelled.tensors["base"]["w"]
        spelled.line("w", "linear", [one(spelled)], base=under, file=FILE, like=like)
        with pytest.raises(MergeInputError, match=match):
            planner_of(repo).build_merge(spelled.merge())

    def adapter(name):
        def one(spelled):
            factors = None if name is None else low(spelled, "a0", name)
            return spelled.of("a0", None, kind=TermKind.LOW_RANK, factors=factors)

        return one

    refused("do not make", adapter("long"))
    refused("has factors, and no weights", adapter(None))
    refused("there is no base", adapter("w"), None)
    repo.close()
