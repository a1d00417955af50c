"""Releases: a model with its manifest, without the history and the experts that it was made of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from mergepipe.errors import MergepipeError, UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.refnames import HEADS, branch_ref, short_name
from mergepipe.transfer.push_refs import PushOptions, Wanted

if TYPE_CHECKING:
    from mergepipe.api.opened import OpenRepository


def releases(
    repository: "OpenRepository", options: PushOptions, there: Mapping[str, ObjectId]
) -> list[Wanted]:
    """Where branches of a remote go that get releases; their commits are made here.

    A release has the model, message, author, time and manifest of its revision, and for its only
    parent the release before it, if the remote's branch has one: so consumers can pull. Its id
    depends on nothing else. Raises UsageError, RevisionNotFound, MergepipeError.
    """
    if options.all_branches or options.tags or options.delete:
        raise UsageError("--release is of single revisions", "mp push REMOTE --release REV:BRANCH")
    wanted: dict[str, Wanted] = {}
    with Transaction(repository.storage) as transaction:
        for text in options.refs or ("HEAD",):
            source, target = _parts(repository, text)
            if target in wanted:
                raise UsageError(
                    f"{short_name(target)} gets one release at a time", "push one after the other"
                )
            before = there.get(target)
            commit = repository.to_copy(source)[1]
            if before is not None and not repository.objects.has(before):
                raise MergepipeError(
                    f"{short_name(target)} of the remote is at a commit that is not here",
                    "mp fetch first, so that the release can follow it",
                )
            if before is not None:
                last = repository.objects.commit(before)
                if (last.snapshot, last.manifest) == (commit.snapshot, commit.manifest):
                    wanted[target] = Wanted(target, before)
                    continue
            release = msgspec.structs.replace(
                commit,
                parents=() if before is None else (before,),
                leans_on=None,
                trained_from=None,
                profile=None,
            )
            identity = transaction.add_object(encode(release))
            wanted[target] = Wanted(target, identity, options.force)
        transaction.publish()
    return list(wanted.values())


def _parts(repository: "OpenRepository", text: str) -> tuple[str, str]:
    """The revision, and the branch of the remote (full name) that gets it."""
    source, colon, target = text.removeprefix("+").partition(":")
    if colon:
        if target.startswith("refs/") and not target.startswith(HEADS):
            raise UsageError(f"a release goes to a branch, not to {quoted(target)}")
        return source or "HEAD", branch_ref(target)
    if source in ("HEAD", "@"):
        head = repository.refs.head()
        if head.branch is None:
            raise UsageError("HEAD is on no branch", "say which one gets it: HEAD:BRANCH")
        return source, head.branch
    if HEADS + source not in repository.refs.list(HEADS):
        raise UsageError(
            f"{source!r} is no branch, so which one gets its release?",
            f"mp push REMOTE --release {source}:BRANCH",
        )
    return source, branch_ref(source)
