"""Methods of other packages: found by entry point, merged, replayed, examined, and refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mergepipe import Repository
from mergepipe.errors import MergeInputError
from mergepipe.methods import METHODS, installed, registry
from mergepipe.methods.conformance import PromiseBroken, check
from mergepipe.methods.custom import elementwise_method
from tests.cli.families import write_family

EXAMPLE = Path(__file__).parents[2] / "examples/custom_method"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the example as pip installs it, and what entry points are added."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "median_merge.py").write_text((EXAMPLE / "median_merge.py").read_text())
    described = folder / "median_merge-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: median-merge\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[mergepipe.methods]\nmedian = median_merge:MEDIAN\n"
        "broken = median_merge:NOTHING\nother = median_merge:MEDIAN\nties = median_merge:MEDIAN\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    installed.installed.cache_clear()
    installed.load.cache_clear()
    yield folder
    sys.modules.pop("median_merge", None)
    installed.installed.cache_clear()
    installed.load.cache_clear()


def test_an_installed_method_merges_and_replays(package: Path, tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repository") as repo:
        models = write_family(tmp_path / "models", ("code", "prose", "tables"))
        for name, path in models.items():
            repo.commit(path, branch=name, base=None if name == "base" else "base")
        plan = repo.plan(experts=["code", "prose", "tables"], method="Median", pull=0.5)
        result = repo.merge(plan, branch="robust")
        base = repo.tensor("base", "embed").float()
        deltas = torch.stack(
            [repo.tensor(name, "embed").float() - base for name in ("code", "prose", "tables")]
        )
        expected = (base + deltas.median(dim=0).values * 0.5).to(torch.bfloat16)
        assert torch.equal(repo.tensor("robust", "embed"), expected)
        assert repo.replay("robust").same
        budgeted = repo.plan(experts=["code", "prose", "tables"], method="median", budget="50%")
        assert repo.merge(budgeted, branch="frugal").expert_bytes_read < result.expert_bytes_read
    assert registry.names()[-3:] == ["median", "broken", "other"]


def test_ours_are_not_replaced(package: Path) -> None:
    assert registry.find("ties") is METHODS["ties"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"median-merge 1.0 \(median_merge:NOTHING\) cannot be loaded"),
        ("other", "is no mergepipe.methods.Method called other"),
        ("medain", "no merge method 'medain'"),
    ],
)
def test_what_cannot_be_used_is_named(package: Path, name: str, words: str) -> None:
    with pytest.raises(MergeInputError, match=words):
        registry.find(name)


def test_the_example_keeps_its_promises(package: Path) -> None:
    method = registry.find("median")
    check(method, {"pull": 0.7})
    check(method, {}, [{"weight": 0.5}, {"weight": -1.0}])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_ours_keep_theirs(name: str) -> None:
    method = METHODS[name]
    required: dict[str, Any] = (
        {"t": 0.3} if "t" in {each.name for each in method.parameters} else {}
    )
    count = max(method.minimum_models, min(3, method.maximum_models or 3))
    if method.needs(method.settings(required, [{}] * count)):
        pytest.skip("has statistics; the suite beside measures them")
    check(method, required)


def _broken(change: Any, **options: Any) -> Any:
    return elementwise_method("broken", summary="", **options)(change)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (_broken(lambda base, deltas, weights, values: deltas[0] * deltas[0].mean()), "ranges"),
        (_broken(lambda base, deltas, weights, values: torch.rand_like(base)), "second time"),
        (_broken(lambda base, deltas, weights, values: deltas[0] + 1), "is not the base"),
    ],
)
def test_a_broken_promise_is_told(method: Any, words: str) -> None:
    with pytest.raises(PromiseBroken, match=words):
        check(method)
