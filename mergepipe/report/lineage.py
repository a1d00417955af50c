"""Where models came from, and what they take: the parts of a report that are about history."""

import datetime
import itertools
from collections.abc import Iterator, Sequence

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.report.values import Commit, Stored
from mergepipe.repository import history
from mergepipe.repository.refnames import short_name
from mergepipe.repository.usage import Usage

_MOST_COMMITS = 60


def lineage(repository: Repository, tips: Sequence[ObjectId]) -> Iterator[Commit]:
    """The newest commits that `tips` came from, by parents and training, newest first."""
    called: dict[ObjectId, list[str]] = {}
    for ref, tip in repository.refs.list().items():
        called.setdefault(tip, []).append(short_name(ref))
    reached = history.reachable_commits(repository.objects, tips)
    newest = sorted(reached, key=lambda each: (-each[1].time, each[0]))
    listed = list(itertools.islice(newest, _MOST_COMMITS))
    there = {identity for identity, _ in listed}
    for identity, commit in listed:
        base = commit.trained_from
        yield Commit(
            commit=identity.hex(),
            names=tuple(called.get(identity, ())),
            title=commit.message.strip().partition("\n")[0] or "(no message)",
            author=commit.author,
            date=_day(commit.time),
            parents=tuple(parent.hex() for parent in commit.parents if parent in there),
            base=base.hex() if base is not None and base in there else None,
            merge=commit.manifest is not None,
        )


def storage(usage: Usage) -> Iterator[Stored]:
    """What each model takes, the largest savings last, by name where equal."""
    for model in usage.models:
        yield Stored(model.rev, model.raw_bytes, model.alone_bytes, model.exclusive_bytes)


def _day(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"
