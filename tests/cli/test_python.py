"""Python as a person at a REPL holds it: values that print short, ids in hex, weights by name."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import mergepipe
from mergepipe import Engine, MergepipeError, Planner, Repository
from mergepipe.errors import MergeInputError, UsageError
from mergepipe.transfer.push_refs import PushOptions
from tests.cli.models import write_model

LAYERS = 120
SCREEN = 24 * 80


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """base, and math and code that were trained from it: 240 tensors each."""
    monkeypatch.setenv("MP_AUTHOR", "Ada <ada@example.org>")
    source = np.random.default_rng(1)
    names = [f"model.layers.{layer}.{kind}" for layer in range(LAYERS) for kind in ("up", "down")]
    base = {name: source.standard_normal((8, 4)).astype(np.float32) for name in names}
    with Repository.init(tmp_path / "repository") as repository:
        for name in ("base", "math", "code"):
            held = base if name == "base" else {key: value + 1 for key, value in base.items()}
            path = write_model(tmp_path / name, held)
            repository.commit(
                path, branch=name, message=f"A\n{name}", base=None if name == "base" else "base"
            )
        yield repository


def test_no_value_prints_more_than_a_screen(repo: Repository) -> None:
    plan = repo.plan(base="base", experts=["math", "code"], budget="50%")
    result = repo.merge(plan, branch="merged")
    explained = repo.explain("merged")
    values = [
        repo, plan, plan.plan, plan.costs, plan.merge, plan.experts, result, result.manifest,
        explained[0], explained[1], repo.diff("base", "math"), repo.usage(), repo.branches(),
        repo.tensors("math"), repo.tensors("math")["model.layers.3.up"], repo.snapshot_of("math"),
        repo.snapshot_of("math").files[1], repo.commit_of("math"), next(repo.log("math")),
        repo.check("math"), repo.replay("merged"), repo.fsck(), repo.gc(), repo.config,
        repo.reflog(), plan.plan.lines[0], plan.costs.tensors[0], repo.status(),
    ]  # fmt: skip
    long = {type(value).__name__: len(repr(value)) for value in values}
    assert {name: size for name, size in long.items() if size > SCREEN} == {}
    assert repr(plan).startswith(f"<plan {plan.id.hex()[:12]}: ties of math, code, reads ")


def test_ids_print_as_hex(repo: Repository) -> None:
    at = repo.resolve("math")
    assert str(at) == repr(at) == at.hex()
    commit = repo.commit_of("math")[1]
    assert commit.snapshot.hex() in repr(commit)
    made = repo.commit(repo.directory.parent.parent / "math", branch="again")
    assert str(made.commit) == made.commit.hex()
    assert str(repo.branches()["math"]) == at.hex()
    assert bytes(at) == at
    repo.tag("v1", "math")
    there = Repository.init(repo.directory.parent.parent / "there")
    pushed = repo.push(str(there.directory.parent), PushOptions(("math",))).pushed
    for identity in (
        repo.branch("side", "math"), repo.rename_branch("aside", "side"), repo.delete_tag("v1"),
        repo.delete_branch("aside"), repo.reflog("math")[0].new, pushed.refs[0].new,
        next(repo.log("math"))[0],
    ):  # fmt: skip
        assert repr(identity) == at.hex()
    assert repr(repo.analyze("math")) == str(repo.analyze("math", base="base"))
    plan = repo.plan(base="base", experts=["math"])
    assert str(plan.id) == plan.id.hex()
    assert repo.load_plan(repo.store_plan(plan)) == plan.plan


def test_an_error_prints_with_its_hint(repo: Repository) -> None:
    with pytest.raises(MergepipeError) as caught:
        repo.resolve("mth")
    assert str(caught.value).splitlines()[1] == "hint: did you mean math?"
    assert str(MergepipeError("alone")) == "alone"


def test_dir_tells_all_there_is() -> None:
    assert set(mergepipe.__all__) <= set(dir(mergepipe))
    assert all(getattr(mergepipe, name) is not None for name in mergepipe.__all__)


def test_modules_that_the_page_names_are_there_at_once() -> None:
    code = "import mergepipe as m; print(m.errors.RefMoved.__name__, m.progress.Progress.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["RefMoved", "Progress"]
    assert {"errors", "progress"} <= set(dir(mergepipe))
    assert "TYPE_CHECKING" not in dir(mergepipe)


def test_what_is_executed_unpacks_and_tells_the_rest(repo: Repository) -> None:
    plan = Planner(catalog=repo.catalog).plan(
        base_model="base", experts=["math", "code"], operator="TIES", lambda_=0.8
    )
    engine = Engine(storage=repo.storage, transaction_manager=repo.transactions)
    executed = engine.execute(plan)
    snapshot, manifest = executed
    # As a type checker sees them: `make types` reads this file.
    assert (snapshot.hex(), manifest.manifest_hash) == (
        executed.snapshot.hex(),
        executed.manifest.manifest_hash,
    )
    assert executed.commit == repo.resolve("HEAD")
    assert executed.expert_bytes_read > 0
    assert executed.left_out == ()
    assert repr(executed).startswith("MergeResult(commit=")


def test_a_word_of_python_is_a_parameter_with_an_underscore(repo: Repository) -> None:
    def planned(**parameters: float) -> bytes:
        return repo.plan(base="base", experts=["math", "code"], **parameters).id  # type: ignore[arg-type]

    assert planned(lambda_=0.8) == planned(**{"lambda": 0.8}) != planned()
    with pytest.raises(MergeInputError, match="no parameter 'lamda_'"):
        planned(lamda_=0.8)


def test_a_path_is_cloned_as_its_text_is(repo: Repository, tmp_path: Path) -> None:
    made = Repository.clone(repo.directory.parent, tmp_path / "clone", branch="math")
    with Repository.open(made.directory) as clone:
        assert clone.branches() == {"math": repo.resolve("math")}


def test_budgets_as_numbers_are_bytes_or_refused(repo: Repository) -> None:
    def limit(budget: float | str) -> int | None:
        return repo.plan(base="base", experts=["math", "code"], budget=budget).costs.budget_bytes

    assert limit(10_000) == limit("10000") == limit(1e4) == 10_000
    for wrong in (10, 0.25, 1.0, -5, float("nan"), float("inf"), True):
        with pytest.raises(UsageError) as caught:
            limit(wrong)
        assert "%" in caught.value.hint


def test_the_author_is_the_one_that_mp_would_take(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert next(repo.log("math"))[1].author == "Ada <ada@example.org>"
    with Repository.open(repo.directory, who="Grace <g@example.org>") as other:
        other.commit(tmp_path / "code", branch="new", message="x")
        assert next(other.log("new"))[1].author == "Grace <g@example.org>"


def test_tensors_are_named_before_they_are_read(repo: Repository) -> None:
    tensors = repo.tensors("math")
    assert len(tensors) == 2 * LAYERS
    assert "model.layers.7.down" in tensors
    one = tensors["model.layers.7.down"]
    assert (one.shape, one.dtype, one.size_bytes) == ((8, 4), "F32", 128)
    assert torch.equal(one.read(), repo.tensor("math", "model.layers.7.down"))


def test_a_state_dict_is_in_the_order_of_the_files(repo: Repository) -> None:
    state = repo.state_dict("math")
    assert list(state) == list(repo.tensors("math"))
    assert all(torch.equal(state[name], repo.tensor("math", name)) for name in list(state)[::40])


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.head = torch.nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


def test_weights_go_into_a_model_tied_ones_too(repo: Repository, tmp_path: Path) -> None:
    weights = np.arange(24, dtype=np.float32).reshape(6, 4)
    repo.commit(write_model(tmp_path / "tied", {"embed.weight": weights}), branch="tied")
    model = Tied().to(torch.bfloat16)
    assert repo.load_into(model, "tied") == ()
    assert model.head.weight.tolist() == weights.tolist()
    assert model.embed.weight.dtype == torch.bfloat16
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MergeInputError, match=r"math lacks 'embed.weight'.*the model lacks 'mod"):
        repo.load_into(model, "math")
    assert repo.load_into(model, "math", strict=False) == ("embed.weight", "head.weight")
    assert all(torch.equal(before[name], held) for name, held in model.state_dict().items())
    wrong = write_model(tmp_path / "wrong", {"embed.weight": weights.T.copy()})
    repo.commit(wrong, branch="wrong")
    with pytest.raises(MergeInputError, match=r"\[4, 6\] in wrong, and \[6, 4\] in the model"):
        repo.load_into(model, "wrong", strict=False)


def test_totals_of_experts_add_up(repo: Repository) -> None:
    plan = repo.plan(base="base", experts=["math", "code"], budget="50%")
    assert [one.name for one in plan.experts] == ["math", "code"]
    assert sum(one.bytes_raw for one in plan.experts) == plan.costs.expert_bytes_raw
    assert sum(one.blocks_exact for one in plan.experts) == plan.costs.blocks_exact


def test_a_progress_bar_where_nobody_looks_draws_nothing(
    repo: Repository, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with mergepipe.ProgressBar() as bar:
        repo.commit(tmp_path / "code", branch="code", message="again", progress=bar)
        repo.state_dict("code", progress=bar)
    assert capfd.readouterr().err == ""
