"""No figure without a command that gives it: tables of what was measured, in README and docs."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNITS = r"x|%|ms|s|min|[KMGT]i?B|[KMG]i?B/s"
FIGURE = re.compile(rf"(?<![\w./-])\d[\d,.]*\s?(?:{UNITS})(?![\w/])|\|\s*[-+]?0\.\d{{2,}}\s*(?=\|)")
SCRIPT = re.compile(r"(?:benchmarks|examples|tests)/[\w/]+\.(?:py|sh)")
TARGET = re.compile(r"`(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)|^    make ([a-z][a-z-]*)", re.M)
# What stands there was decided, not measured: limits, defaults, what options take.
DECIDED = {
    "docs/cli.md",
    "docs/format.md",
    "docs/glossary.md",
    "docs/mergekit.md",
    "docs/python.md",
    "docs/remotes.md",
    "docs/scale-out.md",
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def tables(text: str) -> Iterator[str]:
    """Rows of tables that follow each other, with their heads."""
    rows: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            yield "\n".join(rows)
            rows = []


def commands(text: str) -> list[str]:
    """The scripts and targets that a page names."""
    targets = [f"make {one or other}" for one, other in TARGET.findall(text)]
    return [*SCRIPT.findall(text), *targets]


def test_tables_of_figures_have_a_command() -> None:
    without = [
        name(page)
        for page in PAGES
        if name(page) not in DECIDED
        and any(FIGURE.search(table) for table in tables(page.read_text()))
        and not commands(page.read_text())
    ]
    assert without == []


def test_the_pattern_finds_figures() -> None:
    assert [bool(FIGURE.search(f"| a | {text} |")) for text in ("1.3x", "65.7%", "0.76 s", "3 MiB")]
    assert FIGURE.search("| plan | 0.598 | 0.61 |")
    assert not FIGURE.search("| `store.block_size` | v1 | 2026-11-29 | sha256 |")
    assert commands("`python benchmarks/storage.py`, `FAULTS=3 make torture`") == [
        "benchmarks/storage.py",
        "make torture",
    ]


def test_every_command_is_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    missing = [
        f"{name(page)}: {command}"
        for page in [*PAGES, ROOT / "benchmarks/README.md"]
        for command in commands(page.read_text())
        if not (
            command.removeprefix("make ") in targets
            if command.startswith("make ")
            else (ROOT / command).is_file()
        )
    ]
    assert missing == []


def named_scripts() -> list[str]:
    return sorted(
        {
            script
            for page in PAGES
            for script in SCRIPT.findall(page.read_text())
            if script.startswith("benchmarks/")
        }
    )


@pytest.mark.parametrize("script", named_scripts())
def test_a_clone_can_run_it(script: str) -> None:
    """Its imports are of this project, its extras, or beside it; its data is made or named."""
    text = (ROOT / script).read_text()
    assert not re.search(r"[\"'](?:/home|/root|/mnt)/", text), "a path of one machine"
    beside = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    beside |= {path.stem for path in (ROOT / "examples/demo").glob("*.py")}
    known = beside | set(sys.stdlib_module_names) | dependencies() | {"mergepipe"}
    imported = {
        ((node.module or "") if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (isinstance(node, ast.ImportFrom) and node.module is None)
    }
    assert imported - known == set()


def dependencies() -> set[str]:
    """What pyproject.toml names, as it is imported."""
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'"([A-Za-z][\w.-]*)[\[>=<;"]', text)
    imports = {"pyyaml": "yaml", "vl-convert-python": "vl_convert", "types-pyyaml": "yaml"}
    return {imports.get(each.lower(), each.lower().replace("-", "_")) for each in named}


def test_the_readme_table_is_made_from_results(tmp_path: Path) -> None:
    rows = [
        {"what": "a", "peer": "DVC", "ours": "1 s", "theirs": "2 s", "ratio": 0.5, "why": ""},
        {"what": "b", "peer": "xet", "ours": "", "theirs": "", "ratio": None, "why": "no store"},
    ]
    machine = {
        "date": "2026-01-01", "system": "Linux x86_64", "python": "3.12", "cores": 2, "load": 0.1,
        "noise": 1.1, "model": "1 GiB", "runs": 3, "quick": False,
    }  # fmt: skip
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"machine": machine, "rows": rows}))
    program = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import readme_table
table = readme_table.table(json.loads(open({str(results)!r}).read()))
readme = open({str(ROOT / "README.md")!r}).read()
once = readme_table.replaced(readme, table)
assert readme_table.replaced(once, table) == once
print(table)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| a | DVC | 1 s | 2 s | 0.50x |" in done.stdout
    assert "skipped: no store" in done.stdout
