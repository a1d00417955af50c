"""Outputs that are no input's: renamed, repeated and resharded tensors, of any models."""

import json

import numpy as np
import pytest

from mergepipe.engine.replay import replay
from mergepipe.engine.transactions import MergeRequest
from mergepipe.errors import MergeInputError
from mergepipe.planner.budget import Budget
from mergepipe.planner.lines import LineInput, Made
from mergepipe.repository.refnames import branch_ref
from tests.engine.merging import (
    EXPERTS,
    SHAPES,
    engine_of,
    random_model,
    repository,
    tensor_bytes_of,
    tensors_of,
    three_experts,
    write_model,
)
from tests.engine.planning import planner_of
from tests.engine.spelling import Spelling

FILE = "model.safetensors"


def execute(repo, merge, branch="out", budget=None):
    planned = planner_of(repo).build_merge(merge, Budget.parse(budget))
    request = MergeRequest(branch=branch_ref(branch))
    made = engine_of(repo).execute(planned.plan, request, reuse=False)
    assert made.expert_bytes_read <= planned.costs.expert_bytes_planned
    assert replay(engine_of(repo, 3), made.manifest_id).same
    return made


def test_layers_stacked_anew(tmp_path):
    """Slices of several models, shifted and twice over: copied tensors are not even read."""
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    spelled = Spelling(repo, *EXPERTS, "base", base="base")
    order = [("e0", "layer.w"), ("e1", "layer.w"), ("e0", "layer.w"), ("e2", "layer.w")]
    for number, (rev, name) in enumerate(order):
        spelled.line(f"layer.{number}", "passthrough", [spelled.of(rev, name)], file=FILE)
    spelled.line(
        "half", "passthrough", [spelled.of("e0", "embed")], file=FILE, own=[{"scale": 0.5}]
    )
    made = execute(repo, spelled.merge())
    for number, (rev, name) in enumerate(order):
        assert tensors_of(repo, "out")[FILE, f"layer.{number}"] == tensors_of(repo, rev)[FILE, name]
    assert made.costs.blocks_computed == len(
        repo.objects.tensor(tensors_of(repo, "e0")[FILE, "embed"]).block_ids()
    )
    from safetensors import safe_open

    directory = repo.checkout("out", to=tmp_path / "out")
    with safe_open(directory / FILE, "pt") as file:
        assert set(file.keys()) == {*(f"layer.{number}" for number in range(4)), "half"}
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("layer.1").shape == SHAPES["layer.w"]
    repo.close()


def test_other_tensors_of_one_model_are_inputs_like_any_others(tmp_path):
    """The same model twice, with different tensors; budgets buy blocks of shifted pairs too."""
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    shapes = {"a": (64, 96), "b": (64, 96), "c": (64, 96)}
    base = random_model(40, shapes=shapes)
    repo.commit(write_model(tmp_path / "b", base), branch="b", message="b")
    repo.commit(write_model(tmp_path / "x", random_model(41, near=base, shapes=shapes)), branch="x")
    spelled = Spelling(repo, "x", "b", base="b")
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        spelled.line(
            name, "task_arithmetic", [spelled.of("x", name), spelled.of("x", other)],
            base=spelled.of("b", name), file=FILE, own=[{"weight": 0.25}, {"weight": 0.5}],
        )  # fmt: skip
    merge = spelled.merge("b")
    execute(repo, merge)

    def values(rev, name):
        raw = np.frombuffer(tensor_bytes_of(repo, rev, name), np.uint16).astype(np.uint32)
        return (raw << 16).view(np.float32)

    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        under = values("b", name)
        wanted = under + 0.25 * (values("x", name) - under) + 0.5 * (values("x", other) - under)
        assert np.abs(values("out", name) - wanted).max() <= 2.0**-8 * np.abs(wanted).max()
    # Of pairs that no profile knows everything is read: less than that is no plan.
    planned = planner_of(repo).build_merge(merge, Budget.parse("80%"))
    for line in planned.plan.lines:
        assert set(line.depths[1]) == {2}
    assert planned.costs.expert_bytes_planned <= planned.costs.budget_bytes
    repo.close()


def test_other_grids_dtypes_and_shards(tmp_path):
    """`like` has its own block grid; the output's headers, config and index say what came out."""
    repo = repository(tmp_path / "repo", block_size=4096, codec="auto")
    base = random_model(0)
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    extra = {"model.safetensors.index.json": json.dumps(index)}
    repo.commit(write_model(tmp_path / "wide", base, "F32", files=2, extra=extra), branch="wide")
    for number in range(2):
        values = random_model(number + 1, near=base)
        repo.commit(write_model(tmp_path / f"n{number}", values), branch=f"n{number}")
    spelled = Spelling(repo, "n0", "n1", "wide", base="wide")
    for path, name in tensors_of(repo, "wide"):
        spelled.line(
            name, "task_arithmetic", [spelled.of("n0", name), spelled.of("n1", name)],
            base=spelled.of("wide", name), file=path, shared={"weight": 0.5},
            like=spelled.tensors["wide"][name], dtype="F16",
        )  # fmt: skip
    execute(repo, spelled.merge("wide"))
    directory = repo.checkout("out", to=tmp_path / "out")
    size = sum(2 * int(np.prod(shape)) for shape in SHAPES.values())
    written = json.loads((directory / "model.safetensors.index.json").read_text())
    assert written["metadata"]["total_size"] == size
    assert '"float16"' in (directory / "config.json").read_text()
    from safetensors.numpy import load_file

    for path in sorted(directory.glob("*.safetensors")):
        for name, got in load_file(path).items():
            assert got.dtype == np.float16
            assert np.abs(got - base[name]).max() < 0.1
    repo.close()


def test_what_does_not_fit_is_said_before_anything_is_read(tmp_path):
    repo = three_experts(tmp_path, block_size=4096)
    base = Spelling(repo, "e0", "base", base="base")

    def refused(match, *arguments, layout="base", **options):
        spelled = Spelling(repo, "e0", "base", base="base")
        for name in SHAPES:
            spelled.line(name, "passthrough", [spelled.of("base", name)], file=FILE)
        spelled.lines.pop()
        spelled.line(*arguments, file=FILE, **options)
        with pytest.raises(MergeInputError, match=match) as caught:
            planner_of(repo).build_merge(spelled.merge(layout))
        assert caught.value.exit_code == 13

    own, other = base.of("e0", "layer.v"), base.of("e0", "embed")
    refused("'other' is missing|'layer.v' is missing", "other", "linear", [own])
    refused(r"'layer.v' in 'e0' it has shape \[300, 64\]", "layer.v", "linear", [own, other])
    refused("ties needs a base", "layer.v", "ties", [own])
    late = LineInput(-1, Made(9))
    refused("which does not come before", "layer.v", "linear", [late], like=own.source)
    lacking = base.of("e0", None)
    refused("lacks it, and there is no base", "layer.v", "linear", [own, lacking])
    repo.close()


def test_a_stage_may_be_cut_otherwise_than_what_takes_it_in(tmp_path):
    """The grid of a line that no file holds changes no bit, and is explained like any other."""
    repo = repository(tmp_path / "repo", block_size=4096, codec="auto")
    base = random_model(0)
    repo.commit(write_model(tmp_path / "wide", base, "F32"), branch="wide")
    for number in range(3):
        values = random_model(number + 1, near=base)
        repo.commit(write_model(tmp_path / f"n{number}", values), branch=f"n{number}")
    made = []
    for like in ("n0", "wide"):
        spelled = Spelling(repo, "n0", "n1", "n2", "wide")
        for name in SHAPES:
            stage = spelled.line(
                "stage", "ties", [spelled.of("n0", name), spelled.of("n1", name)],
                base=spelled.of("wide", name), like=spelled.tensors[like][name],
                shared={"density": 0.5},
            )  # fmt: skip
            spelled.line(
                name, "task_arithmetic", [stage, spelled.of("n2", name)],
                base=spelled.of("n0", name), file=FILE, shared={"weight": 0.5},
            )  # fmt: skip
        made.append(execute(repo, spelled.merge("n0"), f"out-{like}"))
    assert made[0].snapshot == made[1].snapshot
    repo.close()


def test_a_layout_lives_as_long_as_the_merge_and_is_explained(tmp_path):
    repo = three_experts(tmp_path, block_size=4096, codec="auto")
    spelled = Spelling(repo, *EXPERTS, "base", base="base")
    stage = spelled.line("s", "linear", [spelled.of("e0", "embed"), spelled.of("e1", "embed")])
    spelled.line(
        "new.name", "task_arithmetic", [stage, spelled.of("e2", "embed")],
        base=spelled.of("base", "embed"), file=FILE, shared={"weight": 0.5},
    )  # fmt: skip
    planned = repo.planning.plan_merge(spelled.merge())
    made = repo.merge(planned, branch="out")
    repo.gc(grace_s=0)
    assert repo.replay("out").same
    told, plan, manifest = repo.explain("out", "new.name")
    assert manifest == made.manifest_id
    assert plan == planned.plan
    [tensor] = told.tensors
    assert [(part.cost.model, part.method) for part in tensor.experts] == [
        (2, "task_arithmetic"),
        (0, "linear"),
        (1, "linear"),
    ]
    assert told.costs.expert_bytes_planned == made.expert_bytes_read
    assert told.method == "linear, task_arithmetic"
    repo.close()
