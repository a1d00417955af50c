"""What storing a model costs, beside the plain tools that read, hash and copy the same files.

python benchmarks/storage.py [--size 1GB] [--runs 5] [--directory DIR]

Makes a bfloat16 model in shards (and one twice its size, for memory), runs every case in turns with
its peer, prints medians with what they spread over, and removes what it made. Two figures for each:
the whole process (`mp commit ...`, the interpreter's start included) and the call alone.
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

from mergepipe.api import Repository
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit
from mergepipe.packs.transaction import Transaction
from mergepipe.repository import config_edits
from mergepipe.repository.refs import ANY
from mergepipe.sizes import MIB, format_size, parse_size

HERE = Path(__file__).parent
MP = [sys.executable, "-m", "mergepipe"]
API = [sys.executable, HERE / "api_process.py"]
HASH = [sys.executable, HERE / "hash_files.py"]
LIMIT = 1.3
PEAK_MIB = 600
ANSWER_S = 0.3
COMMITS = 10_000
_COMMITS_A_PACK = 100


def generate(directory: Path, size_bytes: int, seed: int = 0) -> int:
    """Make a model; its size. By a process of its own: peak memory is inherited from a parent."""
    command = [sys.executable, HERE / "generate.py", directory, str(size_bytes), str(seed)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def new_repository(root: Path, codec: str) -> Path:
    """An empty repository that encodes with `codec`."""
    shutil.rmtree(root, ignore_errors=True)
    Repository.init(root).close()
    path = root / ".mergepipe" / "config.toml"
    path.write_text(config_edits.with_value(path.read_text(), "store.codec", codec))
    return root


def compared(
    what: str, ours: list[Sample], peer: list[Sample], *, alone: bool, limit: float | None
) -> Row:
    """A row of wall times: of whole processes, or (`alone`) of what was timed inside them."""
    mine, theirs = (
        [s.inner_s if alone and s.inner_s is not None else s.wall_s for s in samples]
        for samples in (ours, peer)
    )
    kind = "the call" if alone else "process"
    return Row(f"{what}, {kind}", spread(mine), spread(theirs), ratio(mine, theirs), limit)


def processor(what: str, ours: list[Sample], peer: list[Sample]) -> Row:
    """A row of processor times (all threads, user and system): what a busy machine blurs least."""
    mine, theirs = ([s.cpu_s for s in samples] for samples in (ours, peer))
    return Row(f"{what}, processor", spread(mine), spread(theirs), ratio(mine, theirs), None)


def known_model(model: Path, work: Path, runs: int) -> list[Row]:
    """Committing what the store has: reading and hashing, and little else."""
    root = new_repository(work / "known", "raw")
    run([*API, "commit", root, model, "main"])
    number = iter(range(10**6))

    def branch() -> str:
        return f"again-{next(number)}"

    samples = interleaved(
        {
            "mp": lambda: run([*MP, "commit", model, "-b", branch(), "-m", "again"], root),
            "api": lambda: run([*API, "commit", root, model, branch()]),
            "chunks": lambda: run([*HASH, "chunks", model]),
            "mmap": lambda: run([*HASH, "mmap", model]),
        },
        runs,
    )
    shutil.rmtree(root)
    what = "commit of a known model / hashing"
    return [
        compared(what, samples["api"], samples["chunks"], alone=True, limit=LIMIT),
        compared(what, samples["mp"], samples["chunks"], alone=False, limit=LIMIT),
        processor(what, samples["mp"], samples["chunks"]),
        compared(f"{what} by mmap", samples["api"], samples["mmap"], alone=True, limit=None),
    ]


def new_model(model: Path, work: Path, runs: int) -> list[Row]:
    """Committing what the store has not, as raw blocks, and checking it out, beside a copy."""
    roots = {name: work / f"new-{name}" for name in ("mp", "api")}
    copies = (work / "copy", work / "out-mp", work / "out-api")

    def clear() -> None:
        for root in roots.values():
            new_repository(root, "raw")
        for copy in copies:
            shutil.rmtree(copy, ignore_errors=True)
        os.sync()

    def copy() -> Sample:
        script = 'cp -r "$0" "$1" && sync -f "$1"'
        return run(["sh", "-c", script, model, work / "copy"])

    def checkout(name: str, command: Callable[[], Sample]) -> Callable[[], Sample]:
        def case() -> Sample:
            run([*API, "commit", roots[name], model, "main"])
            os.sync()
            return command()

        return case

    samples = interleaved(
        {
            "cp": copy,
            "mp": lambda: run([*MP, "commit", model, "-b", "main", "-m", "new"], roots["mp"]),
            "api": lambda: run([*API, "commit", roots["api"], model, "main"]),
            "mp out": checkout(
                "mp", lambda: run([*MP, "checkout", "main", "--to", copies[1]], roots["mp"])
            ),
            "api out": checkout(
                "api", lambda: run([*API, "checkout", roots["api"], copies[2], "main"])
            ),
        },
        runs,
        before=clear,
    )
    clear()
    rows = []
    for what, name in (
        ("commit of a new model, raw / cp + sync", ""),
        ("checkout / cp + sync", " out"),
    ):
        rows += [
            compared(what, samples[f"api{name}"], samples["cp"], alone=True, limit=LIMIT),
            compared(what, samples[f"mp{name}"], samples["cp"], alone=False, limit=LIMIT),
            processor(what, samples[f"mp{name}"], samples["cp"]),
        ]
    for root in roots.values():
        shutil.rmtree(root)
    return rows


def memory(models: list[tuple[str, Path]], work: Path) -> list[Row]:
    """Most memory a commit and a checkout take (resident, mapped files included), by model size."""
    rows = []
    for codec in ("raw", "auto"):
        for size, model in models:
            root = new_repository(work / "memory", codec)
            commit = run([*MP, "commit", model, "-b", "main", "-m", "new"], root)
            out = run([*MP, "checkout", "main", "--to", work / "out"], root)
            shutil.rmtree(work / "out")
            shutil.rmtree(root)
            for what, sample in (("commit", commit), ("checkout", out)):
                peak = sample.peak_bytes / MIB
                rows.append(
                    Row(f"peak memory, {what} of {size}, {codec}", "", "", peak, PEAK_MIB, "MiB")
                )
    return rows


def long_history(root: Path) -> None:
    """Make a repository of COMMITS commits of one small file."""
    file = root.parent / "file"
    file.write_bytes(b"weights")
    with Repository.open(new_repository(root, "auto")) as repo:
        made = repo.commit(file, branch="main", message="commit 0")
        tip = made.commit
        who = repo.signature()
        for first in range(1, COMMITS, _COMMITS_A_PACK):
            with Transaction(repo.storage) as transaction:
                for number in range(first, min(COMMITS, first + _COMMITS_A_PACK)):
                    tip = transaction.add_object(
                        encode(
                            Commit(
                                made.snapshot,
                                (tip,),
                                None,
                                who.author,
                                who.time + number,
                                0,
                                f"commit {number}",
                            )
                        )
                    )
                transaction.publish()
            repo.refs.update("refs/heads/main", tip, expected=ANY, who=who, why="commit")


def answers(work: Path, runs: int) -> list[Row]:
    """Commands that read only history answer at once."""
    memory_disk = Path("/dev/shm")
    where = memory_disk if os.access(memory_disk, os.W_OK) else work
    with tempfile.TemporaryDirectory(dir=where) as name:
        root = Path(name) / "history"
        long_history(root)
        python = [sys.executable, "-c", "pass"]
        samples = interleaved(
            {
                "python": lambda: run(python),
                "mp log -n 10": lambda: run([*MP, "log", "-n", "10"], root),
                "python 2": lambda: run(python),
                "mp --version": lambda: run([*MP, "--version"], root),
            },
            3 * runs,
            before=lambda: None,
        )
        loaded = heavy_imports(root)
    rows = []
    for what, of, peer in (
        ("mp log -n 10", f", {COMMITS} commits", "python"),
        ("mp --version", "", "python 2"),
    ):
        times = [sample.wall_s for sample in samples[what]]
        bare = [sample.wall_s for sample in samples[peer]]
        middle = sorted(times)[len(times) // 2]
        rows.append(Row(f"{what}{of} / python", spread(times), spread(bare), middle, ANSWER_S, "s"))
    rows.append(Row("torch, numba loaded by mp log", "", "", len(loaded), 0, ""))
    return rows


def heavy_imports(root: Path) -> list[str]:
    """Which of the slow libraries `mp log` loads."""
    script = (
        "import sys\n"
        "sys.argv = ['mp', 'log', '-n', '1', '--json']\n"
        "from mergepipe.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = ('torch', 'numba', 'ray')\n"
        "print()\nprint('loaded', *[name for name in heavy if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    return output.rstrip("\n").rpartition("\n")[2].split()[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", default="1GB", type=parse_size, help="of the model (1GB)")
    parser.add_argument("--runs", default=5, type=int, help="of each case (5)")
    parser.add_argument("--directory", type=Path, help="where to work (the temporary directory)")
    parser.add_argument("--only", choices=("known", "new", "memory", "answers"), action="append")
    arguments = parser.parse_args()
    wanted = arguments.only or ["known", "new", "memory", "answers"]
    project = str(HERE.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (project, os.environ.get("PYTHONPATH", "")) if part
    )
    with tempfile.TemporaryDirectory(prefix="mp-storage-", dir=arguments.directory) as name:
        work = Path(name)
        rows: list[Row] = []
        if "answers" in wanted:
            rows += answers(work, arguments.runs)
        if set(wanted) - {"answers"}:
            size = generate(work / "model", arguments.size)
            print(
                f"model of {format_size(size)}, {os.cpu_count()} cores, {arguments.runs} runs each"
            )
            if "known" in wanted:
                rows += known_model(work / "model", work, arguments.runs)
            if "new" in wanted:
                rows += new_model(work / "model", work, arguments.runs)
        if "memory" in wanted:
            generate(work / "twice", 2 * arguments.size, seed=1)
            models = [
                (format_size(size * by), work / at) for by, at in ((1, "model"), (2, "twice"))
            ]
            rows += memory(models, work)
        sys.exit(0 if print_table(rows) else 1)


if __name__ == "__main__":
    main()
