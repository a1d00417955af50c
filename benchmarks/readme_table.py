"""The table of README.md from the last run of beside_peers.py.

python benchmarks/readme_table.py [--results build/bench/results.json] [--check]

Rewrites what stands between the markers. `--check` fails where that is not what results say.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def table(results: Mapping[str, Any]) -> str:
    """Lines of Markdown: a ratio for each comparison, then the machine."""
    lines = [
        "| what | beside | mergepipe | peer | ratio |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        last = f"{row['ratio']:.2f}x" if row["ratio"] is not None else f"skipped: {row['why']}"
        lines.append(
            f"| {row['what']} | {row['peer']} | {row['ours']} | {row['theirs']} | {last} |"
        )
    where = results["machine"]
    many = "1 run" if where["runs"] == 1 else f"{where['runs']} runs"
    told = [
        f"By `make bench` on {where['date']}: models of {where['model']}, {many} each; "
        f"{where['system']}, {where['cores']} cores, load {where['load']} before, the same small "
        f"task {where['noise']}x apart. Below 1x: less than the peer."
    ]
    if where["quick"]:
        told.append("(`BENCH=--quick`: small and once; most of a time is the start of a process.)")
    lines += ["", *told]
    return "\n".join(lines)


def replaced(readme: str, rows: str) -> str:
    """README.md with the table between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "build/bench/results.json")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = replaced(readme.read_text(), table(json.loads(options.results.read_text())))
    if options.check:
        return int(text != readme.read_text())
    readme.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
