"""What a person reads: colours where there is a terminal, columns that line up, dates, ids."""

import datetime
from collections.abc import Mapping, Sequence
from typing import TextIO

from mergepipe.names import escape_for_terminal

ABBREVIATED = 12
"""Hex digits of an id that people see."""

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Paint:
    """Colours text, or leaves it as it is."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, colour: str, text: str) -> str:
        """`text` in a colour of the terminal's own palette."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.enabled and text else text


def paint_for(stream: TextIO, environment: Mapping[str, str]) -> Paint:
    """Colours for a terminal, unless NO_COLOR (https://no-color.org) or a dumb one says no."""
    wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Paint(wanted and stream.isatty())


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), gap: str = "  ") -> str:
    """Rows of cells as aligned columns; the numbers in `right` are columns aligned on the right.

    The first row is the heading. No spaces at the ends of lines.
    """
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = (
        gap.join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def short(identity: bytes) -> str:
    """An id as people see it."""
    return identity.hex()[:ABBREVIATED]


def title(message: str) -> str:
    """The first line of a message, fit for a terminal."""
    lines = message.strip().splitlines()
    return escape_for_terminal(lines[0]) if lines else "(no message)"


def date(seconds: int, utc_offset: int) -> str:
    """A moment as git prints it: `Sun Nov 22 06:04:13 2026 +0000`, in the author's own zone."""
    sign = "-" if utc_offset < 0 else "+"
    hours, minutes = divmod(abs(utc_offset), 60)
    zone = f"{sign}{hours:02d}{minutes:02d}"
    try:
        epoch = datetime.datetime(1970, 1, 1)
        moment = epoch + datetime.timedelta(seconds=seconds, minutes=utc_offset)
    except OverflowError:
        return f"@{seconds} {zone}"  # a clock that was wrong by millennia
    return (
        f"{_WEEKDAYS[moment.weekday()]} {_MONTHS[moment.month - 1]} {moment.day} "
        f"{moment:%H:%M:%S} {moment.year} {zone}"
    )


def count(number: int, what: str) -> str:
    """`1 block`, `2 blocks`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def share(part: float) -> str:
    """A percentage that says 0% and 100% only where it is so."""
    if part == 0:
        return "0%"
    if part == 1:
        return "100%"
    if 0 < part < 0.001:
        return "<0.1%"
    if 0.999 < part < 1:
        return ">99.9%"
    return f"{part:.1%}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; beyond `most` only how many there are."""
    if len(names) > most:
        return f"{len(names)} experts"
    shown = [escape_for_terminal(name) for name in names]
    return " and ".join([*([", ".join(shown[:-1])] if shown[1:] else []), *shown[-1:]])


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `3 min 20 s`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
