"""Peak memory of every merge method, over more experts and over a larger tensor.

python benchmarks/method_memory.py [--tensor 1GB] [--experts 2,6] [--method NAME ...]

Models of one bfloat16 matrix (and a vector), random in every weight, stored raw. Each method
merges, in a process of its own: few experts of a quarter of the size, many experts of it, and few
experts of the whole size. Flat means: neither needs more than `LIMIT` times the first. Prints the
peaks beside what one tensor takes in float32, which is what scripts hold of every expert.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Row, Sample, print_table, run
from storage import HERE, new_repository

from mergepipe.api import Repository
from mergepipe.methods.registry import METHODS
from mergepipe.sizes import format_size, parse_size

LIMIT = 1.3
MP = [sys.executable, "-m", "mergepipe"]
# What a method has to be told; most have defaults for all they take.
PARAMETERS = {
    "slerp": ["-p", "t=0.4"],
    "nearswap": ["-p", "t=0.01"],
    "dare_linear": ["--density", "0.5"],
    "dare_ties": ["--density", "0.5"],
    "ties": ["--density", "0.5"],
    "breadcrumbs": ["--density", "0.5"],
    "breadcrumbs_ties": ["--density", "0.5"],
    "della": ["--density", "0.5"],
    "della_linear": ["--density", "0.5"],
    "sce": ["-p", "select_topk=0.5"],
}


def make_repository(work: Path, size_bytes: int, experts: int) -> Path:
    """A repository with `base` and `expert-1`... of one size."""
    root = new_repository(work / f"repository-{size_bytes}", "raw")
    for number in range(experts + 1):
        model = work / "model"
        script = HERE / "generate_matrix.py"
        subprocess.run([sys.executable, script, model, str(size_bytes), str(number)], check=True)
        with Repository.open(root) as repository:
            if number:
                repository.commit(model, branch=f"expert-{number}", base="base")
            else:
                repository.commit(model, branch="base")
        shutil.rmtree(model)
    return root


def merged(root: Path, method: str, experts: int) -> Sample:
    """One merge, committed to a branch that goes again."""
    names = [f"expert-{number}" for number in range(1, experts + 1)]
    options = ["--method", method, "--base", "base", "-b", "merged", *PARAMETERS.get(method, [])]
    sample = run([*MP, "-C", root, "merge", *names, *options])
    run([*MP, "-C", root, "branch", "-d", "merged", "--force"])
    run([*MP, "-C", root, "gc", "--no-reflog", "--prune=now", "--quiet"])
    return sample


def figures(work: Path, size_bytes: int, few: int, many: int, methods: list[str]) -> list[Row]:
    """Two rows a method: more experts, and a larger tensor, over few experts of a small one."""
    small = make_repository(work, size_bytes // 4, many)
    large = make_repository(work, size_bytes, few)
    # Compiles the kernels, which takes memory; elsewhere, for a merge made before is remembered.
    warm = make_repository(work, 1 << 22, few)
    for method in methods:
        merged(warm, method, _takes(method, few))
    rows = []
    for method in methods:
        least = merged(small, method, _takes(method, few))
        found = {
            "a tensor of " + format_size(size_bytes): merged(large, method, _takes(method, few))
        }
        if _takes(method, many) > _takes(method, few):
            found[f"{many} experts"] = merged(small, method, many)
        for what, sample in found.items():
            rows.append(
                Row(
                    f"{method}: {what}",
                    format_size(sample.peak_bytes),
                    format_size(least.peak_bytes),
                    sample.peak_bytes / least.peak_bytes,
                    LIMIT,
                )
            )
    return rows


def _takes(method: str, experts: int) -> int:
    most = METHODS[method].maximum_models
    return experts if most is None else min(most, experts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tensor", default="1GB", type=parse_size)
    parser.add_argument("--experts", default="2,6", help="few and many")
    parser.add_argument("--method", action="append", help="only these; repeat")
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    few, many = (int(part) for part in options.experts.split(","))
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        rows = figures(Path(folder), options.tensor, few, many, options.method or sorted(METHODS))
    print(
        f"one tensor in float32: {format_size(2 * options.tensor)}; in its peer's column the peak"
    )
    print(f"with {few} experts of a tensor of {format_size(options.tensor // 4)}\n")
    sys.exit(0 if print_table(rows) else 1)


if __name__ == "__main__":
    main()
