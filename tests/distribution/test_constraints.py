"""The pinned releases, which `make` installs, can be installed with every Python that we allow."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_the_oldest_python_takes_every_pin() -> None:
    """Debian 12 has Python 3.11.2: pip refuses a pin that needs 3.11.5, in words about others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [allowed] = SpecifierSet(project["requires-python"])
    refusing = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, pinned, version = line.partition("==")
        try:
            installed = distribution(name)
        except (PackageNotFoundError, ValueError):
            continue  # a comment, or of an extra that is not installed here
        needs = installed.metadata["Requires-Python"]
        same = pinned and Version(installed.version).public == version
        if same and needs and not SpecifierSet(needs).contains(f"{allowed.version}.0"):
            refusing[line] = needs
    assert not refusing
