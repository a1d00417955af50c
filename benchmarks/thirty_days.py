"""Days of a family of experts, beside mergekit with git-lfs: bytes read, processor time, storage.

    python benchmarks/thirty_days.py --family DIR --mergekit PATH/bin/mergekit-yaml [--days 25]
        [--wide TIMES] [--experts N] [--keep N] [--prune-each DAYS]

DIR holds `base` and a directory for each expert, as `benchmarks/family.py` makes them; `--wide` and
`--experts` make more of it (`widen.py`). Every day one or two experts get a new version, which both
sides store, and today's model is merged from all of them (task arithmetic), stored, and its files
are written for whoever serves it. mergepipe reads raw:10% of the experts; mergekit reads
everything. Each week `mp prune --keep-last N` removes old versions. Whether what is held stays flat
shows where the window is shorter than each expert's history: `--days 30 --keep 3 --prune-each 1`.

Whole processes on both sides, user and system time of all their threads. What each side takes once
per installation (compiled modules, our kernels) is there before the first day. What mergekit reads
are the files that it merges; what we read is counted at the read call. Ends with a table for
benchmarks/README.md. git-lfs is Debian's; without it, or without mergekit, only our side runs.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import installed, run
from safetensors.torch import load_file, save_file
from widen import widen

from mergepipe.sizes import format_size

MP = [sys.executable, "-m", "mergepipe"]
WEIGHT = 0.25
WEEK = 7
PLAN = ("--method", "task_arithmetic", "--weight", str(WEIGHT), "--budget", "raw:10%")


@dataclass
class Tally:
    """What one side took so far.

    expert_bytes, base_bytes  that merges read
    cpu_s                     by what was done
    stored_bytes              of all that was stored
    held                      bytes held after each day
    """

    expert_bytes: int = 0
    base_bytes: int = 0
    cpu_s: Counter[str] = field(default_factory=Counter)
    stored_bytes: int = 0
    held: list[int] = field(default_factory=list)

    @property
    def read_bytes(self) -> int:
        """All that merges read of weights."""
        return self.expert_bytes + self.base_bytes


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

    def day(self, new: dict[str, Path], keep: int | None) -> None:
        """Store what is new, merge, write the files; prune at the end of a week."""
        for name, path in new.items():
            self._commit(name, path)
        shutil.rmtree(self._served, ignore_errors=True)
        made = self._mp(
            *("merge", *self._experts, "--base", "base", *PLAN, "-b", "prod"),
            *("--out", str(self._served)),
        )
        self.tally.expert_bytes += made["expert_bytes_read"]
        self.tally.base_bytes += made["base_bytes_read"]
        self.tally.stored_bytes += made["written_bytes"]
        if keep is not None:
            self._mp("prune", "--keep-last", str(keep))
        self.tally.held.append(size_of(self._root / ".mergepipe/packs"))

    def _commit(self, name: str, path: Path, *options: str) -> None:
        made = self._mp("commit", str(path), "-b", name, "-m", "a version", *options)
        self.tally.stored_bytes += made["stored_bytes"]

    def _mp(self, *arguments: str) -> dict[str, Any]:
        out = self._root / "out.json"
        command = [*MP, "-C", str(self._root), *arguments, "--json"]
        with out.open("w") as file:
            begun = os.times()
            subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, check=True, env=installed()
            )
            ended = os.times()
        spent = ended.children_user + ended.children_system
        self.tally.cpu_s[arguments[0]] += spent - begun.children_user - begun.children_system
        found: dict[str, Any] = json.loads(out.read_text())
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
        made = run([self._command, config, self._root / "prod", "--quiet"])
        self.tally.cpu_s["merge"] += made.cpu_s
        self.tally.base_bytes += self._weights("base")
        self.tally.expert_bytes += sum(map(self._weights, self._experts))
        self._store()
        # History alone: the files that are checked out beside it do not count.
        self.tally.held.append(size_of(self._root / ".git/lfs/objects"))
        self.tally.stored_bytes = self.tally.held[-1]

    def _weights(self, name: str) -> int:
        return sum(file.stat().st_size for file in (self._root / name).glob("*.safetensors"))

    def _store(self) -> None:
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "a day")

    def _git(self, *arguments: str, at: Path | None = None) -> None:
        self.tally.cpu_s["commit"] += run(["git", *arguments], cwd=at or self._root).cpu_s


def main() -> None:
    """Print a line a day, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--mergekit", type=Path)
    parser.add_argument("--days", type=int, default=25)
    parser.add_argument("--wide", type=int, default=1, metavar="TIMES")
    parser.add_argument("--experts", type=int, metavar="N")
    parser.add_argument("--keep", type=int, default=7, metavar="N", help="newest N of a branch")
    parser.add_argument("--prune-each", type=int, default=WEEK, metavar="DAYS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thirty-days-") as folder:
        where = Path(folder)
        print("making the family", flush=True)
        widen(options.family, where / "family", options.wide, options.experts)
        base = where / "family/base"
        experts = {path.name: path for path in sorted((where / "family").glob("expert-*"))}
        peer = options.mergekit is not None and shutil.which("git-lfs") is not None
        if not peer:
            print("without git-lfs and --mergekit there is no peer: only ours runs")
        print("what each installation does once: modules and kernels are compiled", flush=True)
        _days(where / "first", base, dict([*experts.items()][:2]), options, peer=peer, days=1)
        print(f"{options.days} days of {len(experts)} experts", flush=True)
        began = time.monotonic()
        ours, theirs = _days(where / "days", base, experts, options, peer=peer, days=options.days)
        print(f"took {(time.monotonic() - began) / 60:.0f} min\n")
        print(_table(ours.tally, None if theirs is None else theirs.tally, options, experts))


def _days(
    where: Path,
    base: Path,
    experts: dict[str, Path],
    options: argparse.Namespace,
    *,
    peer: bool,
    days: int,
) -> tuple[Ours, Theirs | None]:
    """Both sides, day by day, in turns."""
    where.mkdir()
    ours = Ours(where, base, experts)
    theirs = Theirs(where, base, experts, options.mergekit) if peer else None
    names = list(experts)
    for day in range(1, days + 1):
        new = {}
        for name in sorted({names[day % len(names)], names[(3 * day + 1) % len(names)]}):
            new[name] = where / "new" / name
            next_version(base, experts[name], new[name], day, days)
        ours.day(new, options.keep if day % options.prune_each == 0 else None)
        if theirs is not None:
            theirs.day(new)
        told = [f"day {day:2}"]
        for who, side in (("mergepipe", ours), ("mergekit, git-lfs", theirs)):
            if side is not None:
                tally = side.tally
                told.append(
                    f"{who}: read {format_size(tally.read_bytes)}, processor "
                    f"{tally.cpu_s.total():.0f} s, holds {format_size(tally.held[-1])}"
                )
        print("; ".join(told), flush=True)
    return ours, theirs


def _table(
    ours: Tally, theirs: Tally | None, options: argparse.Namespace, experts: dict[str, Path]
) -> str:
    """Markdown. A ratio is of what the peer took."""

    def row(what: str, mine: float, other: float | None, wanted: str, unit: str) -> str:
        def figure(value: float) -> str:
            return format_size(int(value)) if unit == "B" else f"{value:,.0f} {unit}"

        cells = [what, figure(mine)]
        if other is not None:
            cells += [figure(other), f"1/{other / mine:.1f}"]
        return f"| {' | '.join([*cells, wanted])} |"

    def other(of: str) -> float | None:
        return None if theirs is None else getattr(theirs, of)

    def spent(of: str) -> float | None:
        return None if theirs is None else theirs.cpu_s[of]

    size = format_size((next(iter(experts.values())) / "model.safetensors").stat().st_size)
    head = ["mergepipe"] + (["mergekit, git-lfs", "ratio"] if theirs is not None else [])
    each = options.prune_each
    pruned = ours.held[each - 1 :: each]
    held = ", ".join(map(format_size, pruned))
    lines = [
        f"{len(experts)} experts of {size}, {options.days} days "
        f"({platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}):",
        "",
        f"| after {options.days} days | {' | '.join([*head, 'wanted'])} |",
        f"|{'---|' * (len(head) + 2)}",
        row("bytes that merges read", ours.read_bytes, other("read_bytes"), "1/7", "B"),
        row("of experts (raw:10%)", ours.expert_bytes, other("expert_bytes"), "", "B"),
        row("of the base", ours.base_bytes, other("base_bytes"), "", "B"),
        row(
            "processor time, whole processes",
            ours.cpu_s.total(),
            None if theirs is None else theirs.cpu_s.total(),
            "1/4",
            "s",
        ),
        row("of it, versions stored", ours.cpu_s["commit"], spent("commit"), "", "s"),
        row("of it, merges", ours.cpu_s["merge"], spent("merge"), "", "s"),
        row("all that was stored", ours.stored_bytes, other("stored_bytes"), "1/3", "B"),
        row("held at the end", ours.held[-1], None if theirs is None else theirs.held[-1], "", "B"),
    ]
    if held:
        told = f"`mp prune --keep-last {options.keep}` each {each} days"
        last = pruned[-10:]
        spread = (max(last) - min(last)) / (sum(last) / len(last))
        lines += ["", f"Held after {told}: {held} (the last {len(last)} vary by {spread:.1%})."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
