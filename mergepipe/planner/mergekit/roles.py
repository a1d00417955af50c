"""What a recipe's `base_model` is to each method.

mergekit 0.1.5, by its behaviour: most methods take differences from it, some take two models and
want to know which comes first, and to the others it is an input like any other.
"""

from enum import StrEnum

from mergepipe.methods.protocol import Method


class BaseRole(StrEnum):
    """What the base is.

    REFERENCE  differences are taken from it; no input itself
    FIRST      the first of two inputs
    INPUT      an input, at the place where it is listed, or else the last
    """

    REFERENCE = "reference"
    FIRST = "first"
    INPUT = "input"


def base_role(method: Method) -> BaseRole:
    """What a base is to `method`."""
    if not method.base_is_term:
        return BaseRole.REFERENCE
    return BaseRole.FIRST if method.minimum_models == 2 else BaseRole.INPUT


def base_required(method: Method) -> bool:
    """Whether a recipe must name a base: also where it only says which of two comes first."""
    return method.needs_base or base_role(method) is BaseRole.FIRST
