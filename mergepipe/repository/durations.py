"""Lengths of time as people name them: `2 weeks`, `36h`, `now` for none."""

import re

from mergepipe.errors import UsageError

DAY_S = 86400
WEEK_S = 7 * DAY_S
LONGEST_S = 100 * 365 * DAY_S

_SIZES_S = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": DAY_S,
    "week": WEEK_S,
    "month": 30 * DAY_S,
    "year": 365 * DAY_S,
}
_LETTERS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": DAY_S, "w": WEEK_S, "y": 365 * DAY_S}
_UNITS = _SIZES_S | {f"{name}s": size for name, size in _SIZES_S.items()} | _LETTERS
_DURATION = re.compile(r"(?P<count>[0-9]{1,9})[ .]*(?P<unit>[a-z]+)(?:[ .]+ago)?")


def parse_duration(text: str) -> int:
    """Seconds that `text` names: `now` (0), `2 weeks`, `2.weeks.ago`, `36h`. Raises UsageError."""
    wanted = text.strip().lower()
    if wanted in ("now", "0"):
        return 0
    if wanted == "never":
        return LONGEST_S
    match = _DURATION.fullmatch(wanted)
    if match is None or match["unit"] not in _UNITS:
        raise UsageError(
            f"not a length of time: {text!r}", 'write now, 36h, 10d, 2w, "2 weeks" or never'
        )
    return min(LONGEST_S, int(match["count"]) * _UNITS[match["unit"]])


def format_duration(seconds: float) -> str:
    """`seconds` in the largest unit that leaves at least one of it, such as `3 days`."""
    for unit in ("week", "day", "hour", "minute", "second"):
        size = _SIZES_S[unit]
        # Two weeks are weeks, ten days are days.
        if seconds >= size and (unit != "week" or seconds % size == 0):
            count = int(seconds // size)
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return "less than a second"
