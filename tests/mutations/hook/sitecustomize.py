"""Loaded by every Python whose PYTHONPATH leads here: one module of mergepipe lacks a check.

MERGEPIPE_MUTATION says which, as `packs/format.py:0`.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

_SITES = Path(__file__).parents[1] / "sites.py"


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """The code without the check, never what is cached."""
        spec = importlib.util.spec_from_file_location("_mutation_sites", _SITES)
        assert spec is not None and spec.loader is not None
        sites = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = sites
        spec.loader.exec_module(sites)
        source = Path(self.path).read_text()
        code: CodeType = compile(sites.without(source, _NUMBER), self.path, "exec")
        return code


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module that lacks something; None for all others."""
        if name != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


if "MERGEPIPE_MUTATION" in os.environ:
    _file, _, _number = os.environ["MERGEPIPE_MUTATION"].rpartition(":")
    _NUMBER = int(_number)
    _MODULE = "mergepipe." + _file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    sys.meta_path.insert(0, _Finder())
