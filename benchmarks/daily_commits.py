"""Tomorrow's version of an expert, committed as everyone does: what it takes, and what it is worth.

    python benchmarks/daily_commits.py --family DIR

DIR holds `base` and directories of experts. One of them gets a version that went on training by
some share of its changes, and is committed plainly (no --base), with --base, and with yesterday's
version for a base, which stores least and leaves a budget nothing to read coarsely. Prints the
bytes stored, and the energy that raw:10% of all experts then keeps
(docs/design/storing-fine-tunes.md).
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mergepipe.api import Repository
from mergepipe.sizes import format_size

SHARES = (0.02, 0.1, 0.4, 1.0)


def went_on(base: Path, expert: Path, out: Path, share: float) -> Path:
    """A version that moved by `share` of the expert's mean change, in all weights."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(expert, out)
    [file] = out.glob("*.safetensors")
    start = load_file(next(base.glob("*.safetensors")))
    noise = torch.Generator().manual_seed(1)
    made = {}
    for name, values in load_file(file).items():
        size = (values.float() - start[name].float()).abs().mean() * share
        moved = values.float() + size * torch.randn(values.shape, generator=noise)
        made[name] = moved.to(values.dtype).contiguous()
    save_file(made, file, {"format": "pt"})
    return out


def main() -> None:
    """A line for each share and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, required=True)
    family = parser.parse_args().family
    base, experts = family / "base", sorted(family.glob("expert-*"))
    with tempfile.TemporaryDirectory(prefix="daily-commits-") as folder:
        for share in SHARES:
            new = went_on(base, experts[0], Path(folder) / "new", share)
            for way in ("plainly", "base", "yesterday"):
                with Repository.init(Path(folder) / f"{way}-{share}") as repository:
                    repository.commit(base, branch="base")
                    for expert in experts:
                        repository.commit(expert, branch=expert.name, base="base")
                    named = {"plainly": None, "base": "base", "yesterday": experts[0].name}[way]
                    made = repository.commit(new, branch=experts[0].name, base=named)
                    plan = repository.plan(
                        base="base",
                        experts=[expert.name for expert in experts],
                        method="task_arithmetic",
                        weight=0.25,
                        budget="raw:10%",
                    )
                    print(
                        f"went on by {share:4.0%}, committed {way:9}: "
                        f"{format_size(made.stored_bytes):>9} stored, "
                        f"{plan.costs.energy_kept:.1%} of the energy kept"
                    )


if __name__ == "__main__":
    main()
