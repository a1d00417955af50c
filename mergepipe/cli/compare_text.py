"""`mp explain A B`: why one merge differs from another."""

from typing import TYPE_CHECKING

import msgspec

from mergepipe.cli.rich_tables import Column, render
from mergepipe.cli.session import Session
from mergepipe.cli.text import share, short
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.comparing import ChangedInput, MergeComparison, MovedTensor

_MOST_TENSORS = 20


class ChangedInputDocument(msgspec.Struct, frozen=True):
    """A changed input; `before` and `after`: commits, null: it had none. `blame`: its share."""

    name: str
    before: str | None
    after: str | None
    blame: float


class MovedTensorDocument(msgspec.Struct, frozen=True):
    """A tensor of the result that moved; `shares`: of the changed inputs, in their order."""

    name: str
    relative_l2: float | None
    nonfinite: int
    shares: tuple[float, ...]


class CompareDocument(msgspec.Struct, frozen=True):
    """`mp explain A B --json`. Pairs: of A and of B. Tensors: those that moved most first."""

    inputs: tuple[ChangedInputDocument, ...]
    tensors: tuple[MovedTensorDocument, ...]
    method: tuple[str, str]
    seed: tuple[int, int]
    expert_bytes_planned: tuple[int, int]


def compare(session: Session, a: str, b: str, *, every: bool) -> None:
    """Tell what is between two merges."""
    with session.repository() as repository, session.progress() as progress:
        comparison = repository.compare_merges(a, b, progress=progress)
    blame = comparison.blame
    document = CompareDocument(
        inputs=tuple(
            ChangedInputDocument(each.name, _hex(each.before), _hex(each.after), blame[place])
            for place, each in enumerate(comparison.inputs)
        ),
        tensors=tuple(
            MovedTensorDocument(each.name, each.relative_l2, each.nonfinite, each.shares)
            for each in comparison.tensors
        ),
        method=comparison.methods,
        seed=comparison.seeds,
        expert_bytes_planned=comparison.expert_bytes,
    )
    session.emit(document, "" if session.as_json else _text(session, comparison, every=every))


def _text(session: Session, comparison: "MergeComparison", *, every: bool) -> str:
    lines = []
    for name, (before, after) in (
        ("method", comparison.methods),
        ("seed", comparison.seeds),
        ("expert bytes", [format_size(size) for size in comparison.expert_bytes]),
    ):
        if before != after:
            lines.append(f"{name}: {before}, then {after}")
    if not comparison.inputs:
        lines.append("the same inputs went into both")
    for changed, blame in zip(comparison.inputs, comparison.blame, strict=True):
        name = session.paint("green", escape_for_terminal(changed.name))
        lines.append(f"{name}: {_versions(changed)}, {share(blame)} of what moved")
    shown = comparison.tensors if every else comparison.tensors[:_MOST_TENSORS]
    if shown:
        lines += ["", render(_columns(shown, comparison), session.paint)]
    if len(comparison.tensors) > len(shown):
        lines.append(f"{len(comparison.tensors) - len(shown):,} more moved less: --all shows them")
    if not comparison.tensors:
        lines.append("the results are the same")
    return "\n".join(lines)


def _columns(tensors: "tuple[MovedTensor, ...]", comparison: "MergeComparison") -> list[Column]:
    names = [each.name for each in comparison.inputs]

    def leader(tensor: "MovedTensor") -> str:
        if not tensor.shares:
            return ""
        most = max(tensor.shares)
        return f"{names[tensor.shares.index(most)]} {share(most)}"

    columns = [
        Column("tensor", [each.name for each in tensors], right=False),
        Column("moved", [_moved(each) for each in tensors]),
        Column("mostly by", [leader(each) for each in tensors], right=False),
    ]
    if any(each.nonfinite for each in tensors):
        counts = [f"{each.nonfinite:,}" if each.nonfinite else "" for each in tensors]
        columns.append(Column("not finite", counts))
    return columns


def _moved(tensor: "MovedTensor") -> str:
    return "" if tensor.relative_l2 is None else f"{tensor.relative_l2:.3g}"


def _versions(changed: "ChangedInput") -> str:
    if changed.before is None:
        return "new" if changed.after is None else f"new, {short(changed.after)}"
    if changed.after is None:
        return f"gone, was {short(changed.before)}"
    return f"{short(changed.before)}, then {short(changed.after)}"


def _hex(identity: bytes | None) -> str | None:
    return None if identity is None else identity.hex()
