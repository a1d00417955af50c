"""Committing and checking out a fine-tune whose base is stored, beside copying its files.

python benchmarks/fine_tunes.py [--size 500MB] [--runs 5] [--directory DIR]

Peers, in turns: `cp -r` then `sync -f` (durable, as ours is). Also: one core against two, and what
the fine-tune takes. Three figures each: the whole process, the call alone (which loads numba and
the compiled kernels), and the call where those are loaded (warm).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Row, Sample, interleaved, print_table, ratio, run, spread
from storage import API, HERE, compared, generate, new_repository, processor

from mergepipe.api import Repository
from mergepipe.sizes import format_size, parse_size

LIMIT = 1.4
SPEEDUP = 1.7


def tuned(base: Path, out: Path, seed: int, share: float) -> Path:
    """Make a fine-tune."""
    command = [sys.executable, HERE / "generate_tuned.py", base, out, str(seed), str(share)]
    subprocess.run(command, check=True)
    return out


def copy(model: Path, target: Path) -> Sample:
    """What a user does without us: copy the files and wait until they are on the disk."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    return run(["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', model, target])


def pinned(cores: int, command: list[str | Path]) -> Callable[[], Sample]:
    """A run on the first `cores` processors."""
    return lambda: run(["taskset", "-c", f"0-{cores - 1}", *command])


def figures(work: Path, base: Path, model: Path, runs: int, what: str) -> list[Row]:
    """Commit and checkout of one fine-tune, beside copying it."""
    root = new_repository(work / "repository", "auto")
    with Repository.open(root) as repository:
        repository.commit(base, branch="base")
    pristine = work / "pristine"
    shutil.copytree(root, pristine)

    def fresh() -> None:
        """Every commit finds the same repository, with only the base in it."""
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
        os.sync()

    commit: list[str | Path] = [*API, "commit", root, model, "tuned"]

    def committing(cores: int, *warm: str) -> Callable[[], Sample]:
        def case() -> Sample:
            fresh()
            return pinned(cores, [*commit, *warm])()

        return case

    committing(2)()  # compiles the kernels, once per machine
    samples = interleaved(
        {
            "two": committing(2),
            "copy": lambda: copy(model, work / "copy"),
            "warm": committing(2, "warm"),
            "one": committing(1, "warm"),
        },
        runs,
    )
    rows = [
        compared(f"commit {what}", samples["two"], samples["copy"], alone=False, limit=None),
        compared(f"commit {what}", samples["two"], samples["copy"], alone=True, limit=LIMIT),
        compared(f"commit {what}, warm", samples["warm"], samples["copy"], alone=True, limit=None),
        processor(f"commit {what}", samples["two"], samples["copy"]),
        _speedup(f"commit {what}, warm", samples["one"], samples["warm"]),
    ]
    with Repository.open(root) as repository:
        used = repository.commit(model, branch="tuned")
        stored = repository.usage(["tuned"]).models[0].stored_bytes
    rows.append(
        Row(f"stored {what}", format_size(stored), format_size(used.raw_bytes),
            stored / used.raw_bytes, None, " of raw")
    )  # fmt: skip

    def checking_out(cores: int, *warm: str) -> Callable[[], Sample]:
        def case() -> Sample:
            shutil.rmtree(work / "out", ignore_errors=True)
            return pinned(cores, [*API, "checkout", root, work / "out", "tuned", *warm])()

        return case

    samples = interleaved(
        {
            "two": checking_out(2),
            "copy": lambda: copy(model, work / "copy"),
            "warm": checking_out(2, "warm"),
            "one": checking_out(1, "warm"),
        },
        runs,
    )
    rows += [
        compared(f"checkout {what}", samples["two"], samples["copy"], alone=False, limit=None),
        compared(f"checkout {what}", samples["two"], samples["copy"], alone=True, limit=LIMIT),
        compared(
            f"checkout {what}, warm", samples["warm"], samples["copy"], alone=True, limit=None
        ),
        processor(f"checkout {what}", samples["two"], samples["copy"]),
        _speedup(f"checkout {what}, warm", samples["one"], samples["warm"]),
    ]
    for name in ("repository", "pristine", "out", "copy"):
        shutil.rmtree(work / name, ignore_errors=True)
    return rows


def _speedup(what: str, one: list[Sample], two: list[Sample]) -> Row:
    """How much faster two cores are than one: at least SPEEDUP is wanted."""
    single, double = ([s.inner_s or s.wall_s for s in samples] for samples in (one, two))
    faster = ratio(single, double)
    mark = "" if faster >= SPEEDUP else "  (wanted: 1.7x)"
    return Row(f"{what}, two cores{mark}", spread(double), spread(single), faster, None, "x one")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="500MB", type=parse_size)
    parser.add_argument("--runs", default=5, type=int)
    parser.add_argument("--directory", default=None, help="where to work (on the disk to measure)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        work = Path(folder)
        base = work / "base"
        size = generate(base, options.size)
        print(f"fine-tunes of {format_size(size)} in bfloat16, medians of {options.runs}\n")
        rows = figures(work, base, tuned(base, work / "dense", 1, 1.0), options.runs, "dense")
        rows += figures(work, base, tuned(base, work / "sparse", 2, 0.3), options.runs, "sparse")
    sys.exit(0 if print_table(rows) else 1)


if __name__ == "__main__":
    main()
