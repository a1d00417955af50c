"""What scripts and people read about tensors that look wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mergepipe.cli.text import Paint, count
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.catalog.suspects import Suspect

_SHOWN = 5  # tensors that a warning names


class SuspectDocument(msgspec.Struct, frozen=True):
    """A tensor that looks wrong; `kind` is nonfinite, zero, unlike or jump."""

    kind: str
    file: str
    tensor: str
    message: str
    nonfinite: int
    relative_l2: float | None
    cosine: float | None


def documents(suspects: "Sequence[Suspect]") -> tuple[SuspectDocument, ...]:
    """As JSON."""
    return tuple(
        SuspectDocument(
            kind=one.kind,
            file=one.file,
            tensor=one.tensor,
            message=one.message,
            nonfinite=one.nonfinite,
            relative_l2=one.relative_l2,
            cosine=one.cosine,
        )
        for one in suspects
    )


def warning(what: str, suspects: Sequence[SuspectDocument], paint: Paint) -> str:
    """`warning: 2 tensors of WHAT look wrong:` and which. Empty if there are none."""
    if not suspects:
        return ""
    tensors = len({(one.file, one.tensor) for one in suspects})
    looks = f"{count(tensors, 'tensor')} of {escape_for_terminal(what)} " + (
        "looks wrong" if tensors == 1 else "look wrong"
    )
    lines = [f"{paint('red', 'warning:')} {looks}; mp check reads and compares them"]
    lines += [f"  {escape_for_terminal(one.tensor)}: {one.message}" for one in suspects[:_SHOWN]]
    if len(suspects) > _SHOWN:
        lines.append(f"  and {len(suspects) - _SHOWN:,} more")
    return "\n".join(lines)
