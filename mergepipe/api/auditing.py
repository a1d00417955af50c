"""Who did what in a repository, from what it keeps anyway: commits, runs, pushes, tombstones."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from mergepipe.api.asked import of_message, recall
from mergepipe.api.opened import OpenRepository
from mergepipe.api.planning import Planning
from mergepipe.engine.runs import run_of
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import Manifest
from mergepipe.objects.records import Commit
from mergepipe.repository.history import walk
from mergepipe.repository.push_log import PushEntry, PushLog
from mergepipe.repository.tombstones import read_stones


class AuditInput(msgspec.Struct, frozen=True):
    """A model that was merged. `commit` null, `name` its snapshot: no commit here holds it."""

    role: str
    name: str
    commit: str | None
    snapshot: str


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=False):
    """One thing that was done. Sizes in bytes, times in Unix seconds, ids in hex.

    kind       commit, merge, push, purge
    who        the author of a commit or merge; the token's name of a push; who purged
    author     of a push: of the commit that it brought
    inputs, method                         of a merge
    budget, budget_total, max_share        that were asked for, as options take them; null: none
    expert_bytes_read, base_bytes_read, written_bytes, seconds, device, host
               of a merge that was made in this repository; null: made elsewhere
    ref, old, new, outcome, address, bytes   of a push, as the log of pushes has them
    detail     message of a commit, reason of a purge, why a push was refused
    """

    time: int
    kind: str
    who: str
    commit: str | None = None
    detail: str = ""
    author: str | None = None
    inputs: tuple[AuditInput, ...] = ()
    method: str | None = None
    budget: str | None = None
    budget_total: str | None = None
    max_share: str | None = None
    expert_bytes_read: int | None = None
    base_bytes_read: int | None = None
    written_bytes: int | None = None
    seconds: float | None = None
    device: str | None = None
    host: str | None = None
    ref: str | None = None
    old: str | None = None
    new: str | None = None
    outcome: str | None = None
    address: str | None = None
    bytes: int | None = None


def audit(
    repository: OpenRepository,
    planning: Planning,
    tips: list[ObjectId],
    since: int | None = None,
    until: int | None = None,
) -> list[AuditEntry]:
    """What was done from `since` until `until` (Unix seconds), oldest first.

    Commits and merges are those that `tips` reach; pushes those that a server here wrote down.
    """

    def meant(time: int) -> bool:
        return (since is None or time >= since) and (until is None or time <= until)

    commits = [each for each in walk(repository.objects, tips) if meant(each[1].time)]
    entries = [*_of_commits(repository, planning, commits)]
    entries += [
        _of_push(repository, pushed)
        for pushed in PushLog(repository.directory).read()
        if meant(pushed.time)
    ]
    for stone in read_stones(repository.store)[0].values():
        if meant(stone.time):
            commit = stone.commit.hex()
            entries.append(
                AuditEntry(
                    time=stone.time, kind="purge", who=stone.who, commit=commit, detail=stone.reason
                )
            )
    return sorted(entries, key=lambda entry: entry.time)


def _of_push(repository: OpenRepository, pushed: PushEntry) -> AuditEntry:
    return AuditEntry(
        time=pushed.time,
        kind=pushed.action,
        who=pushed.token,
        commit=pushed.new or None,
        detail=pushed.detail,
        author=pushed.author or repository.author_of(pushed.new) or None,
        ref=pushed.ref,
        old=pushed.old or None,
        new=pushed.new or None,
        outcome=pushed.outcome,
        address=pushed.address,
        bytes=pushed.bytes,
    )


def _of_commits(
    repository: OpenRepository, planning: Planning, commits: list[tuple[ObjectId, Commit]]
) -> Iterator[AuditEntry]:
    manifests: dict[ObjectId, Manifest] = {}
    for identity, commit in commits:
        if commit.manifest is not None:
            with suppress(Corruption):
                manifests[identity] = repository.objects.load(commit.manifest, Manifest)
    held = planning.holders({each for merged in manifests.values() for each in merged.models})
    for identity, commit in commits:
        title = commit.message.partition("\n")[0]
        manifest = manifests.get(identity)
        if manifest is None:
            yield AuditEntry(
                time=commit.time,
                kind="commit",
                who=commit.author,
                commit=identity.hex(),
                detail=title,
            )
            continue
        # Which of the commits that hold a model was merged, the merge's parents tell.
        parents = {
            repository.objects.commit(each).snapshot: each
            for each in commit.parents
            if repository.objects.has(each)
        }
        inputs, asked = [], of_message(commit.message)
        names = (recall(repository.storage, manifest.plan) or asked).names
        if len(names) != len(manifest.models):  # it was merged elsewhere
            names = tuple(
                held[each].name if each in held else each.hex() for each in manifest.models
            )
        for name, snapshot in zip(names, manifest.models, strict=True):
            holder = held.get(snapshot)
            at = parents.get(snapshot) or (None if holder is None else holder.commit)
            if at is not None and holder is not None and at.hex().startswith(name):
                name = holder.name if holder.name != holder.commit.hex() else name
            inputs.append(
                AuditInput(
                    "base" if snapshot == manifest.base else "expert",
                    name,
                    None if at is None else at.hex(),
                    snapshot.hex(),
                )
            )
        run = run_of(repository.directory, identity)
        yield AuditEntry(
            time=commit.time,
            kind="merge",
            who=commit.author,
            commit=identity.hex(),
            detail=title,
            inputs=tuple(inputs),
            method=manifest.method,
            budget=asked.budget or None,
            budget_total=asked.budget_total or None,
            max_share=asked.max_share or None,
            expert_bytes_read=None if run is None else run.expert_bytes_read,
            base_bytes_read=None if run is None else run.base_bytes_read,
            written_bytes=None if run is None else run.written_bytes,
            seconds=None if run is None else run.seconds,
            device=None if run is None else run.device,
            host=None if run is None else run.host,
        )
