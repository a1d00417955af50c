"""What scripts and people read about values that are not finite."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mergepipe.cli.text import Paint, count
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.catalog.finiteness import NonFinite

_SHOWN = 5  # tensors that a warning names


class NonFiniteDocument(msgspec.Struct, frozen=True):
    """A tensor of which `count` of `elements` values are infinite or NaN."""

    tensor: str
    file: str
    count: int
    elements: int


class NonFiniteInputDocument(NonFiniteDocument, frozen=True, kw_only=True):
    """Such a tensor of `rev`, an input of a merge."""

    rev: str


def documents(values: "Sequence[NonFinite]") -> tuple[NonFiniteDocument, ...]:
    """As JSON."""
    return tuple(
        NonFiniteDocument(value.tensor, value.file, value.count, value.elements) for value in values
    )


def warning(what: str, values: Sequence[NonFiniteDocument], paint: Paint) -> str:
    """`warning: WHAT holds 192 values that are not finite (NaN or infinite):` and where they are.

    Empty if there are none.
    """
    if not values:
        return ""
    total = sum(one.count for one in values)
    lines = [
        paint("red", "warning:")
        + f" {escape_for_terminal(what)} holds {count(total, 'value')} "
        + ("that is" if total == 1 else "that are")
        + " not finite (NaN or infinite)"
    ]
    for value in values[:_SHOWN]:
        share = f"{value.count:,} of {value.elements:,}"
        lines.append(f"  {escape_for_terminal(value.tensor)}: {share}")
    if len(values) > _SHOWN:
        lines.append(f"  and {count(len(values) - _SHOWN, 'more tensor')}")
    return "\n".join(lines)
