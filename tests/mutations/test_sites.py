"""Each check that can be taken away is found, listed with its test, and missed."""

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .listed import listed, row
from .sites import PACKAGE, Site, removable, sites

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def all_sites() -> list[Site]:
    return list(sites())


def test_all_kinds_are_found(all_sites: list[Site]) -> None:
    counts = Counter(site.kind for site in all_sites)
    assert counts["fsync"] >= 15
    assert counts["hash"] >= 20
    assert counts["link"] >= 20
    assert counts["limit"] >= 70


def test_no_two_are_called_the_same(all_sites: list[Site]) -> None:
    assert len({site.name for site in all_sites}) == len(all_sites)


def test_each_row_of_the_page_is_of_a_check_and_of_a_test_that_are_there(
    all_sites: list[Site],
) -> None:
    kinds = {site.name: site.kind for site in all_sites}
    for name, (kind, test) in listed().items():
        assert kinds.get(name) == kind, f"docs/mutations.md lists {name}, which is not there"
        file, _, function = test.partition("[")[0].partition("::")
        assert not test or f"def {function}(" in (ROOT / file).read_text(), (name, test)


def test_each_check_is_on_the_page(all_sites: list[Site]) -> None:
    """docs/mutations.md says what to do for a new one."""
    known = listed()
    missing = [row(site.kind, site.name, "") for site in all_sites if site.name not in known]
    assert not missing, "docs/mutations.md lacks these"


def test_each_asks_for_itself_in_a_source_that_compiles(all_sites: list[Site]) -> None:
    for file in sorted({site.file for site in all_sites}):
        tree = removable((PACKAGE / file).read_text(), file)
        compile(tree, file, "exec")
        asked = [
            str(node.args[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "__without__"
            and isinstance(node.args[0], ast.Constant)
        ]
        assert sorted(asked) == sorted(site.name for site in all_sites if site.file == file)


def test_what_is_taken_away_is_missed() -> None:
    command = [sys.executable, "-m", "tests.mutations", "formats/tree.py:_source"]
    patient = {**os.environ, "MUTATION_S": str(24 * 3600)}
    done = subprocess.run(command, cwd=ROOT, env=patient, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "tests/formats/test_tree.py::test_links" in done.stdout
