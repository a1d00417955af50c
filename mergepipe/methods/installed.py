"""Merge methods of other packages: entry points of the group `mergepipe.methods`."""

from functools import cache
from typing import TYPE_CHECKING

from mergepipe.errors import MergeInputError
from mergepipe.methods.protocol import Method

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "mergepipe.methods"


@cache
def installed() -> "dict[str, EntryPoint]":
    """The methods that installed packages offer, by name. Nothing of them is loaded."""
    from importlib.metadata import entry_points  # takes longer to load than all our methods

    return {point.name.lower(): point for point in entry_points(group=GROUP)}


@cache
def load(name: str) -> Method | None:
    """An installed package's method; None if no package has one of that name.

    Raises MergeInputError for one that cannot be loaded, or is none.
    """
    point = installed().get(name)
    if point is None:
        return None
    package = "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    where = f"method {name} of {package} ({point.value})"
    try:
        method = point.load()
    except Exception as error:  # whatever somebody's module raises when it is imported
        raise MergeInputError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}",
            "mend or uninstall that package",
        ) from error
    if not isinstance(method, Method) or method.name != name:
        raise MergeInputError(
            f"{where} is no mergepipe.methods.Method called {name}",
            "mergepipe.methods.custom.elementwise_method makes one; the entry point has its name",
        )
    return method
