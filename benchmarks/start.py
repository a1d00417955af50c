"""What a command costs as a whole process, beside `python -c pass` and `git status`, in one run.

    python benchmarks/start.py [--runs 9] [--importtime]

A repository with a model of 12 MB and two fine-tunes of it; everything is warm: kernels are
compiled, files are in the page cache. `commit` stores a model whose every tensor changed, `merge`
two experts, both onto branches that are new each time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Sample, interleaved, run, spread
from safetensors.numpy import save_file

MP = [sys.executable, "-m", "mergepipe"]
TENSORS = 12
SHAPE = (512, 512)
TARGETS_S = {"mp commit": 0.5, "mp merge": 0.6}


def write(directory: Path, seed: int, base: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """A model of 12 MB of float32; a fine-tune of `base` if there is one."""
    chance = np.random.default_rng(seed)
    held = {
        f"model.layers.{number}.weight": chance.normal(0, 0.02, SHAPE).astype(np.float32)
        for number in range(TENSORS)
    }
    if base is not None:
        held = {name: base[name] + value * np.float32(0.1) for name, value in held.items()}
    directory.mkdir(parents=True)
    save_file(held, directory / "model.safetensors")
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument(
        "--importtime", action="store_true", help="what a commit loads, slowest last"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        base = write(root / "base", 0, None)
        for number in range(1, 3 + options.runs):
            write(root / f"tuned-{number}", number, base)
        repository = root / "repository"
        run([*MP, "init", repository])
        run([*MP, "-C", repository, "commit", root / "base", "-b", "base"])
        for number in (1, 2):
            onto = ["-b", f"expert-{number}", "--base", "base"]
            run([*MP, "-C", repository, "commit", root / f"tuned-{number}", *onto])
        run([*MP, "-C", repository, "merge", "expert-1", "expert-2", "--base", "base", "-b", "m"])
        for command in (["git", "init", "-q"], ["git", "commit", "-q", "--allow-empty", "-m", "x"]):
            identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
            identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
            subprocess.run(command, cwd=root / "base", env=os.environ | identity, check=True)
        if options.importtime:
            show_imports(repository, root / "tuned-3")
            return
        counts = {"commit": 2, "merge": 0}

        def mp(*arguments: str | Path) -> Sample:
            return run([*MP, "-C", repository, *arguments])

        def commit() -> Sample:
            counts["commit"] += 1
            at = counts["commit"]
            return mp("commit", root / f"tuned-{at}", "-b", f"new-{at}", "--base", "base")

        def merge() -> Sample:
            counts["merge"] += 1
            # Another weight each time: what was merged before is known, and would not be computed.
            weight = f"1,0.{counts['merge']:03d}"
            into = f"merged-{counts['merge']}"
            return mp(
                "merge", "expert-1", "expert-2", "--weight", weight, "--base", "base", "-b", into
            )

        samples = interleaved(
            {
                "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
                "git status": lambda: run(["git", "status"], cwd=root / "base"),
                "mp --version": lambda: mp("--version"),
                "mp log": lambda: mp("log", "base"),
                "mp status": lambda: mp("status"),
                "mp commit": commit,
                "mp merge": merge,
            },
            options.runs,
        )
    print(f"{'whole process':<16}{'median (least-most)':<28}{'processor':>10}{'target':>9}")
    for name, own in samples.items():
        walls = [one.wall_s for one in own]
        target = f"{TARGETS_S[name]:g} s" if name in TARGETS_S else ""
        cpu = statistics.median(one.cpu_s for one in own)
        print(f"{name:<16}{spread(walls):<28}{cpu:>8.2f} s{target:>9}")


def show_imports(repository: Path, model: Path) -> None:
    """The 25 slowest modules of a commit, by what each takes itself."""
    command = [sys.executable, "-X", "importtime", "-m", "mergepipe", "-C", repository]
    done = subprocess.run(
        [*command, "commit", model, "-b", "new", "--base", "base"],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    timed = [(int(own.split(":")[1]), int(total), name) for own, total, name in rows[1:]]
    for own, total, name in sorted(timed, key=lambda row: row[1])[-40:]:
        print(f"{own / 1e3:8.1f} ms {total / 1e3:8.1f} ms {name}")


if __name__ == "__main__":
    main()
