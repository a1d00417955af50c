"""Who acts and when, from the environment: MP_AUTHOR, MP_AUTHOR_DATE, SOURCE_DATE_EPOCH."""

import datetime
import getpass
import re
import time
from collections.abc import Callable, Mapping

from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.objects.limits import MAX_AUTHOR
from mergepipe.repository.reflog import Signature

# git's raw format: seconds since 1970, perhaps with an offset as +HHMM.
_RAW = re.compile(
    r"@?(?P<seconds>-?[0-9]{1,12})(?: (?P<sign>[+-])(?P<hh>[0-9]{2})(?P<mm>[0-9]{2}))?"
)

_MAIL = re.compile(r"[^<>]*<[^<>]*>")

AUTHOR = "MP_AUTHOR"


def identity(environment: Mapping[str, str]) -> Callable[[str], Signature]:
    """A function from the configured author to who acts now.

    Author: MP_AUTHOR, else the configured one, else the login name. Time: MP_AUTHOR_DATE, else
    SOURCE_DATE_EPOCH (UTC), else now. Raises UsageError for a date that is none.
    """

    def sign(configured: str) -> Signature:
        author = _line(environment.get(AUTHOR, "")) or _line(configured) or login_name()
        seconds, utc_offset = when(environment)
        return Signature(author, seconds, utc_offset)

    return sign


def when(environment: Mapping[str, str]) -> tuple[int, int]:
    """Unix seconds and the offset from UTC in minutes that commits made now get."""
    if date := environment.get("MP_AUTHOR_DATE", "").strip():
        return parse_date(date)
    if epoch := environment.get("SOURCE_DATE_EPOCH", "").strip():
        if not re.fullmatch(r"[0-9]{1,12}", epoch):
            raise UsageError(
                f"SOURCE_DATE_EPOCH is not a number of seconds: {epoch!r}",
                "unset it, or set it as `date +%s` prints",
            )
        return int(epoch), 0
    now = time.time()
    return int(now), time.localtime(now).tm_gmtoff // 60


def parse_date(text: str) -> tuple[int, int]:
    """Seconds and offset of `1700000000`, `1700000000 +0200` or ISO 8601. Raises UsageError.

    A date without an offset is local time.
    """
    raw = _RAW.fullmatch(text)
    if raw is not None:
        offset = 60 * int(raw["hh"] or 0) + int(raw["mm"] or 0)
        return int(raw["seconds"]), -offset if raw["sign"] == "-" else offset
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.astimezone()
        east = moment.utcoffset() or datetime.timedelta()
        return int(moment.timestamp()), int(east.total_seconds()) // 60
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"not a date: {text!r} (MP_AUTHOR_DATE)",
            "write 2026-11-22T06:04:13+01:00, or seconds since 1970",
        ) from error


def check_author(text: str) -> str:
    """A name as a person gives it, `Ada` or `Ada <ada@example.org>`, on one line.

    Raises UsageError for one that no commit could hold, or that was cut.
    """
    name = _line(text)
    hint = "write it as in `Ada Lovelace <ada@example.org>`, or `Ada` alone"
    if not name:
        raise UsageError("who acts has no name", hint)
    if len(name) > MAX_AUTHOR:
        raise UsageError(f"a name has at most {MAX_AUTHOR:,} characters", hint)
    if ("<" in name or ">" in name) and _MAIL.fullmatch(name) is None:
        raise UsageError(f"not a name and an address: {quoted(name)}", hint)
    return name


def login_name() -> str:
    """The name of whoever runs this; `unknown` for a user without one, as in some containers."""
    try:
        return _line(getpass.getuser()) or "unknown"
    except (KeyError, OSError):
        return "unknown"


def _line(text: str) -> str:
    """`text` on one line, without control characters."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept.split())
