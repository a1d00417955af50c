"""What mergepipe does beside tools that do it too: one run, one table of ratios, CSV and PNG.

python benchmarks/beside_peers.py [--quick] [--size 256MB] [--runs 3] [--out build/bench]

A base and two dense fine-tunes of it, of SIZE each: stored, given back and merged by mergepipe, and
by what is installed of git-lfs (`apt-get install git-lfs`), DVC, zipnn and mergekit (their programs
on the path, or in the environments of PEERS_PYTHON and MERGEKIT_PYTHON: `make bench` makes both).
What is not there is skipped, with a word. A ratio is mergepipe's over the peer's: below 1, less.

Writes results.json, results.csv, and results.png where the extra `report` is installed.
`python benchmarks/readme_table.py` puts the table into README.md.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from generate_tuned import tune
from measure import Sample, interleaved, ratio, run, spread
from merge_speed import MP, mergekit
from storage import generate

from mergepipe.sizes import format_size, parse_size

HERE = Path(__file__).resolve().parent
# The least that `generate` makes: embeddings, head and a layer.
QUICK_BYTES, QUICK_RUNS = 150_000_000, 1
MODELS = ("base", "law", "math")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line. `ratio` is ours over the peer's, None where the peer was skipped, and `why`."""

    what: str
    peer: str
    ours: str
    theirs: str
    ratio: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """A tool that keeps versions: what keeps a model, what gives it back, and where it keeps."""

    add: Callable[[Path], Sample]
    give_back: Callable[[], Sample]
    held: Callable[[], int]


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def mergepipe_store(work: Path) -> Store:
    root, out = work / "mp", work / "mp-out"
    run([*MP, "init", root])

    def add(model: Path) -> Sample:
        base = [] if model.name == "base" else ["--base", "base"]
        return run([*MP, "-C", root, "commit", model, "-b", model.name, "-m", "new", *base])

    def give_back() -> Sample:
        shutil.rmtree(out, ignore_errors=True)
        return run([*MP, "-C", root, "checkout", "math", "--to", out])

    return Store(add, give_back, lambda: size_of(root / ".mergepipe/packs"))


def git_lfs_store(work: Path) -> Store:
    root = work / "lfs"
    git = ["git", "-C", root, "-c", "user.name=us", "-c", "user.email=us@example.org"]
    run(["git", "init", "-q", root])
    run([*git, "lfs", "install", "--local"])
    run([*git, "lfs", "track", "*.safetensors"])

    def add(model: Path) -> Sample:
        _replace(root / "model", model)
        return run(["sh", "-c", 'cd "$0" && git add -A && git commit -qm new', root])

    def give_back() -> Sample:
        shutil.rmtree(root / "model")
        return run([*git, "checkout", "-q", "--", "."])

    return Store(add, give_back, lambda: size_of(root / ".git/lfs"))


def dvc_store(work: Path) -> Store:
    root = work / "dvc"
    program = tool("dvc")
    assert program is not None
    root.mkdir()
    run([program, "init", "--no-scm", "-q"], root)

    def add(model: Path) -> Sample:
        _replace(root / "model", model)
        return run([program, "add", "-q", "model"], root)

    def give_back() -> Sample:
        shutil.rmtree(root / "model")
        return run([program, "checkout", "-q"], root)

    return Store(add, give_back, lambda: size_of(root / ".dvc/cache"))


_ZIPNN = (
    "import sys, pathlib, zipnn\n"
    "z = zipnn.ZipNN(bytearray_dtype='bfloat16')\n"
    "source, target = map(pathlib.Path, sys.argv[2:])\n"
    "target.mkdir(parents=True, exist_ok=True)\n"
    "for path in source.iterdir():\n"
    "    data = bytearray(path.read_bytes())\n"
    "    out = z.compress(data) if sys.argv[1] == 'in' else z.decompress(bytes(data))\n"
    "    (target / path.name).write_bytes(out)\n"
)


def zipnn_store(work: Path) -> Store:
    root, python = work / "zipnn", os.environ.get("PEERS_PYTHON", sys.executable)

    def add(model: Path) -> Sample:
        return run([python, "-c", _ZIPNN, "in", model, root / model.name])

    def give_back() -> Sample:
        return run([python, "-c", _ZIPNN, "out", root / "math", work / "zipnn-out"])

    return Store(add, give_back, lambda: size_of(root))


_WHO = {
    f"GIT_{who}_{what}": "us@example.org"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def _replace(target: Path, model: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    # With times of now: DVC takes a file of the same size, time and inode for the same file.
    shutil.copytree(model, target, copy_function=shutil.copy)
    os.sync()


def tool(name: str) -> Path | None:
    """A program on the path, or beside the interpreter of the peers."""
    beside = Path(os.environ.get("PEERS_PYTHON", sys.executable)).with_name(name)
    here = shutil.which(name)
    return beside if beside.is_file() else Path(here) if here else None


def absent() -> dict[str, str]:
    """Peers that are not here, and why."""
    missing = {}
    if shutil.which("git-lfs") is None:
        missing["git-lfs"] = "not installed: apt-get install git-lfs"
    if tool("dvc") is None:
        missing["DVC"] = "not installed: pip install dvc"
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import zipnn"], capture_output=True, check=False).returncode:
        missing["zipnn"] = "not installed: pip install zipnn"
    missing["xet"] = "keeps no store of its own: its chunks go to a service"
    if _mergekit() is None:
        missing["mergekit"] = "not installed: make bench makes its environment"
    return missing


def _mergekit() -> Path | None:
    python = os.environ.get("MERGEKIT_PYTHON")
    beside = None if python is None else Path(python).with_name("mergekit-yaml")
    here = shutil.which("mergekit-yaml")
    return beside if beside is not None and beside.is_file() else Path(here) if here else None


STORES = {"git-lfs": git_lfs_store, "DVC": dvc_store, "zipnn": zipnn_store}


def storing(
    models: Sequence[Path], work: Path, runs: int, missing: Mapping[str, str]
) -> Iterator[Comparison]:
    """Three models kept, the last given back: time, and bytes that are held in the end."""
    makers = {"mergepipe": mergepipe_store} | {
        name: maker for name, maker in STORES.items() if name not in missing
    }
    adding: dict[str, list[float]] = {name: [] for name in makers}
    giving: dict[str, list[float]] = {name: [] for name in makers}
    held: dict[str, int] = {}
    for number in range(runs):
        stores = {name: maker(_folder(work / f"run-{number}")) for name, maker in makers.items()}
        for model in models:
            for name, store in stores.items():
                os.sync()
                took = store.add(model).wall_s
                if model.name != "base":
                    adding[name].append(took)
        for name, store in stores.items():
            os.sync()
            giving[name].append(store.give_back().wall_s)
            held[name] = store.held()
        shutil.rmtree(work / f"run-{number}")
    for peer in STORES:
        if peer in missing:
            yield Comparison("keeping models", peer, "", "", None, missing[peer])
            continue
        yield Comparison(
            "bytes held: a base and two fine-tunes",
            peer,
            format_size(held["mergepipe"]),
            format_size(held[peer]),
            held["mergepipe"] / held[peer],
        )
        for what, samples in (("keeping a fine-tune", adding), ("giving it back", giving)):
            ours, theirs = samples["mergepipe"], samples[peer]
            yield Comparison(what, peer, spread(ours), spread(theirs), ratio(ours, theirs))
    yield Comparison("keeping models", "xet", "", "", None, missing["xet"])


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def merging(
    models: Sequence[Path], work: Path, runs: int, missing: Mapping[str, str]
) -> Iterator[Comparison]:
    """ties of both fine-tunes, exactly and at a tenth of their bytes."""
    command = _mergekit()
    if command is None:
        yield Comparison("merging", "mergekit", "", "", None, missing["mergekit"])
        return
    root = work / "merging"
    run([*MP, "init", root])
    for model in models:
        base = [] if model.name == "base" else ["--base", "base"]
        run([*MP, "-C", root, "commit", model, "-b", model.name, "-m", "new", *base])
    options = ["--base", "base", "--method", "ties", "--density", "0.5", "--weight", "1"]

    def ours(number: Iterator[int], *budget: str) -> Callable[[], Sample]:
        # Another seed is another plan: nothing of the merge before is taken again.
        return lambda: run(
            [
                *(*MP, "-C", root, "merge", "law", "math", *options, *budget),
                *("--seed", str(next(number)), "-b", "merged"),
            ]
        )

    seeds = iter(range(1, 1000))
    samples = interleaved(
        {
            "exact": ours(seeds),
            "budget": ours(seeds, "--budget", "raw:10%"),
            "mergekit": mergekit(command, work, models[0], list(models[1:])),
        },
        runs,
    )
    theirs = [sample.wall_s for sample in samples["mergekit"]]
    peaks = [float(sample.peak_bytes) for sample in samples["mergekit"]]
    for name, label in (("exact", "exactly"), ("budget", "at raw:10%")):
        times = [sample.wall_s for sample in samples[name]]
        yield Comparison(
            f"merging two, {label}", "mergekit", spread(times), spread(theirs), ratio(times, theirs)
        )
        mine = [float(sample.peak_bytes) for sample in samples[name]]
        yield Comparison(
            f"peak memory of it, {label}",
            "mergekit",
            spread(mine, "MiB", 2**-20),
            spread(peaks, "MiB", 2**-20),
            ratio(mine, peaks),
        )


def machine() -> dict[str, object]:
    """Where it ran, and how busy that was: the load before, and the spread of one small task."""
    beats = [run([sys.executable, "-c", "sum(range(3_000_000))"]).wall_s for _ in range(7)]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "noise": round(max(beats) / min(beats), 2),
    }


def write(out: Path, where: Mapping[str, object], rows: Sequence[Comparison]) -> None:
    """results.json, results.csv and, where charts can be drawn, results.png."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"machine": where, "rows": [asdict(row) for row in rows]}
    (out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(asdict(rows[0])))
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    try:
        import altair as alt
        import vl_convert
    except ImportError:
        print("no results.png: pip install 'mergepipe[report]'")
        return
    known = [{"what": f"{row.what} / {row.peer}", "ratio": row.ratio} for row in rows if row.ratio]
    base = alt.Chart(alt.InlineData(values=known)).encode(
        x=alt.X("ratio:Q", title="mergepipe / peer", scale=alt.Scale(type="log")),
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=420)),
    )
    line = alt.Chart(alt.InlineData(values=[{"one": 1}])).mark_rule(color="#888").encode(x="one:Q")
    chart = (
        line
        + base.mark_point(filled=True, size=90)
        + base.mark_text(dx=8, align="left").encode(text=alt.Text("ratio:Q", format=".2f"))
    )
    picture = vl_convert.vegalite_to_png(chart.properties(width=480).to_dict(), scale=2)
    (out / "results.png").write_bytes(picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and once: minutes, and rough")
    parser.add_argument("--size", type=parse_size, default=256_000_000, help="of a model (256MB)")
    parser.add_argument("--runs", type=int, default=3, help="of each (3)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build/bench")
    parser.add_argument("--directory", type=Path, help="where to work (the temporary directory)")
    arguments = parser.parse_args()
    size, runs = arguments.size, arguments.runs
    if arguments.quick:
        size, runs = QUICK_BYTES, QUICK_RUNS
    os.environ["PYTHONPATH"] = str(HERE.parent)
    os.environ.update(_WHO)
    where, missing = machine(), absent()
    with tempfile.TemporaryDirectory(prefix="mp-bench-", dir=arguments.directory) as name:
        work = Path(name)
        models = [work / "models" / each for each in MODELS]
        models[0].parent.mkdir()
        taken = generate(models[0], size)
        for seed, model in enumerate(models[1:], 1):
            tune(models[0], model, seed)
        where |= {"model": format_size(taken), "runs": runs, "quick": arguments.quick}
        print(", ".join(f"{key} {value}" for key, value in where.items()), flush=True)
        rows = list(storing(models, work, runs, missing)) + list(
            merging(models, work, runs, missing)
        )
    for row in rows:
        told = row.why if row.ratio is None else f"{row.ratio:6.2f}x"
        print(f"{row.what:40} {row.peer:9} {row.ours:26} {row.theirs:26} {told}")
    write(arguments.out, where, rows)
    print(f"written: {arguments.out}/results.json, results.csv")


if __name__ == "__main__":
    main()
