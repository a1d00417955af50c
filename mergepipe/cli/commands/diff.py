"""`mp diff`: how two models differ, tensor by tensor."""

import math
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import Revision, RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.text import Paint, count, share, table
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.diff import Diff, FileDiff, TensorDiff

_SPARE = {"largest": 3, "L2": 2, "blocks": 1}


class TensorDocument(msgspec.Struct, frozen=True):
    """One tensor from A to B. `change`: same, changed, added, removed or reshaped.

    Numbers are null where there is nothing to compare them with. `nonfinite` elements are left out
    of `l2`, `relative_l2`, `cosine` and `max_abs`.
    """

    name: str
    change: str
    blocks_changed: int
    changed_share: float | None
    l2: float | None
    relative_l2: float | None
    cosine: float | None
    max_abs: float | None
    file: str
    blocks: int
    dtype_a: str | None
    dtype_b: str | None
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    nonfinite: int


class FileDocument(msgspec.Struct, frozen=True):
    """One file from A to B. `change`: same, changed, added, removed, renamed; sizes in bytes."""

    path: str
    change: str
    size_a: int | None
    size_b: int | None
    old_path: str | None = None


class DiffDocument(msgspec.Struct, frozen=True):
    """`mp diff --json`. `same`: nothing differs, files included."""

    tensors: tuple[TensorDocument, ...]
    files: tuple[FileDocument, ...]
    same: bool


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = "mp diff main python\nmp diff HEAD~1\nmp diff main..code\nmp diff v1 v2 --exit-code"
    command(app, "diff", HISTORY, examples=examples)(diff)


def diff(
    session: Session,
    a: Revision,
    b: RevisionOrHead = "HEAD",
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit with 1 if they differ.", show_default=False),
    ] = False,
) -> int:
    """Compare two models, tensor by tensor, the largest change first.

    Per tensor: blocks and share of weights that changed, the L2 norm of the change, that over the
    norm of A, the cosine between both, and the largest change of one weight. Only blocks that
    differ are read.
    """
    if ".." in a and "@{" not in a and b == "HEAD":
        from mergepipe.repository.revisions import parse_range

        limits = parse_range(a)
        if "..." in a:
            asked = "...".join(limits.among)
            raise UsageError(
                f"{quoted(asked)} would be the difference from what both have in common",
                f"of the two from each other: mp diff {' '.join(limits.among)}",
            )
        a, b = limits.hidden[0][0], limits.among[0]
    with session.repository() as repository, session.progress() as progress:
        difference = repository.diff(a, b, progress=progress)
    session.emit(_document(difference), _text(session, difference, a, b))
    return 1 if exit_code and not difference.same else 0


def _document(found: "Diff") -> DiffDocument:
    tensors = tuple(
        TensorDocument(
            name=tensor.name,
            change=tensor.change.value,
            blocks_changed=tensor.blocks_changed,
            changed_share=tensor.changed_share,
            l2=tensor.l2,
            relative_l2=tensor.relative_l2,
            cosine=tensor.cosine,
            max_abs=tensor.max_abs,
            file=tensor.path,
            blocks=tensor.blocks,
            dtype_a=tensor.dtype_a,
            dtype_b=tensor.dtype_b,
            shape_a=tensor.shape_a,
            shape_b=tensor.shape_b,
            nonfinite=tensor.nonfinite,
        )
        for tensor in found.tensors
    )
    files = tuple(
        FileDocument(file.path, file.change.value, file.size_a, file.size_b, file.old_path)
        for file in found.files
    )
    return DiffDocument(tensors, files, found.same)


def _text(session: Session, found: "Diff", a: str, b: str) -> str:
    if found.same:
        return f"{a} and {b} hold the same files"
    parts = []
    if differing := [tensor for tensor in found.tensors if tensor.change != "same"]:
        parts.append(_tensor_table(differing, session.paint))
    if files := [file for file in found.files if file.change != "same" and _is_news(file, found)]:
        parts.append("\n".join(_file_line(file) for file in files))
    parts.append(session.paint("bold", _summary(found, differing)))
    return "\n\n".join(parts)


def _is_news(file: "FileDiff", found: "Diff") -> bool:
    """Whether the table of tensors does not tell already that this file changed."""
    return file.change != "changed" or all(
        tensor.path != file.path or tensor.change == "same" for tensor in found.tensors
    )


def _tensor_table(tensors: Sequence["TensorDiff"], paint: Paint) -> str:
    heading = ["tensor", "blocks", "weights", "L2", "relative", "cosine", "largest"]
    by_size = sorted(tensors, key=_size_of_change)
    rows = [list(_row(tensor)) for tensor in by_size]
    if any(tensor.nonfinite for tensor in tensors):
        heading.append("not finite")
        for row, tensor in zip(rows, by_size, strict=True):
            row.append(f"{tensor.nonfinite:,}" if tensor.nonfinite else "")
    plain = table([heading, *rows], right=range(1, len(heading)))
    widest = max(len(line) for line in plain.splitlines())
    if not sys.stdout.isatty() or widest <= shutil.get_terminal_size().columns:
        return plain
    from mergepipe.cli.rich_tables import Column, render

    # Names fold, and where that is not enough, what tells least goes first.
    columns = [
        Column(name, cells, right=number > 0, spare=_SPARE.get(name, 0))
        for number, (name, *cells) in enumerate(zip(heading, *rows, strict=True))
    ]
    return render(columns, paint)


def _size_of_change(tensor: "TensorDiff") -> float:
    """What cannot be compared comes first, then the largest relative change."""
    return -math.inf if tensor.relative_l2 is None or tensor.nonfinite else -tensor.relative_l2


def _row(tensor: "TensorDiff") -> tuple[str, ...]:
    name = escape_for_terminal(tensor.name)
    if tensor.change in ("added", "removed"):
        shape = tensor.shape_b if tensor.change == "added" else tensor.shape_a
        return (f"{name} ({tensor.change}: {_shape(shape)})", str(tensor.blocks), *[""] * 5)
    if tensor.change == "reshaped":
        shapes = f"{_shape(tensor.shape_a)} to {_shape(tensor.shape_b)}"
        return (f"{name} ({shapes})", f"{tensor.blocks_changed}/{tensor.blocks}", *[""] * 5)
    if tensor.dtype_a != tensor.dtype_b:
        name = f"{name} ({tensor.dtype_a} to {tensor.dtype_b})"
    return (
        name,
        f"{tensor.blocks_changed}/{tensor.blocks}",
        "" if tensor.changed_share is None else share(tensor.changed_share),
        # Of the values that are left once NaN is left out, numbers would say that all is well.
        *(("", "", "", "") if tensor.nonfinite else _numbers(tensor)),
    )


def _numbers(tensor: "TensorDiff") -> tuple[str, str, str, str]:
    return (
        _number(tensor.l2),
        _number(tensor.relative_l2),
        "" if tensor.cosine is None else f"{tensor.cosine:.6f}",
        _number(tensor.max_abs),
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "x".join(str(size) for size in shape or ()) or "scalar"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _file_line(file: "FileDiff") -> str:
    if file.old_path is not None:
        paths = f"{escape_for_terminal(file.old_path)} to {escape_for_terminal(file.path)}"
        return f"{'renamed:':<10}{paths}"
    sizes = [format_size(size) for size in (file.size_a, file.size_b) if size is not None]
    return f"{file.change + ':':<10}{escape_for_terminal(file.path)} ({' to '.join(sizes)})"


def _summary(found: "Diff", differing: Sequence["TensorDiff"]) -> str:
    kinds = Counter(str(tensor.change) for tensor in found.tensors)
    told = [
        f"{kinds[kind]:,} {kind}"
        for kind in ("changed", "reshaped", "added", "removed", "same")
        if kinds[kind]
    ]
    blocks = sum(tensor.blocks for tensor in found.tensors if tensor.change != "removed")
    changed = sum(tensor.blocks_changed for tensor in differing if tensor.change != "removed")
    norm = math.sqrt(math.fsum(tensor.l2**2 for tensor in differing if tensor.l2 is not None))
    parts = [f"{count(len(found.tensors), 'tensor')}: {', '.join(told) or 'none'}"]
    parts.append(f"{changed:,} of {count(blocks, 'block')} differ")
    if norm:
        parts.append(f"L2 of all changes {norm:.4g}")
    return "; ".join(parts)
