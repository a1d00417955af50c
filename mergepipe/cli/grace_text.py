"""What gc and prune leave for later, said to a person."""

import datetime
from typing import TYPE_CHECKING

from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.gc import Collected


def kept_text(done: "Collected", command: str) -> str:
    """How much nothing needs and stays, until when, and the `command` that frees it at once."""
    size = format_size(done.kept_bytes)
    try:
        until = str(datetime.datetime.fromtimestamp(done.kept_until_s, datetime.UTC).date())
    except (OverflowError, ValueError, OSError):  # a clock that was wrong by millennia
        until = "far in the future"
    return f"{size} that nothing needs stay until {until} (gc.grace): `{command}` frees them now"
