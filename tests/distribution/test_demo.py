"""The demo's figures, which README.md prints, and its slow line."""

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mergepipe import Repository
from tests.cli.conftest import Mp
from tests.cli.conftest import mp as mp
from tests.cli.families import write_family

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/demo"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", DEMO / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tour_and_the_table_print_the_same(figures: ModuleType) -> None:
    found = figures.printed((ROOT / "README.md").read_text())
    assert len(found) == 5
    assert [name for name, (tour, table) in found.items() if tour != table] == []


def test_what_a_run_comes_to_is_set_beside_it(figures: ModuleType) -> None:
    said = figures.printed((ROOT / "README.md").read_text())
    base, tuned, read, of_full, kept = (tour for tour, _ in said.values())
    committed = {
        "main": f"[main 0] Base model\n 3.7 MiB as 2.4 MiB stored ({base}%), all new\n",
        "code": f"[code 1] Fine-tuned on code\n 3.7 MiB as 1 MiB stored ({tuned + 3:.1f}%)\n",
    }
    plan = {
        "expert_bytes_planned": 1000.0,
        "expert_bytes_raw": 1e5 / read,
        "expert_bytes_full": 1e5 / of_full,
        "energy_kept": (kept + 0.4) / 100,
    }
    lines = figures.compared(figures.measured(committed, plan)).splitlines()[3:]
    assert [line.endswith("differs") for line in lines] == [False, True, False, False, False]


def test_a_slow_line_passes_everything_on_and_counts(
    tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # `-C` changes it, and it is put back
    there, count = tmp_path / "there", tmp_path / "count"
    with Repository.init(there, who="Ada") as repo:
        for name, path in write_family(tmp_path / "models").items():
            repo.commit(path, branch=name, base=None if name == "base" else "base")
    line = shlex.join([sys.executable, str(DEMO / "slow_line.py"), str(count)])
    monkeypatch.setenv("MP_SSH", line)
    monkeypatch.setenv("MP_SSH_REMOTE", f"{sys.executable} -m mergepipe")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    mp("clone", "--lazy", f"ssh://far-away{there}", tmp_path / "lazy")
    lazily = sum(map(int, count.read_text().split()))
    mp("clone", f"ssh://far-away{there}", tmp_path / "whole")
    wholly = sum(map(int, count.read_text().split())) - lazily
    assert 0 < lazily < wholly
    assert mp("-C", tmp_path / "whole", "fsck", "--read-data", "--json").document["ok"]
