"""`mp plan --sweep` and `repo.sweep`: what budgets would keep, before anything is read."""

from pathlib import Path

import pytest

from mergepipe import Repository
from mergepipe.api.sweeping import SHARES
from mergepipe.errors import MergeInputError, UsageError
from tests.cli.conftest import Mp
from tests.cli.families import write_family


@pytest.fixture
def family(tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with base, math and code, and the current directory in it."""
    directory = tmp_path / "repository"
    with Repository.init(directory) as repo:
        for name, path in write_family(tmp_path / "models").items():
            repo.commit(path, branch=name, base=None if name == "base" else "base")
    monkeypatch.chdir(directory)
    return directory


def test_budgets_rise_to_the_exact_merge(family: Path, mp: Mp) -> None:
    before = sorted(family.rglob("*.pack"))
    points = mp("plan", "math", "code", "--sweep", "--json").document
    exact = mp("plan", "math", "code", "--dry-run", "--json").document
    assert [point["budget"] for point in points[:3]] == ["1%", "2.5%", "5%"]
    assert len(points) == len(SHARES)
    read = [point["read_bytes"] for point in points]
    kept = [point["energy_kept"] for point in points]
    assert read == sorted(read)
    assert kept == sorted(kept)
    assert read[-1] == exact["expert_bytes_full"]
    assert kept[-1] == pytest.approx(1.0)
    assert sorted(family.rglob("*.pack")) == before


def test_a_plan_for_a_point_of_the_curve_keeps_about_as_much(family: Path) -> None:
    with Repository.open(family) as repo:
        sweep = repo.sweep(repo.plan(experts=["math", "code"]), [0.5, 0.2, 0.5])
        assert [point.budget for point in sweep] == ["20%", "50%"]
        for point in sweep:
            plan = repo.plan(experts=["math", "code"], budget=point.budget)
            assert plan.costs.expert_bytes_planned <= plan.costs.expert_bytes_full
            assert plan.costs.energy_kept <= point.energy_kept + 1e-9
            assert plan.costs.energy_kept >= 0.8 * point.energy_kept


def test_it_prints_as_a_table(family: Path, mp: Mp) -> None:
    lines = mp("plan", "math", "code", "--sweep").out.splitlines()
    assert lines[0].split() == ["budget", "read", "energy", "kept"]
    assert lines[-1].split()[0] == "100%"
    assert lines[-1].endswith("#" * 30)
    with Repository.open(family) as repo:
        sweep = repo.sweep(repo.plan(experts=["math", "code"]))
        assert repr(sweep).splitlines() == lines
        assert sweep._repr_html_().count("<tr>") == len(SHARES) + 1
        cheapest = sweep.cheapest(0.9)
        assert cheapest is not None
        assert cheapest.energy_kept >= 0.9
        assert sweep.cheapest(1.1) is None


def test_it_becomes_a_data_frame(family: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="the test extra has it")
    with Repository.open(family) as repo:
        frame = repo.sweep(repo.plan(experts=["math", "code"])).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["budget", "read_bytes", "energy_kept"]
    assert frame["energy_kept"].is_monotonic_increasing


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(family: Path, share: float) -> None:
    with Repository.open(family) as repo, pytest.raises(UsageError, match="a share of the exact"):
        repo.sweep(repo.plan(experts=["math", "code"]), [share])


def test_a_budget_beside_it_is_refused(family: Path, mp: Mp) -> None:
    failed = mp("plan", "math", "code", "--sweep", "--budget", "50%", expect=2)
    assert "--sweep tries budgets itself" in failed.err


def test_what_has_no_profile_has_no_curve(family: Path) -> None:
    with Repository.open(family) as repo:
        plan = repo.plan(experts=["math"], method="passthrough")
        with pytest.raises(MergeInputError, match="what budgets keep is not known"):
            repo.sweep(plan)
