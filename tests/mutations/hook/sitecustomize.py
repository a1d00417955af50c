"""Loaded by each Python whose PYTHONPATH leads here: modules of mergepipe ask what they lack.

MERGEPIPE_MUTATION says which check is taken away, as `packs/format.py:verify_payload`; `*`: none so
far, but every module asks, and a process forked from this one may set it to one of them.
MERGEPIPE_REACHED names a file in which each test is noted with each check that it comes by.
"""

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

_SITES = Path(__file__).parents[1] / "sites.py"
_WHICH = "MERGEPIPE_MUTATION"
_seen: set[tuple[str, str]] = set()


def _without(name: str) -> bool:
    reached = os.environ.get("MERGEPIPE_REACHED")
    if reached is not None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        if test and (test, name) not in _seen:
            _seen.add((test, name))
            with open(reached, "a") as file:  # noqa: PTH123 - one write, at the end, by any process
                file.write(f"{test}\t{name}\n")
    return os.environ.get(_WHICH) == name


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """The code that asks, never what is cached."""
        source = Path(self.path).read_text()
        file = Path(self.path).relative_to(sites.PACKAGE).as_posix()
        code: CodeType = compile(sites.removable(source, file), self.path, "exec")
        return code


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The modules that ask; None for all others."""
        if name not in _modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


def _load_sites() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_mutation_sites", _SITES)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


if _WHICH in os.environ:
    sites = _load_sites()
    _which = os.environ[_WHICH].partition(":")[0]
    _files = {site.file for site in sites.sites()} if _which == "*" else {_which}
    _modules = {
        "mergepipe." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in _files
    }
    builtins.__without__ = _without  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _Finder())
