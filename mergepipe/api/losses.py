"""Why a lazy clone cannot read a model: its remote let go of it before it was read here."""

import re
from collections.abc import Iterator
from contextlib import suppress

from mergepipe.api.opened import OpenRepository, open_url
from mergepipe.errors import Corruption, MergepipeError, MissingObject, RevisionNotFound
from mergepipe.ids import BlockId, ObjectId
from mergepipe.names import quoted
from mergepipe.repository.history import reachable_commits
from mergepipe.repository.pruned import Pruned, read_pruned
from mergepipe.repository.refnames import REMOTES
from mergepipe.repository.tombstones import day_of, purged_error, read_tombstones
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.following import follow_pruned

_BLOCK = re.compile(r"block (?P<block>[0-9a-f]{64})")


def explained(repository: OpenRepository, error: MissingObject) -> MergepipeError:
    """The error to tell instead of a block that is nowhere: RevisionNotFound, or Purged.

    In a lazy clone the remote is asked what it let go of, which is noted here; where that is not
    what happened, or it cannot be asked, the error is as it was.
    """
    remote = repository.storage.promises.remote
    match = _BLOCK.search(error.message)
    if not remote or match is None:
        return error
    try:
        name, url = repository.remote_called(remote)
        given = repository.credentials
        credentials = Credentials() if given is None else given(repository.directory)
        with open_url(url, credentials, name, who=repository.who) as store:
            pruned, stones = read_pruned(store), read_tombstones(store)
            follow_pruned(repository, store)
    except MergepipeError:
        return error
    block = BlockId(bytes.fromhex(match["block"]))
    commit = next(_holding(repository, pruned, block), None)
    if commit is None:
        return error
    if commit in stones:
        return purged_error(stones[commit], f"the model of {commit.hex()[:12]}, at {remote},")
    others = _other_remotes(repository, remote, commit)
    kept = (
        f"kept by {', '.join(others)}" if others else "kept by no other remote that is known here"
    )
    clone = f"mp clone {repository.config.remote[others[0]].url}" if others else "mp clone"
    return RevisionNotFound(
        f"the model of {commit.hex()[:12]} was pruned on the remote {quoted(remote)} "
        f"({url.shown}) on {day_of(pruned.times[commit])}, before it was read here; {kept}",
        f"{clone} of one that keeps it reads it; mp log shows what came after it",
    )


def _holding(repository: OpenRepository, pruned: Pruned, block: BlockId) -> Iterator[ObjectId]:
    """Those of some commits whose models have a block."""
    objects = repository.objects
    for commit in pruned.times:
        with suppress(Corruption):
            if objects.has(commit):
                for tensor in objects.snapshot(objects.commit(commit).snapshot).tensor_ids():
                    if block in objects.tensor(tensor).block_ids():
                        yield commit
                        break


def _other_remotes(repository: OpenRepository, asked: str, commit: ObjectId) -> list[str]:
    """Remotes whose history holds a commit, as last seen, but the one that was asked."""
    names = []
    for name in repository.config.remote:
        tips = repository.refs.list(f"{REMOTES}{name}/").values()
        with suppress(Corruption):
            if name != asked and any(
                each == commit for each, _ in reachable_commits(repository.objects, tips)
            ):
                names.append(name)
    return sorted(names)
