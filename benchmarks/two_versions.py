"""Two versions of mergepipe, in turn: processor time of whole processes, new over old.

python benchmarks/two_versions.py OLD_MP NEW_MP [--megabytes 48] [--family DIR] [--rounds 5]

OLD_MP, NEW_MP  the `mp` programs of two checkouts, such as a worktree's .venv/bin/mp
Makes a base of so many megabytes and three fine-tunes, one of which goes on for two days, and runs
each command so often. With `--family`, of the values of a family as `benchmarks/family.py` makes
it, each matrix twice as wide and high. Of commits, what they store is compared, too.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from safetensors.numpy import save_file
from thirty_days import next_version
from widen import widen

EXPERTS = ("a", "b", "c")
DAYS = (3, 6)  # of 25, as `thirty_days.py` counts them


def write_family(where: Path, megabytes: int) -> None:
    """A base in float16, and fine-tunes that change every weight a little."""
    source = np.random.default_rng(0)
    shape = (megabytes * 64, 1024)
    base = {
        f"layer{place}.weight": (source.standard_normal(shape) * 0.02).astype(np.float16)
        for place in range(8)
    }
    models = {"base": base}
    for name in EXPERTS:
        models[name] = {
            key: values + (source.standard_normal(shape) * 0.0005).astype(np.float16)
            for key, values in base.items()
        }
    for day in DAYS:
        models[f"day-{day}"] = {
            key: values + (source.standard_normal(shape) * 0.00005).astype(np.float16)
            for key, values in models["a"].items()
        }
    for name, tensors in models.items():
        (where / name).mkdir(parents=True)
        save_file(tensors, where / name / "model.safetensors")


def write_wide_family(family: Path, where: Path) -> None:
    """A base and fine-tunes of the values of a real family, one of which goes on."""
    widen(family, where / "wide", 2, len(EXPERTS))
    experts = sorted((where / "wide").glob("expert-*"))
    for name, path in zip(EXPERTS, experts, strict=True):
        next_version(where / "wide/base", path, where / name, 1, 25)
    for day in DAYS:
        next_version(where / "wide/base", experts[0], where / f"day-{day}", day, 25)
    (where / "wide/base").rename(where / "base")
    shutil.rmtree(where / "wide")


def run(*command: str | Path, cwd: Path | None = None) -> tuple[float, float, str]:
    """Processor seconds and seconds that a command took, and what it wrote."""
    # Installed code is compiled: the time that Python takes for source is not measured.
    compiled = {k: value for k, value in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=compiled, check=True, capture_output=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return processor, seconds, done.stdout.decode()


@dataclass(frozen=True, slots=True)
class Took:
    """One command: processor time, time, and for a commit the bytes that it stored."""

    processor_s: float
    seconds: float
    stored_bytes: int


def one_round(program: Path, where: Path) -> dict[str, Took]:
    """Every command once, in a new repository."""
    repository, out = where / "repository", where / "out"
    for folder in (repository, out):
        shutil.rmtree(folder, ignore_errors=True)
    run(program, "init", repository)
    took = {}

    def timed(name: str, *arguments: str | Path) -> None:
        processor_s, seconds, said = run(program, *arguments, cwd=repository)
        stored = json.loads(said)["stored_bytes"] if arguments[0] == "commit" else 0
        took[name] = Took(processor_s, seconds, stored)

    timed("commit a base", "commit", where / "base", "-b", "base", "--json")
    timed("commit a fine-tune", "commit", where / "a", "-b", "a", "--base", "base", "--json")
    for name in EXPERTS[1:]:
        run(program, "commit", where / name, "-b", name, "--base", "base", cwd=repository)
    for day in DAYS:
        timed(f"commit its day {day}", "commit", where / f"day-{day}", "-b", "a", "--json")
    timed("checkout", "checkout", "a", "--to", out)
    timed("merge by ties", "merge", *EXPERTS, "-b", "exact")
    timed("merge at raw:10%", "merge", *EXPERTS, "-b", "frugal", "--budget", "raw:10%")
    timed("log", "log", "exact")
    return took


def main() -> None:
    """Run both in turn, each first as often as the other, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--megabytes", type=int, default=48)
    parser.add_argument("--family", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    old, new = options.old.absolute(), options.new.absolute()
    taken: dict[tuple[str, Path], list[Took]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        if options.family is None:
            write_family(Path(directory), options.megabytes)
        else:
            write_wide_family(options.family, Path(directory))
        for program in (old, new):
            run(program, "doctor", "--compile")
        for number in range(options.rounds):
            for program in (old, new) if number % 2 else (new, old):
                for name, figures in one_round(program, Path(directory)).items():
                    taken[name, program].append(figures)
    print(f"{'':20}{'processor':>10}{'(least to most)':>18}{'wall':>8}{'stored':>8}{'new':>9}")
    for name in dict.fromkeys(name for name, _ in taken):
        pairs = list(zip(taken[name, old], taken[name, new], strict=True))
        processor = [after.processor_s / before.processor_s for before, after in pairs]
        wall = [after.seconds / before.seconds for before, after in pairs]
        spread = f"({min(processor):.2f} to {max(processor):.2f})"
        now = median(after.processor_s for _, after in pairs)
        before, after = pairs[0]
        stored = f"{after.stored_bytes / before.stored_bytes:.2f}" if before.stored_bytes else ""
        print(
            f"{name:20}{median(processor):>10.2f}{spread:>18}{median(wall):>8.2f}{stored:>8}"
            f"{now:>7.2f} s"
        )


if __name__ == "__main__":
    main()
