"""mergepipe: model weights as data, with git-like history and budget-aware merging.

    repo = mergepipe.Repository.open(".")
    plan = repo.plan(base="base", experts=["math", "code"], method="ties", budget="25%")
    result = repo.merge(plan, branch="merged")

The public API is small and lazy: importing this package loads neither torch nor numba.
"""

from typing import TYPE_CHECKING

from mergepipe.version import __version__

if TYPE_CHECKING:
    from mergepipe import errors as errors
    from mergepipe import progress as progress
    from mergepipe.api import Repository
    from mergepipe.api.standalone import Engine, Planner
    from mergepipe.errors import MergepipeError
    from mergepipe.progress_bar import ProgressBar

__all__ = ["Engine", "MergepipeError", "Planner", "ProgressBar", "Repository", "__version__"]


_MODULES = ("errors", "progress")
"""That users name, as in `except mergepipe.errors.RefMoved`."""


def __dir__() -> list[str]:
    loaded = {name for name in globals() if name != "TYPE_CHECKING"}
    return sorted(loaded | {*__all__, *_MODULES})


def __getattr__(name: str) -> object:
    # Imported when asked for: `mp --version` and `import mergepipe` stay instant.
    if name == "Repository":
        from mergepipe.api import Repository

        return Repository
    if name == "MergepipeError":
        from mergepipe.errors import MergepipeError

        return MergepipeError
    if name == "Planner":
        from mergepipe.api.standalone import Planner

        return Planner
    if name == "ProgressBar":
        from mergepipe.progress_bar import ProgressBar

        return ProgressBar
    if name == "Engine":
        from mergepipe.api.standalone import Engine

        return Engine
    if name in _MODULES:
        from importlib import import_module

        return import_module(f"mergepipe.{name}")
    raise AttributeError(f"module 'mergepipe' has no attribute {name!r}")
