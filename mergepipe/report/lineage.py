"""Where models came from, and what they take: the parts of a report that are about history."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.objects import records
from mergepipe.report.values import Commit, Grown, Stored
from mergepipe.repository import history
from mergepipe.repository.dates import utc_day
from mergepipe.repository.graph import draw
from mergepipe.repository.refnames import short_name
from mergepipe.repository.usage import Usage, grown

_MOST_COMMITS = 60


def lineage(repository: Repository, tips: Sequence[ObjectId]) -> Iterator[Commit]:
    """The newest commits that `tips` came from, by parents and training: children come first."""
    called: dict[ObjectId, list[str]] = {}
    for ref, tip in repository.refs.list().items():
        called.setdefault(tip, []).append(short_name(ref))
    listed = dict(_newest(repository, tips))
    needs = {
        identity: [each for each in commit.lineage if each in listed]
        for identity, commit in listed.items()
    }
    order = _children_first(needs, {each: commit.time for each, commit in listed.items()})
    for drawing in draw((identity, needs[identity]) for identity in order):
        identity, commit = drawing.commit, listed[drawing.commit]
        base = commit.trained_from
        yield Commit(
            commit=identity.hex(),
            names=tuple(called.get(identity, ())),
            title=title_of(commit),
            author=commit.author,
            date=utc_day(commit.time),
            parents=tuple(parent.hex() for parent in commit.parents if parent in listed),
            base=base.hex() if base is not None and base in listed else None,
            merge=commit.manifest is not None,
            lane=drawing.node.index("*") // 2,
        )


def growth(repository: Repository, tips: Sequence[ObjectId]) -> Iterator[Grown]:
    """What the newest commits took, one after the other, oldest first; those that are here."""
    here = [
        (identity, commit)
        for identity, commit in reversed(_newest(repository, tips))
        if repository.has_model(identity)
    ]
    sizes = grown([identity for identity, _ in here], repository.objects, repository.storage)
    for (identity, commit), (raw_bytes, stored_bytes) in zip(here, sizes, strict=True):
        yield Grown(identity.hex(), title_of(commit), utc_day(commit.time), raw_bytes, stored_bytes)


def title_of(commit: records.Commit) -> str:
    """The first line of a commit's message."""
    return commit.message.strip().partition("\n")[0] or "(no message)"


def _newest(
    repository: Repository, tips: Sequence[ObjectId]
) -> list[tuple[ObjectId, records.Commit]]:
    reached = history.reachable_commits(repository.objects, tips)
    return heapq.nsmallest(_MOST_COMMITS, reached, key=lambda each: (-each[1].time, each[0]))


def _children_first(
    needs: Mapping[ObjectId, Sequence[ObjectId]], times: Mapping[ObjectId, int]
) -> Iterator[ObjectId]:
    """The newest of those whose children all came, again and again: clocks may go wrong."""
    children = Counter(need for each in needs.values() for need in set(each))
    ready = [(-times[each], each) for each in needs if not children[each]]
    heapq.heapify(ready)
    while ready:
        _, identity = heapq.heappop(ready)
        yield identity
        for need in set(needs[identity]):
            children[need] -= 1
            if not children[need]:
                heapq.heappush(ready, (-times[need], need))


def storage(usage: Usage) -> Iterator[Stored]:
    """What each model takes, the largest savings last, by name where equal."""
    for model in usage.models:
        yield Stored(model.rev, model.raw_bytes, model.alone_bytes, model.exclusive_bytes)
