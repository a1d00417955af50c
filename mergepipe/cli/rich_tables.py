"""Tables with a heading and a total, as wide as the terminal allows."""

import io
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.cli.text import Paint
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNBOUNDED = 100_000
_LEAST_WIDTH = 8  # of columns of text, whatever the numbers beside them need


class Column(Struct, frozen=True):
    """A column and its cells, which are escaped here; the last is the total's if there is one.

    spare  where the terminal is narrow, the columns with the highest go first, together; 0 stays
    """

    heading: str
    cells: Sequence[str]
    right: bool = True
    spare: int = 0


def render(columns: Sequence[Column], paint: Paint, *, total: bool = False) -> str:
    """A table for stdout: framed and fitted on a terminal, plain columns in a file or pipe."""
    if not sys.stdout.isatty() and not paint.enabled:
        return _plain(columns)
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        width=shutil.get_terminal_size().columns if terminal else _UNBOUNDED,
        force_terminal=paint.enabled,
        color_system="standard" if paint.enabled else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    kept = list(columns)
    table = _table(kept, total, lined=terminal)
    while not _fits(table, console) and (most := max(column.spare for column in kept)):
        kept = [column for column in kept if column.spare < most]
        table = _table(kept, total, lined=terminal)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())


def _plain(columns: Sequence[Column]) -> str:
    """What rich makes of a table without a frame; it takes longer to load than most commands."""
    padded = []
    for column in columns:
        cells = [escape_for_terminal(cell) for cell in (column.heading, *column.cells)]
        widths = [_width(cell) for cell in cells]
        width = max(*widths, 0 if column.right else _LEAST_WIDTH)
        spaces = [" " * (width - own) for own in widths]
        pairs = zip(cells, spaces, strict=True)
        padded.append([space + cell if column.right else cell + space for cell, space in pairs])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))


def _width(text: str) -> int:
    """How many places of a line a text takes: two for each Chinese character, as UAX 11 has it."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def _fits(table: "Table", console: "Console") -> bool:
    from rich.measure import Measurement

    unbounded = console.options.update(width=_UNBOUNDED)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _table(columns: Sequence[Column], total: bool, *, lined: bool) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    lines = (box.SIMPLE_HEAD if unicode else box.ASCII2) if lined else None
    table = Table(box=lines, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=column.right,
            min_width=None if column.right else _LEAST_WIDTH,
            overflow="fold",
        )
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for number, row in enumerate(rows):
        last = total and number == len(rows) - 1
        cells = [Text(escape_for_terminal(cell)) for cell in row]
        table.add_row(*cells, style="bold" if last else "")
    return table
