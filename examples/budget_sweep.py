"""What a budget costs and what it keeps: two experts merged at several, evaluated, and drawn.

python examples/budget_sweep.py [DIRECTORY]     (a throw-away one by default)

Uses the models of the tutorial. Writes sweep.svg where `pip install 'mergepipe[report]'` was done.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from mergepipe import Repository

BUDGETS = ("10%", "25%", "50%", "100%")


def tutorial_models() -> ModuleType:
    """examples/tutorial/models.py."""
    path = Path(__file__).parent / "tutorial/models.py"
    spec = importlib.util.spec_from_file_location("tutorial_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(where: Path) -> None:
    """Commit, sweep, merge at each budget, evaluate, draw."""
    models = tutorial_models()
    models.make(where / "models")
    with Repository.init(where / "repository") as repo:
        for name in ("base", "code", "prose"):
            base = None if name == "base" else "base"
            repo.commit(where / "models" / name, branch=name, base=base)

        exact = repo.plan(experts=["code", "prose"], method="ties")
        sweep = repo.sweep(exact)
        print(sweep)
        print("90% of the energy takes a budget of", sweep.cheapest(0.9).budget)

        for budget in BUDGETS:
            plan = repo.plan(experts=["code", "prose"], method="ties", budget=budget)
            branch = f"at-{budget.removesuffix('%')}"
            merged = repo.merge(plan, branch=branch)
            folder = repo.checkout(branch, to=where / branch)
            print(f"{budget}: {merged.expert_bytes_read:,} bytes of the experts read, loss:")
            models.evaluate([folder])
        draw(sweep, where / "sweep.svg")


def draw(sweep, path: Path) -> None:
    """The curve as a picture, by the library that draws reports."""
    try:
        from mergepipe.report.figures import budget_curve
        from mergepipe.report.values import CurvePoint
    except ImportError:
        return
    points = [CurvePoint(point.read_bytes, point.energy_kept) for point in sweep]
    budget_curve(points, None).save(path)
    print("drawn:", path.name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory))
