"""The pictures of reports, drawn once."""

import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from mergepipe.hub.files import Recent

if TYPE_CHECKING:
    from mergepipe.report.page import Figure
    from mergepipe.report.values import Report

MOST_CELLS = 5000
"""Parts of experts in tensors that a page draws one by one; `mp report` draws more."""
AT_ONCE = 1500
"""Parts that are drawn without being asked for: more take seconds, and tables need not wait."""
_PICTURES = 32


class Pictures:
    """Draws reports, the last ones from memory."""

    def __init__(self) -> None:
        self._drawn: Recent[Hashable, Sequence[Figure]] = Recent(_PICTURES)
        self._lock = threading.Lock()

    def of(
        self, key: Hashable, report: "Report", *, part_by_part: bool = False
    ) -> "Sequence[Figure] | None":
        """The figures of a report, which `key` stands for; None where nothing draws here.

        part_by_part: those that show each expert's parts of layers, instead.
        """
        try:
            from mergepipe.report.page import details, figures_of, printable
        except ModuleNotFoundError:
            return None
        chosen = details if part_by_part else figures_of

        def draw() -> "Sequence[Figure]":
            with self._lock:  # the compiler of charts runs one at a time
                return tuple(chosen(printable(report)))

        return self._drawn.get((key, part_by_part), draw)
