"""Days of a family of experts, beside mergekit with git-lfs: bytes read, processor time, storage.

    python benchmarks/thirty_days.py --family DIR --mergekit PATH/bin/mergekit-yaml [--days 25]

DIR holds `base` and a directory for each expert. Every day one or two experts get a new version,
which both sides store, and today's model is merged from all of them (task arithmetic), stored, and
its files are written for whoever serves it. mergepipe reads raw:10% of the experts; mergekit reads
everything. `--retention N` prunes each week, and its storage is shown beside what it would be.

Whole processes on both sides. What mergekit reads are the files that it merges; what we read is
counted at the read call. git-lfs is Debian's; without it, or without mergekit, only our side runs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import Sample, run
from safetensors.torch import load_file, save_file

from mergepipe.sizes import format_size

MP = [sys.executable, "-c", "from mergepipe.cli.main import main; main()"]
WEIGHT = 0.25
WEEK = 7


@dataclass
class Tally:
    """What one side took so far: bytes that merges read, processor seconds, bytes stored."""

    read_bytes: int = 0
    cpu_s: float = 0.0
    stored_bytes: int = 0

    def add(self, sample: Sample) -> None:
        """Count a process."""
        self.cpu_s += sample.cpu_s


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def next_version(base: Path, expert: Path, out: Path, day: int, days: int) -> None:
    """The expert some days before it was done: its changes, smaller, and some noise of training."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(expert, out)
    [file] = out.glob("*.safetensors")
    done, start = load_file(file), load_file(next(base.glob("*.safetensors")))
    share = 0.6 + 0.4 * day / days
    noise = torch.Generator().manual_seed(day)
    made = {}
    for name, values in done.items():
        change = values.float() - start[name].float()
        rough = torch.randn(change.shape, generator=noise) * change.abs().mean() * 0.1
        made[name] = (start[name].float() + share * change + rough).to(values.dtype).contiguous()
    save_file(made, file, {"format": "pt"})


class Ours:
    """A repository of mergepipe."""

    def __init__(self, where: Path, base: Path, experts: dict[str, Path]) -> None:
        self.tally = Tally()
        self._root, self._served = where / "ours", where / "ours-served"
        self._experts = list(experts)
        run([*MP, "init", self._root])
        self._commit("base", base)
        for name, path in experts.items():
            self._commit(name, path, "--base", "base")

    def day(self, new: dict[str, Path], retention: int | None) -> None:
        """Store what is new, merge, write the files; prune at the end of a week."""
        for name, path in new.items():
            self._commit(name, path)
        shutil.rmtree(self._served, ignore_errors=True)
        made = self._mp(
            *("merge", *self._experts, "--base", "base", "--method", "task_arithmetic"),
            *("--weight", str(WEIGHT), "--budget", "raw:10%", "-b", "prod"),
            *("--out", str(self._served)),
        )
        self.tally.read_bytes += made["expert_bytes_read"] + made["base_bytes_read"]
        self.tally.stored_bytes += made["written_bytes"]
        if retention is not None:
            self._mp("prune", "--keep-last", str(retention))

    def held_bytes(self) -> int:
        """What the repository takes now."""
        return size_of(self._root / ".mergepipe/packs")

    def _commit(self, name: str, path: Path, *options: str) -> None:
        made = self._mp("commit", str(path), "-b", name, "-m", "a version", *options)
        self.tally.stored_bytes += made["stored_bytes"]

    def _mp(self, *arguments: str) -> dict[str, int]:
        out = self._root / "out.json"
        command = [*MP, "-C", str(self._root), *arguments, "--json"]
        with out.open("w") as file:
            begun = os.times()
            subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True)
            ended = os.times()
        spent = ended.children_user + ended.children_system
        self.tally.cpu_s += spent - begun.children_user - begun.children_system
        found: dict[str, int] = json.loads(out.read_text())
        out.unlink()
        return found


class Theirs:
    """A git repository with git-lfs, and mergekit."""

    def __init__(self, where: Path, base: Path, experts: dict[str, Path], command: Path) -> None:
        self.tally = Tally()
        self._root, self._command = where / "theirs", command
        self._experts = list(experts)
        self._git("init", "-q", str(self._root), at=where)
        self._git("lfs", "install", "--local")
        self._git("config", "user.name", "Ada")
        self._git("config", "user.email", "ada@example.org")
        (self._root / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs -text\n")
        for name, path in {"base": base, **experts}.items():
            shutil.copytree(path, self._root / name)
        self._store()

    def day(self, new: dict[str, Path]) -> None:
        """Store what is new, merge, store the result, which is there as files."""
        for name, path in new.items():
            shutil.rmtree(self._root / name)
            shutil.copytree(path, self._root / name)
        self._store()
        config = self._root / "merge.yml"
        models = "".join(
            f"  - model: {self._root / name}\n    parameters: {{weight: {WEIGHT}}}\n"
            for name in self._experts
        )
        base = f"base_model: {self._root / 'base'}\ndtype: bfloat16\n"
        config.write_text(f"merge_method: task_arithmetic\n{base}models:\n{models}")
        shutil.rmtree(self._root / "prod", ignore_errors=True)
        self.tally.add(run([self._command, config, self._root / "prod", "--quiet"]))
        for name in ("base", *self._experts):
            self.tally.read_bytes += sum(
                file.stat().st_size for file in (self._root / name).glob("*.safetensors")
            )
        self._store()

    def held_bytes(self) -> int:
        """What history takes; the files that are checked out beside it do not count."""
        return size_of(self._root / ".git/lfs/objects")

    def _store(self) -> None:
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "a day")

    def _git(self, *arguments: str, at: Path | None = None) -> None:
        self.tally.add(run(["git", *arguments], cwd=at or self._root))


def main() -> None:
    """Print a line a week, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--mergekit", type=Path)
    parser.add_argument("--days", type=int, default=25)
    parser.add_argument("--retention", type=int, metavar="N", help="keep the newest N of a branch")
    options = parser.parse_args()
    base = options.family / "base"
    experts = {path.name: path for path in sorted(options.family.glob("expert-*"))}
    with tempfile.TemporaryDirectory(prefix="thirty-days-") as folder:
        where = Path(folder)
        ours = Ours(where, base, experts)
        theirs = None
        if options.mergekit is None or shutil.which("git-lfs") is None:
            print("without git-lfs and --mergekit there is no peer: only ours runs")
        else:
            theirs = Theirs(where, base, experts, options.mergekit)
        names = list(experts)
        for day in range(1, options.days + 1):
            chosen = {names[day % len(names)], names[(3 * day + 1) % len(names)]}
            new = {}
            for name in sorted(chosen):
                new[name] = where / "new" / name
                next_version(base, experts[name], new[name], day, options.days)
            pruning = options.retention if day % WEEK == 0 else None
            ours.day(new, pruning)
            if theirs is not None:
                theirs.day(new)
            if day % WEEK == 0 or day == options.days:
                _line(day, ours, theirs)
        if theirs is not None:
            _ratios(ours, theirs)


def _line(day: int, ours: Ours, theirs: Theirs | None) -> None:
    for who, side in (("mergepipe", ours), ("mergekit, git-lfs", theirs)):
        if side is not None:
            tally = side.tally
            print(
                f"day {day:2}  {who:18} merges read {format_size(tally.read_bytes):>10}, "
                f"processor {tally.cpu_s:7.1f} s, holds {format_size(side.held_bytes()):>10}",
                flush=True,
            )


def _ratios(ours: Ours, theirs: Theirs) -> None:
    mine, other = ours.tally, theirs.tally
    print(f"bytes read by merges: 1/{other.read_bytes / mine.read_bytes:.1f} (wanted 1/7)")
    print(f"processor time: 1/{other.cpu_s / mine.cpu_s:.1f} (wanted 1/4)")
    print(f"all that was stored: 1/{theirs.held_bytes() / mine.stored_bytes:.1f} (wanted 1/3)")
    print(f"what is held now: 1/{theirs.held_bytes() / ours.held_bytes():.1f}")


if __name__ == "__main__":
    main()
