"""Each check that can be taken away is found, asked about, and missed (`make mutations`)."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

from .asked import asked_of
from .sites import PACKAGE, sites, without

ROOT = Path(__file__).parents[2]
SITES = list(sites())


def test_all_kinds_are_found() -> None:
    counts = Counter(site.kind for site in SITES)
    assert counts["fsync"] >= 15
    assert counts["hash"] >= 20
    assert counts["link"] >= 20
    assert counts["limit"] >= 70


def test_each_is_asked_about_by_tests_that_are_there() -> None:
    for site in SITES:
        for test in asked_of(site):
            assert (ROOT / test.partition("::")[0]).exists(), (site.name, test)


def test_without_it_the_source_is_another_that_compiles() -> None:
    for site in SITES:
        source = (PACKAGE / site.file).read_text()
        tree = without(source, site.number)
        compile(tree, site.file, "exec")
        assert ast.unparse(tree) != ast.unparse(ast.parse(source)), site.name


def test_what_is_taken_away_is_missed() -> None:
    command = [sys.executable, "-m", "tests.mutations", "formats/tree.py:0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "tests/formats/test_tree.py::" in done.stdout
