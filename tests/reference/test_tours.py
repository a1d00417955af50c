"""Tours lead through rooms that exist: every module that one names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mergepipe"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# What tours put in backticks that is no module.
OTHERS = {"delta", "mp", "Plan", "Repository", "ByteStore", "Codec", "Method", "kernel"}


def is_there(folder: Path, name: str) -> bool:
    path = folder / name.rstrip("/")
    return path.is_dir() or path.with_name(f"{path.name}.py").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_a_package_has_a_tour(room: str) -> None:
    tour = (PACKAGE / room / "__init__.py").read_text().split('"""')[1]
    for part in ("Who lives here:", "What comes in:", "What goes out:", "What never happens here:"):
        assert part in tour
    living = re.search(r"Who lives here:(.*?)\n\n", tour, re.DOTALL)
    assert living
    for name in re.findall(r"`([a-z_]+/?)`", living[1]):
        if name not in OTHERS:
            assert is_there(PACKAGE / room, name) or is_there(PACKAGE, name), name


def test_the_walks_name_modules_that_are_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    names = re.findall(r"`([a-z_]+/[a-z_/]+)(?:\.py)?`", page)
    assert len(names) > 30
    assert [name for name in names if not (is_there(PACKAGE, name) or is_there(ROOT, name))] == []
