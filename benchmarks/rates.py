"""What a GB of model takes: processor time, memory and bytes of each command, for docs/scale.md.

python benchmarks/rates.py [--size 256MB] [--experts 3]

Processor time, not wall time: what else the machine does disturbs it least. What does not grow with
the bytes of models is measured elsewhere: planning_at_scale.py (blocks), scale.py (blocks of a
repository), large_hub.py (refs and packs), executors.py (workers).
"""

import argparse
import sys
import tempfile
from pathlib import Path

from generate import write_model
from generate_tuned import tune
from measure import run

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.packs.format import FOOTER_ENTRY_BYTES
from mergepipe.packs.reader import pack_ids, read_footer_bytes
from mergepipe.sizes import parse_size

GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("256MB"))
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make(asked.make, asked.size, asked.experts)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = ["--size", str(asked.size), "--experts", str(asked.experts)]
        # In a process of its own: the peak of a child begins at what its parent had.
        run([sys.executable, __file__, "--make", folder, *sizes])
        size = _bytes(folder / "base")
        names = _names(asked.experts)
        warm = [sys.executable, "-m", "mergepipe", "-C", folder / "warm"]
        run([*warm[:3], "init", folder / "warm"])
        # The first command of its kind compiles kernels, which are kept.
        run([*warm, "commit", folder / "base", "-b", "base", "-m", "b"])
        run([*warm, "commit", folder / "e0", "-b", "e0", "--base", "base", "-m", "e"])
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
        records, footers = _footers(folder / "repo")
        models = gb * (1 + len(names)) * GB / 2**20
        print(f"footers: {footers / records:.0f} bytes a record, {records / models:.1f} a MiB")
        lazy = [sys.executable, "-m", "mergepipe", "clone", "--lazy", "-n", folder / "repo"]
        run([*lazy, folder / "lazy"])
        print(f"a lazy clone: {_bytes(folder / 'lazy') / _bytes(folder / 'repo'):.2%} of it")


def make(folder: Path, size: int, experts: int) -> None:
    """A base and its fine-tunes, as files."""
    write_model(folder / "base", size, 1)
    for number, name in enumerate(_names(experts)):
        tune(folder / "base", folder / name, number + 2)


def _names(experts: int) -> list[str]:
    return [f"e{number}" for number in range(experts)]


def _footers(repository: Path) -> tuple[int, int]:
    """How many records all packs have, and the bytes of their footers."""
    with LocalByteStore(repository / ".mergepipe") as store:
        footers = [read_footer_bytes(store, pack) for pack in pack_ids(store)]
    size = sum(map(len, footers))
    return size // FOOTER_ENTRY_BYTES, size


def _bytes(folder: Path) -> int:
    """What the files of a folder take on the disk: promised packs are mostly holes."""
    return sum(one.stat().st_blocks * 512 for one in folder.rglob("*") if one.is_file())


if __name__ == "__main__":
    main()
