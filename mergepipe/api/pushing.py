"""Pushing from an open repository: its settings, its remotes, and what it notes of them."""

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from mergepipe.api.hooking import ask_before_push
from mergepipe.api.opened import OpenRepository
from mergepipe.api.releasing import releases
from mergepipe.api.remotes import open_remote
from mergepipe.api.results import PushResult
from mergepipe.errors import RefExists
from mergepipe.ids import ObjectId
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.history import reachable_commits
from mergepipe.repository.pruned import read_pruned
from mergepipe.repository.refnames import REMOTES
from mergepipe.repository.refs import ANY
from mergepipe.transfer import push as pushing
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.noting import push_notes
from mergepipe.transfer.push import Source
from mergepipe.transfer.push_refs import Decision, PushOptions, wanted_refs
from mergepipe.transfer.remote_refs import read_refs, tracking_ref


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
    settings = repository.config.store
    source = Source(
        storage=repository.storage,
        objects=repository.objects,
        blocks=repository.blocks,
        effort=settings.codec,
        max_chain=settings.max_chain,
        pruned=read_pruned(repository.store),
        inputs=not (options is not None and options.release),
    )

    def ask(moves: Sequence[Decision]) -> None:
        if verify:
            ask_before_push(repository.hooks, name, url.shown, moves)

    # gc here must not take away what is being read.
    with store, repository.writing():
        if options is not None and options.release:
            wanted = releases(repository, options, read_refs(store).values)
        else:
            asked = options or PushOptions()
            wanted = wanted_refs(asked, repository.refs, repository.objects, name)
        moved: list[Decision] = []
        try:
            pushed = pushing.push(
                source, store, wanted, moved=moved.append, ask=ask, progress=progress
            )
        finally:
            _note(repository, name, moved)
        there = _commits_there(repository, name, pushed)
        pushed = replace(pushed, notes=push_notes(repository, store, there))
    return PushResult(name, url.shown, pushed)


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
