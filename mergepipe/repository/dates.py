"""Moments as people name them: `yesterday`, `2 weeks ago`, `2026-11-22`, seconds since 1970."""

import datetime
import re

from msgspec import Struct

from mergepipe.errors import UsageError

_UNIT_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 7 * 86400,
    "month": 30 * 86400,
    "year": 365 * 86400,
}
_AGO = re.compile(r"(?P<count>[0-9]{1,6})[ .]*(?P<unit>[a-z]+?)s?[ .]+ago")
# Ten digits and more: fewer would be a number of moves, as in `main@{3}`.
_SECONDS = re.compile(r"@?(?P<seconds>[0-9]{9,12})")


class Clock(Struct, frozen=True):
    """What relative moments are measured from: Unix seconds, and minutes east of UTC."""

    now: int
    utc_offset: int


def parse_moment(text: str, clock: Clock) -> int:
    """The Unix seconds that `text` names. Raises UsageError.

    `now`, `today` (midnight), `yesterday` (24 hours ago, as git means it), `3 days ago`,
    `3.days.ago`, ISO 8601 with or without a time (local time where it says no offset), seconds.
    """
    wanted = text.strip().lower()
    zone = datetime.timezone(datetime.timedelta(minutes=clock.utc_offset))
    if wanted == "now":
        return clock.now
    if wanted == "yesterday":
        return clock.now - _UNIT_SECONDS["day"]
    if wanted == "today":
        here = datetime.datetime.fromtimestamp(clock.now, zone)
        return int(here.replace(hour=0, minute=0, second=0).timestamp())
    if (ago := _AGO.fullmatch(wanted)) and ago["unit"] in _UNIT_SECONDS:
        return clock.now - int(ago["count"]) * _UNIT_SECONDS[ago["unit"]]
    if raw := _SECONDS.fullmatch(wanted):
        return int(raw["seconds"])
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"not a moment: {text!r}", 'write yesterday, "2 weeks ago", 2026-11-22 or its time too'
        ) from error


def utc_day(seconds: int) -> str:
    """The day of a commit's time, as YYYY-MM-DD; `@seconds` where the calendar has none."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"
