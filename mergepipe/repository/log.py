"""Commits as a log has them: an iterator that notebooks show as a table."""

from collections.abc import Callable, Iterator
from itertools import islice

from mergepipe.ids import ObjectId, shown
from mergepipe.objects.records import Commit
from mergepipe.repository.dates import utc_day
from mergepipe.reprs import html_table

_SHOWN = 20


class Log(Iterator[tuple[ObjectId, Commit]]):
    """Commits with their ids, read as they are asked for."""

    def __init__(self, begin: Callable[[], Iterator[tuple[ObjectId, Commit]]]) -> None:
        """`begin`: starts the walk; a table walks anew, and takes nothing from who iterates."""
        self._begin = begin
        self._walk = begin()

    def __next__(self) -> tuple[ObjectId, Commit]:
        identity, commit = next(self._walk)
        return shown(identity), commit

    def _repr_html_(self) -> str:
        """The first of them, for notebooks."""
        commits = list(islice(self._begin(), _SHOWN + 1))
        rows = [
            (
                identity.hex()[:12],
                commit.message.strip().partition("\n")[0],
                "merge" if commit.manifest is not None else "",
                commit.author,
                utc_day(commit.time),
            )
            for identity, commit in commits[:_SHOWN]
        ]
        caption = f"The newest {_SHOWN} commits" if len(commits) > _SHOWN else "Commits"
        return html_table(caption, ("commit", "what", "", "by", "on"), rows)
