"""Pushing from an open repository: its settings, its remotes, and what it notes of them."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from msgspec.structs import replace

from mergepipe.api.hooking import ask_before_push
from mergepipe.api.opened import OpenRepository
from mergepipe.api.releasing import releases
from mergepipe.api.remotes import open_remote
from mergepipe.api.results import PushResult
from mergepipe.errors import RefExists
from mergepipe.ids import ObjectId, show_ids
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.history import reachable_commits
from mergepipe.repository.notes import noted_commits
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.refnames import HEADS, REMOTES
from mergepipe.repository.refs import ANY
from mergepipe.transfer import push as pushing
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.noting import push_notes
from mergepipe.transfer.push_refs import Decision, PushOptions, wanted_refs
from mergepipe.transfer.remote_refs import read_refs, tracking_ref
from mergepipe.transfer.source import Source

_MOST_NEAR = 256  # branches of the remote that are looked at for what is there


def push(
    repository: OpenRepository,
    remote: str | None = None,
    options: PushOptions | None = None,
    credentials: Credentials | None = None,
    progress: Progress = SILENT,
    *,
    verify: bool = True,
) -> PushResult:
    """Send commits to a remote (name or URL; None: origin) and move its refs.

    `verify`: whether the pre-push hook has a say.
    What it then has stands in `refs/remotes/`, also of those refs that moved before a failure.
    """
    name, url, store = open_remote(repository, remote, credentials or Credentials())
    asked = options or PushOptions()
    settings = repository.config.store
    source = Source(
        storage=repository.storage,
        objects=repository.objects,
        blocks=repository.blocks,
        effort=settings.codec,
        max_chain=settings.max_chain,
        pruned=read_pruned(repository.store),
        inputs=not asked.release,
        near=_near(repository, name),
    )

    def ask(moves: Sequence[Decision]) -> None:
        if verify:
            ask_before_push(repository.hooks, name, url.shown, moves)

    # gc here must not take away what is being read.
    with store, repository.writing():
        if asked.release:
            wanted = releases(repository, asked, read_refs(store).values)
        else:
            wanted = wanted_refs(asked, repository.refs, repository.objects, name)
        moved: list[Decision] = []
        try:
            pushed = pushing.push(
                source, store, wanted, moved=moved.append, ask=ask, progress=progress
            )
        finally:
            _note(repository, name, moved)
        if next(noted_commits(repository.store), None) is not None:
            there = _commits_there(repository, name, pushed)
            pushed = replace(pushed, notes=push_notes(repository, store, there))
    for decision in pushed.refs:  # that people get to see
        show_ids(decision, "old", "new")
    return PushResult(name, url.shown, pushed)


def _near(repository: OpenRepository, remote: str) -> tuple[str, ...]:
    """Branches of a remote that most likely have what a push builds on: as many as are asked for.

    Of very many, those that our own branches are called like, or were begun on.
    """
    refs, folder = repository.refs, f"{REMOTES}{remote}/"
    theirs = refs.names(folder)
    if len(theirs) > _MOST_NEAR:
        tips = [at for at in (refs.head().commit,) if at is not None]
        history = reachable_commits(repository.objects, tips)
        recent = {commit for commit, _ in islice(history, _MOST_NEAR)}
        theirs = [name for name in theirs if refs.read(name) in recent]
    return tuple(HEADS + name.removeprefix(folder) for name in theirs[:_MOST_NEAR])


def _commits_there(
    repository: OpenRepository, remote: str, pushed: pushing.Pushed
) -> frozenset[ObjectId]:
    """Commits that the remote surely has: the history of what was pushed, or seen there before."""
    tips = {each.new for each in pushed.refs if each.new is not None}
    if remote:
        tips |= set(repository.refs.list(f"{REMOTES}{remote}/").values())
    here = [tip for tip in tips if repository.objects.has(tip)]
    return frozenset(each for each, _ in reachable_commits(repository.objects, here))


def _note(repository: OpenRepository, remote: str, moved: Sequence[Decision]) -> None:
    """Let `refs/remotes/<remote>/*` follow."""
    refs, who = repository.refs, repository.signature()
    with refs.together():
        for decision in moved:
            tracked = tracking_ref(remote, decision.name) if remote else None
            if tracked is None:
                continue
            if decision.new is None:
                refs.delete(tracked, expected=ANY, who=who, why="push: deleted there")
                continue
            # Two names there that some file system takes for one: then one of them is not noted.
            with suppress(RefExists):
                refs.update(tracked, decision.new, expected=ANY, who=who, why="push")
