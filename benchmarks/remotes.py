"""Push and clone, beside what they cannot be faster than: decoding and hashing it all, or copying.

python benchmarks/remotes.py [--size 1GB] [--runs 3] [--directory DIR]

A repository that stores SIZE (a generated model and dense fine-tunes of it) is pushed to an empty
one and cloned, by path and over http on loopback. Peers: every block decoded and hashed (which the
receiving side has to do), `cp -r` of the packs with a sync, and `curl` of the packs; a case is
compared with the slower of its two. Then one more fine-tune is pushed, and pushed again.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
from measure import Row, Sample, interleaved, print_table, ratio, run, spread

from mergepipe.api import Repository
from mergepipe.sizes import MIB, format_size, parse_size
from mergepipe.transfer.push_refs import PushOptions

HERE = Path(__file__).parent
TRANSFER = [sys.executable, HERE / "remote_process.py"]
MP = [sys.executable, "-m", "mergepipe"]
LIMIT = 1 / 0.8
THIN_LIMIT = 1.02
PEAK_MIB = 600
FLAT_LIMIT = 1.15


def grown(
    root: Path, work: Path, size_bytes: int, names: tuple[str, str] = ("main", "tuned")
) -> int:
    """A repository that stores about `size_bytes` on branches of two names; what it stores."""
    model = work / "model"
    # A generated model is stored in two thirds of its size, a dense fine-tune in a third.
    command = [sys.executable, HERE / "generate.py", model, str(size_bytes), "0"]
    subprocess.run(command, check=True, capture_output=True)
    tuned = tune(work, 1)
    Repository.init(root).close()
    # In processes of their own: peak memory is inherited from a parent.
    stored = 0
    for path, branch, base in ((model, names[0], []), (tuned, names[1], ["--base", names[0]])):
        done = subprocess.run(
            [*MP, "-C", root, "commit", path, "-b", branch, *base, "--json"],
            check=True,
            capture_output=True,
        )
        stored += msgspec.json.decode(done.stdout)["stored_bytes"]
    shutil.rmtree(tuned)
    return stored


def tune(work: Path, seed: int) -> Path:
    """A dense fine-tune of the model."""
    command = [
        sys.executable,
        HERE / "generate_tuned.py",
        work / "model",
        work / "tuned",
        str(seed),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return work / "tuned"


@contextmanager
def served(root: Path) -> Iterator[tuple[str, int]]:
    """`mp serve` of a repository: its URL and process id."""
    command = [*MP, "serve", "--json", "--port", "0", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = msgspec.json.decode(process.stdout.readline())["url"]
        try:
            yield url, process.pid
        finally:
            process.terminate()


def processor_s(pid: int) -> float:
    """Processor time of a running process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_server(sample: Sample, before_s: float, pid: int) -> Sample:
    """A client's run, and what the server did for it."""
    return replace(sample, cpu_s=sample.cpu_s + processor_s(pid) - before_s)


def peak_bytes(pid: int) -> int:
    """Peak resident memory of a running process so far (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


class Bench:
    """One repository, pushed and cloned again and again."""

    def __init__(self, root: Path, work: Path, warm: Path) -> None:
        self.root = root
        self.warm = warm
        self.work = work
        self.server_peaks: list[int] = []
        self._numbers = itertools.count()

    def fresh(self) -> Path:
        for old in self.work.glob("there-*"):
            shutil.rmtree(old)
        return self.work / f"there-{next(self._numbers)}"

    def push_file(self) -> Sample:
        there = self.fresh()
        Repository.init(there).close()
        return run([*TRANSFER, "push", self.root, there])

    def clone_file(self) -> Sample:
        return run([*TRANSFER, "clone", self.root, self.fresh()])

    def push_http(self) -> Sample:
        there = self.fresh()
        Repository.init(there).close()
        with served(there) as (url, pid):
            # A server works for long: its kernels are loaded by somebody's first push.
            run([*TRANSFER, "push", self.warm, url])
            before_s = processor_s(pid)
            sample = with_server(run([*TRANSFER, "push", self.root, url]), before_s, pid)
            self.server_peaks.append(peak_bytes(pid))
        return sample

    def clone_http(self) -> Sample:
        with served(self.root) as (url, pid):
            before_s = processor_s(pid)
            sample = with_server(run([*TRANSFER, "clone", url, self.fresh()]), before_s, pid)
            self.server_peaks.append(peak_bytes(pid))
        return sample

    def verify(self) -> Sample:
        return run([*TRANSFER, "verify", self.root])

    def copy(self) -> Sample:
        there = self.fresh()
        script = f"cp -r '{self.root}/.mergepipe/packs' '{there}' && sync -f '{there}'"
        return run(["sh", "-c", script])

    def curl(self) -> Sample:
        there = self.fresh()
        there.mkdir()
        with served(self.root) as (url, _):
            packs = [path.name for path in (self.root / ".mergepipe/packs").iterdir()]
            asked = [f"{url}/v1/value/packs/{name}" for name in packs]
            outs = [part for name in packs for part in ("-o", str(there / name))]
            return run(["curl", "-sf", *outs, *asked])


def seconds(samples: list[Sample]) -> list[float]:
    return [sample.wall_s if sample.inner_s is None else sample.inner_s for sample in samples]


def speeds(bench: Bench, runs: int) -> list[Row]:
    """Push and clone beside the slower peer."""
    cases = {
        "push file": bench.push_file,
        "clone file": bench.clone_file,
        "push http": bench.push_http,
        "clone http": bench.clone_http,
        "verify": bench.verify,
        "cp": bench.copy,
        "curl": bench.curl,
    }
    samples = interleaved(cases, runs)
    found = {name: seconds(each) for name, each in samples.items()}
    # The interpreter's start and the kernels' loading are in every case's; `idle` is only that.
    idle_s = statistics.median(run([*TRANSFER, "idle", bench.root]).cpu_s for _ in range(3))
    processor = {name: [each.cpu_s - idle_s for each in runs_] for name, runs_ in samples.items()}
    rows = []
    for name in ("push file", "clone file", "push http", "clone http"):
        plain = "curl" if name.endswith("http") else "cp"
        peer = max(("verify", plain), key=lambda each: sorted(found[each])[runs // 2])
        rows.append(
            Row(
                f"{name}, beside {peer}",
                spread(found[name]),
                spread(found[peer]),
                ratio(found[name], found[peer]),
                LIMIT,
            )
        )
    for name in ("push file", "clone file", "push http", "clone http"):
        mine, theirs = processor[name], processor["verify"]
        title = f"{name}, processor, beside verify"
        rows.append(Row(title, spread(mine), spread(theirs), ratio(mine, theirs), None))
    for plain in ("cp", "curl"):
        compared = ratio(found["verify"], found[plain])
        rows.append(
            Row(
                f"verify, beside {plain}",
                spread(found["verify"]),
                spread(found[plain]),
                compared,
                None,
            )
        )
    return rows


def memory(large: Bench, small: Bench) -> list[Row]:
    """Peak memory, and what a repository half the size takes."""
    rows = []
    for what in ("push_file", "clone_file", "push_http", "clone_http"):
        peaks = [getattr(bench, what)().peak_bytes for bench in (small, large)]
        name = f"peak memory, {what.replace('_', ' ')}"
        texts = [format_size(peak) for peak in peaks]
        rows.append(Row(name, texts[1], "", peaks[1] / MIB, PEAK_MIB, " MiB"))
        rows.append(
            Row(f"{name}, beside half", texts[1], texts[0], peaks[1] / peaks[0], FLAT_LIMIT)
        )
    served_peak = max(large.server_peaks)
    rows.append(
        Row(
            "peak memory, mp serve",
            format_size(served_peak),
            "",
            served_peak / MIB,
            PEAK_MIB,
            " MiB",
        )
    )
    return rows


def thin(bench: Bench, work: Path) -> list[Row]:
    """One more fine-tune, and the same once more."""
    there = bench.fresh()
    Repository.init(there).close()
    tuned = tune(work, 2)
    with Repository.open(bench.root) as repo:
        repo.push(str(there), PushOptions(all_branches=True))
        added = repo.commit(tuned, branch="more", base="main").stored_bytes
        first = repo.push(str(there), PushOptions(refs=("more",))).pushed
        again = repo.push(str(there), PushOptions(refs=("more",))).pushed
    shutil.rmtree(tuned)
    return [
        Row(
            "one more fine-tune: sent, beside what it added",
            format_size(first.bytes_sent),
            format_size(added),
            first.bytes_sent / added,
            THIN_LIMIT,
        ),
        Row("pushed again: packs sent", str(again.packs_sent), "", again.packs_sent, 0, ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1GB", type=parse_size)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="remotes-") as folder:
        work = Path(folder)
        stored = grown(work / "here", work, options.size)
        print(f"a repository that stores {format_size(stored)}; medians of {options.runs} runs")
        little = work / "little-work"
        little.mkdir()
        grown(work / "little", little, 1 << 20, ("warm", "warm-tuned"))
        large = Bench(work / "here", work, work / "little")
        rows = speeds(large, options.runs)
        half = work / "half-work"
        half.mkdir()
        grown(work / "half", half, options.size // 2)
        rows += memory(large, Bench(work / "half", work, work / "little"))
        rows += thin(large, work)
    sys.exit(0 if print_table(rows) else 1)


if __name__ == "__main__":
    main()
