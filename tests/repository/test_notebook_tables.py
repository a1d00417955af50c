"""What notebooks show of values: tables of their numbers, names as text."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mergepipe import Repository

EVIL = "<script>alert(1)</script>"


def test_plans_results_diffs_and_logs_are_tables(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repository", block_size=4096) as repository:
        source = np.random.default_rng(0)
        base = source.normal(0, 0.1, (64, 64))
        for name in ("base", "law", "math"):
            folder = tmp_path / name
            folder.mkdir()
            tuned = base + (source.normal(0, 0.01, base.shape) if name != "base" else 0.0)
            save_file({"w": tuned.astype(np.float16)}, folder / "model.safetensors")
            under = None if name == "base" else "base"
            repository.commit(folder, branch=name, message=f"{name} {EVIL}", base=under)
        plan = repository.plan(base="base", experts=["law", "math"], budget="40%")
        shown = plan._repr_html_()
        assert f"keeps {plan.costs.energy_kept:.1%}" in shown
        assert all(f"<td>{name}</td>" in shown for name in ("law", "math"))
        result = repository.merge(plan, branch="both", message="both")
        assert f"<td>{result.commit.hex()}</td>" in result._repr_html_()
        difference = repository.diff("base", "law")
        (tensor,) = difference.tensors
        assert f"<td>{tensor.relative_l2:.4g}</td>" in difference._repr_html_()
        log = repository.log("both")
        table = log._repr_html_()
        commits = list(log)  # the table took nothing from it
        assert len(commits) == table.count("<tr>") - 1
        assert all(identity.hex()[:12] in table for identity, _ in commits)
        assert EVIL not in table
        assert "&lt;script&gt;" in table
