"""Committing files: sources to blocks, blocks to a snapshot, a snapshot to history."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergepipe.checkpoints.encoders import BlockEncoder
from mergepipe.checkpoints.ingest import ingest
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.codecs.registry import codec_named
from mergepipe.errors import NothingToCommit
from mergepipe.formats.tree import SourceFile
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.parallel import core_count
from mergepipe.progress import Progress
from mergepipe.repository.config import Config
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refs import RefStore


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a user asks of a commit. `branch`: a full ref name, None for where HEAD is."""

    message: str
    who: Signature
    branch: str | None = None
    base: ObjectId | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit made. Sizes in bytes; `stored_bytes` is what it added to the store.

    `unchanged`: the branch held this very snapshot already, and `commit` is its tip.
    """

    commit: ObjectId
    snapshot: ObjectId
    branch: str | None
    base: ObjectId | None
    raw_bytes: int
    stored_bytes: int
    blocks: int
    new_blocks: int
    unchanged: bool = False


def commit_files(
    sources: Sequence[SourceFile],
    request: CommitRequest,
    *,
    storage: Storage,
    objects: ObjectStore,
    refs: RefStore,
    config: Config,
    progress: Progress,
) -> CommitResult:
    """Store files as a commit on a branch. The caller holds the store's lock, shared.

    Raises NothingToCommit without files, and what `ingest` and `publish_commit` raise; the
    repository is then as it was.
    """
    if not sources:
        raise NothingToCommit("there are no files to commit")
    codec = codec_named("raw" if config.store.codec == "raw" else "zstd")
    with Transaction(storage) as transaction:
        made = ingest(
            sources,
            transaction,
            BlockEncoder(storage, codec),
            block_size=config.store.block_size,
            threads=core_count(config.core.threads),
            progress=progress,
        )
        tips: list[ObjectId | None] = []

        def make(tip: ObjectId | None) -> Commit | None:
            tips.append(tip)
            if tip is not None and objects.commit(tip).snapshot == made.snapshot:
                return None
            return Commit(
                made.snapshot,
                () if tip is None else (tip,),
                request.base,
                request.who.author,
                request.who.time,
                request.who.utc_offset,
                request.message,
            )

        why = "commit" if request.message == "" else f"commit: {request.message.splitlines()[0]}"
        published = publish_commit(
            transaction, refs, request.branch, make, who=request.who, why=why
        )
        stored, new = transaction.stored_bytes, transaction.new_blocks
    if published is None:
        tip = tips[-1]
        assert tip is not None
        head = refs.head()
        branch = request.branch or head.branch
        return CommitResult(
            tip,
            made.snapshot,
            branch and branch.removeprefix("refs/heads/"),
            objects.commit(tip).base,
            made.raw_bytes,
            0,
            made.blocks,
            0,
            unchanged=True,
        )
    return CommitResult(
        published.commit,
        made.snapshot,
        published.branch,
        request.base,
        made.raw_bytes,
        stored,
        made.blocks,
        new,
    )
