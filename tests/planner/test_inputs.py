"""What is refused before any weight is read: model and tensor are named, exit code 13."""

import numpy as np
import pytest

from mergepipe.dtypes import DTYPES
from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import TermKind
from mergepipe.objects.records import FileEntry, Safetensors, Snapshot, TensorEntry
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge
from mergepipe.planner.recipe import Expert, Model, Recipe
from mergepipe.plans.left_out import Kind, LeftOut
from tests.planner.stored_models import Family, add_snapshot, add_tensor, family, named, plan_recipe


@pytest.fixture(scope="module")
def models() -> Family:
    return family(1)


def changed(models: Family, **tensors: ObjectId | None) -> ObjectId:
    """The expert with other tensors, or without them."""
    found = {**named(models.shelf, models.experts[0]), **tensors}
    return add_snapshot(models.shelf, {name: one for name, one in found.items() if one is not None})


def merge(models: Family, expert: ObjectId, **options: object) -> PlannedMerge:
    kind = options.pop("kind", TermKind.FULL)
    want = Recipe(
        str(options.pop("method", "task_arithmetic")),
        (Expert("odd", expert, {}, kind),),  # type: ignore[arg-type]
        options.pop("base", Model("root", models.base)),  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    return plan_recipe(want, Budget(), models.shelf, [None])


def test_shapes(models: Family) -> None:
    other = add_tensor(models.shelf, bytes(200), "BF16", (100,))
    with pytest.raises(MergeInputError, match=r"'odd'.*'norm'.*\[100\].*'root' \[128\]") as caught:
        merge(models, changed(models, norm=other))
    assert caught.value.exit_code == 13


def test_dtypes_unless_one_is_asked_for(models: Family) -> None:
    other = changed(models, norm=add_tensor(models.shelf, bytes(512), "F32", (128,)))
    with pytest.raises(MergeInputError, match=r"'odd'.*'norm' is F32, in 'root' BF16"):
        merge(models, other)
    plan = merge(models, other, dtype=DTYPES["BF16"]).plan
    line = next(line for line in plan.lines if line.name == "norm")
    assert (line.dtype, line.depths) == ("BF16", (b"\x02",))


def test_missing_tensors_unless_allowed(models: Family) -> None:
    other = changed(models, norm=None)
    with pytest.raises(MergeInputError, match="'odd' lacks tensor 'norm', which 'root' has"):
        merge(models, other)
    plan = merge(models, other, allow_missing=True).plan
    line = next(line for line in plan.lines if line.name == "norm")
    assert [one.source for one in line.inputs] == [None]
    assert line.copied == line.like
    with pytest.raises(MergeInputError, match="no base"):
        want = Recipe(
            "linear",
            (Expert("a", models.base), Expert("b", other)),
            allow_missing=True,
        )
        plan_recipe(want, Budget(), models.shelf, [None, None])


def test_what_is_left_out_is_listed_by_model(models: Family) -> None:
    extra = add_tensor(models.shelf, bytes(2), "BF16", (1,))
    other = changed(
        models, norm=None, **{f"h.{n}.mlp.{m}.w": extra for n in (0, 1) for m in (0, 2)}
    )
    merged = merge(models, other, allow_missing=True).merge
    extras = ("h.0.mlp.0.w", "h.0.mlp.2.w", "h.1.mlp.0.w", "h.1.mlp.2.w")
    assert merged.left_out == (
        LeftOut(Kind.MISSING_TENSORS, "odd", ("norm",)),
        LeftOut(Kind.EXTRA_TENSORS, "odd", extras),
    )
    assert [one.message for one in merged.left_out] == [
        "'odd' lacks 1 tensor; it adds nothing to the base's there: 'norm'",
        "'odd' has 4 tensors that the result has no place for; not merged: 'h.[0-1].mlp.[0,2].w'",
    ]


def test_a_model_with_nothing_in_common_is_refused_whatever_is_allowed(models: Family) -> None:
    one = add_tensor(models.shelf, bytes(2), "BF16", (1,))
    other = add_snapshot(models.shelf, {"quite.another": one})
    with pytest.raises(MergeInputError, match="'odd' has none of the tensors of 'root'"):
        merge(models, other, allow_missing=True)


def test_one_weight_under_two_names_is_merged_and_told(models: Family) -> None:
    norm = named(models.shelf, models.experts[0])["norm"]
    other = changed(models, norm=None, **{"transformer.norm": norm})
    merged = merge(models, other).merge
    line = next(line for line in merged.lines if line.name == "norm")
    assert [one.source for one in line.inputs] == [norm]
    assert merged.left_out == ()
    assert merged.warnings == (
        "names of 'odd' are matched with those of 'root': 'transformer.norm' is its 'norm'",
    )


def test_another_layout_is_refused_whatever_is_allowed(models: Family) -> None:
    one = add_tensor(models.shelf, bytes(2), "BF16", (1,))
    fused = add_snapshot(models.shelf, {"h.0.mlp.experts.gate_up_proj": one})
    apart = add_snapshot(models.shelf, {f"h.0.mlp.experts.{n}.up_proj.weight": one for n in (0, 1)})
    with pytest.raises(MergeInputError, match="'root' keeps its experts in one tensor, 'odd' in"):
        merge(models, apart, base=Model("root", fused), allow_missing=True)
    with pytest.raises(MergeInputError, match="'odd' keeps its experts in one tensor, 'root' in"):
        merge(models, fused, base=Model("root", apart), allow_missing=True)


def test_tensors_that_the_base_lacks(models: Family) -> None:
    other = changed(models, extra=add_tensor(models.shelf, bytes(2), "BF16", (1,)))
    with pytest.raises(MergeInputError, match="'odd' has tensor 'extra', which 'root' lacks"):
        merge(models, other)
    plan = merge(models, other, allow_missing=True).plan
    assert "extra" not in {line.name for line in plan.lines}


def test_dtypes_without_arithmetic_are_taken_over_where_all_agree(models: Family) -> None:
    shelf = models.shelf
    counts = np.arange(8, dtype="<i8").tobytes()
    same = add_tensor(shelf, counts, "I64", (8,))
    base = add_snapshot(shelf, {**named(shelf, models.base), "ids": same})
    root = Model("root", base)
    plan = merge(models, changed(models, ids=same), base=root, dtype=DTYPES["F32"]).plan
    line = next(line for line in plan.lines if line.name == "ids")
    assert (line.copied, line.depths, line.dtype) == (same, (), "I64")
    other = add_tensor(shelf, counts[::-1], "I64", (8,))
    with pytest.raises(MergeInputError, match="'odd': tensor 'ids' is I64 and differs"):
        merge(models, changed(models, ids=other), base=root)


def test_parameters_are_checked_before_anything_is_looked_up(models: Family) -> None:
    before = models.shelf.looked_up
    with pytest.raises(MergeInputError, match="density"):
        merge(models, models.experts[0], method="ties", parameters={"density": 2})
    with pytest.raises(MergeInputError, match="no parameter 'densty'"):
        merge(models, models.experts[0], method="ties", parameters={"densty": 0.5})
    with pytest.raises(MergeInputError, match="needs a base"):
        merge(models, models.experts[0], method="ties", base=None)
    assert models.shelf.looked_up == before


def test_deltas_may_leave_tensors_out_and_are_never_equal_to_the_base(models: Family) -> None:
    shelf = models.shelf
    zero = add_tensor(shelf, bytes(256), "BF16", (128,))
    deltas = add_snapshot(shelf, {"norm": zero})
    base = add_snapshot(shelf, {**named(shelf, models.base), "norm": zero})
    plan = merge(models, deltas, base=Model("root", base), kind=TermKind.DELTA).plan
    assert plan.lines[0].inputs[0].kind is TermKind.DELTA
    depths = {line.name: set(b"".join(line.depths)) for line in plan.lines}
    assert depths["norm"] == {2}
    assert depths["embed"] == {3}
    with pytest.raises(MergeInputError, match="adapter of low rank"):
        merge(models, models.experts[0], kind=TermKind.LOW_RANK)


def test_the_same_name_in_two_files_is_found_by_file(models: Family) -> None:
    shelf = models.shelf
    one, two = (add_tensor(shelf, bytes([value]) * 64, "BF16", (32,)) for value in (1, 2))

    def both(first: ObjectId, second: ObjectId) -> ObjectId:
        header = shelf.put(shelf.tensor(one))
        files = tuple(
            FileEntry(path, False, 64, Safetensors(header, (TensorEntry("w", tensor),)))
            for path, tensor in (("a.safetensors", first), ("b.safetensors", second))
        )
        return shelf.put(Snapshot(files))

    plan = merge(models, both(two, two), base=Model("root", both(one, two))).plan
    assert [(line.file, line.inputs[0].source, bool(line.depths)) for line in plan.lines] == [
        ("a.safetensors", two, True),
        ("b.safetensors", two, False),
    ]
