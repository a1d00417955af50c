"""What a GB of model takes: processor time, memory and bytes of each command, for docs/scale.md.

python benchmarks/rates.py [--size 256MB] [--experts 3]

Processor time, not wall time: what else the machine does disturbs it least.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from generate import write_model
from generate_tuned import tune
from measure import run

from mergepipe.sizes import parse_size

GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("256MB"))
    parser.add_argument("--experts", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(folder / "base", asked.size, 1)
        size = _bytes(folder / "base")
        names = [f"e{number}" for number in range(asked.experts)]
        for number, name in enumerate(names):
            tune(folder / "base", folder / name, number + 2)
        mp = [sys.executable, "-m", "mergepipe", "-C", folder / "repo"]
        run([sys.executable, "-m", "mergepipe", "init", folder / "repo"])
        start = run([*mp, "status"]).cpu_s
        print(f"{'':28}{'s/GB':>8}{'MiB':>8}{'stored':>8}   (start: {start:.1f} s of each)")

        def row(
            what: str, command: list[str | Path], gigabytes: float, stored: bool = False
        ) -> None:
            before = _bytes(folder / "repo")
            sample = run(command)
            share = f"{(_bytes(folder / 'repo') - before) / size:8.1%}" if stored else f"{'':8}"
            rate = max(0.0, sample.cpu_s - start) / gigabytes
            print(f"{what:28}{rate:8.2f}{sample.peak_bytes / 2**20:8.0f}{share}", flush=True)

        gb = size / GB
        row("commit, base", [*mp, "commit", folder / "base", "-b", "base", "-m", "b"], gb, True)
        for name in names:
            options = ["-b", name, "--base", "base", "-m", name]
            row("commit, fine-tune", [*mp, "commit", folder / name, *options], gb, True)
        merge = [*mp, "merge", *names, "--base", "base"]
        read = gb * (len(names) + 1)
        ten = [*merge, "--method", "ties", "--budget", "raw:10%", "-b", "ten"]
        row("merge raw:10%, of output", ten, gb, True)
        exact = [*merge, "--method", "linear", "-b", "exact"]
        row("merge exact, of what goes in", exact, read, True)
        row("checkout", [*mp, "checkout", "exact", "--to", folder / "out"], gb)
        row(
            "fsck --read-data, of stored",
            [*mp, "fsck", "--read-data"],
            _bytes(folder / "repo") / GB,
        )
        row("gc --dry-run", [*mp, "gc", "--dry-run"], gb)


def _bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


if __name__ == "__main__":
    main()
