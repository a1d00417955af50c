"""Merging beside mergekit: the same models, method and machine, in turns; then beside ourselves.

python benchmarks/merge_speed.py --mergekit PATH/bin/mergekit-yaml [--experts 2,8,20] [--size 500MB]

mergekit lives in an environment of its own (`pip install mergekit==0.1.5`). It reads flat files and
writes one; we read a repository, compressed or raw, and commit. Whole processes on both sides, page
cache warm, and cold (pages dropped with posix_fadvise). Prints ratios and peak memory.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Row, Sample, interleaved, print_table, ratio, run, spread
from storage import HERE, generate, new_repository

from mergepipe.api import Repository
from mergepipe.sizes import MIB, format_size, parse_size

MP = [sys.executable, "-m", "mergepipe"]
DENSITY = 0.5


def make_models(work: Path, size: int, count: int) -> tuple[Path, list[Path]]:
    """A base and `count` dense fine-tunes of it."""
    base = work / "models" / "base"
    base.parent.mkdir()
    generate(base, size)
    experts = []
    for number in range(count):
        experts.append(work / "models" / f"expert-{number}")
        script = HERE / "generate_tuned.py"
        subprocess.run([sys.executable, script, base, experts[-1], str(number)], check=True)
    return base, experts


def commit_all(root: Path, base: Path, experts: list[Path]) -> None:
    """Every model on a branch of its name."""
    with Repository.open(root) as repository:
        repository.commit(base, branch="base")
        for expert in experts:
            repository.commit(expert, branch=expert.name, base="base")
            if repository.config.store.codec == "raw":
                repository.analyze(expert.name)


def merging(root: Path, count: int, budget: str | None) -> Callable[[], Sample]:
    """A merge of the first `count` experts, in a process, in a repository that never saw it."""

    def case() -> Sample:
        experts = [f"expert-{k}" for k in range(count)]
        options = ["--method", "ties", "--density", str(DENSITY), "--weight", "1", "-b", "merged"]
        options += [] if budget is None else ["--budget", budget]
        with fresh(root) as copy:
            return run([*MP, "-C", copy, "merge", *experts, "--base", "base", *options])

    return case


@contextmanager
def fresh(root: Path) -> Iterator[Path]:
    """A copy of a repository to merge in; packs are linked, for they never change."""
    copy = root.parent / "fresh"
    shutil.copytree(root, copy, copy_function=_link_packs)
    os.sync()
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def _link_packs(source: str, target: str) -> None:
    if source.endswith(".pack"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def mergekit(command: Path, work: Path, base: Path, experts: list[Path]) -> Callable[[], Sample]:
    """mergekit's own program on the same files."""
    lines = [
        "merge_method: ties", f"base_model: {base}", "dtype: bfloat16", "models:",
        *(
            f"  - model: {expert}\n    parameters: {{weight: 1.0, density: {DENSITY}}}"
            for expert in experts
        ),
    ]  # fmt: skip
    config = work / f"ties-{len(experts)}.yaml"
    config.write_text("\n".join(lines) + "\n")

    def case() -> Sample:
        shutil.rmtree(work / "mergekit-out", ignore_errors=True)
        return run([command, config, work / "mergekit-out", "--no-copy-tokenizer", "--quiet"])

    return case


def drop_pages(*folders: Path) -> None:
    """Have the kernel forget files' pages, so that they are read from the disk again."""
    os.sync()
    for path in (file for folder in folders for file in _files(folder)):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def cold(case: Callable[[], Sample], *folders: Path) -> Callable[[], Sample]:
    """The case with the pages of its input dropped before."""

    def run_cold() -> Sample:
        drop_pages(*folders)
        return case()

    return run_cold


def compare(what: str, ours: list[Sample], peer: list[Sample], least: float | None) -> Row:
    """How many times faster than the peer; `least` is wanted."""
    mine, theirs = ([s.wall_s for s in samples] for samples in (ours, peer))
    wanted = "" if least is None else f" (wanted {least:g})"
    return Row(what + wanted, spread(mine), spread(theirs), ratio(theirs, mine), None, "x")


def memory(what: str, ours: list[Sample], peer: list[Sample]) -> Row:
    """Peak memory beside the peer's."""
    mine, theirs = ([float(s.peak_bytes) for s in samples] for samples in (ours, peer))
    unit = 1 / MIB
    return Row(
        what, spread(mine, "MiB", unit), spread(theirs, "MiB", unit), ratio(mine, theirs), 0.2
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mergekit", type=Path, default=None, help="its mergekit-yaml program")
    parser.add_argument("--experts", default="2,8", help="how many, several with commas")
    parser.add_argument("--size", default="500MB", type=parse_size)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    counts = [int(text) for text in options.experts.split(",")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        work = Path(folder)
        base, experts = make_models(work, options.size, max(counts))
        roots = {codec: new_repository(work / codec, codec) for codec in ("auto", "raw")}
        for root in roots.values():
            commit_all(root, base, experts)
        print(f"ties of fine-tunes of {format_size(options.size)}, medians of {options.runs}\n")
        for count in counts:
            merging(roots["auto"], count, None)()  # compiles the kernels
            cases = {
                "stored": merging(roots["auto"], count, None),
                "raw": merging(roots["raw"], count, None),
                "tenth": merging(roots["auto"], count, "raw:10%"),
                "stored cold": cold(merging(roots["auto"], count, None), roots["auto"]),
                "tenth cold": cold(merging(roots["auto"], count, "raw:10%"), roots["auto"]),
            }
            samples = interleaved(cases, options.runs)
            rows.append(
                compare(f"K={count}: raw:10% against our exact", samples["tenth"],
                        samples["stored"], 5.0 if count == 20 else None)
            )  # fmt: skip
            rows.append(
                compare(f"K={count}, cold: raw:10% against our exact", samples["tenth cold"],
                        samples["stored cold"], None)
            )  # fmt: skip
            if options.mergekit is not None:
                peer = [mergekit(options.mergekit, work, base, experts[:count])()]
                peer_cold = [cold(mergekit(options.mergekit, work, base, experts[:count]),
                                  base.parent)()]  # fmt: skip
                rows += [
                    compare(f"K={count}: exact, compressed", samples["stored"], peer, 15),
                    compare(f"K={count}: exact, raw", samples["raw"], peer, 40),
                    compare(f"K={count}: raw:10%", samples["tenth"], peer, 25),
                    compare(f"K={count}, cold: exact", samples["stored cold"], peer_cold, None),
                    compare(f"K={count}, cold: raw:10%", samples["tenth cold"], peer_cold, None),
                    memory(f"K={count}: peak memory", samples["stored"], peer),
                ]
    print_table(rows)


if __name__ == "__main__":
    main()
