"""Purging at another repository: what is asked, whether it may be, and what is reported."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mergepipe.bytestore import wire
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore, Purging
from mergepipe.errors import RemoteRefused, UsageError
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.packs.blocks import BlockReader
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout
from mergepipe.repository.purge_report import PurgeReport, PurgeRequest
from mergepipe.repository.purging import Place, Purge, purge
from mergepipe.transfer.home import Home


def place_of(home: Home) -> Place:
    """What a purge needs of an open repository."""
    directory: Path = home.directory
    return Place(
        directory=directory,
        files=LocalByteStore(directory),
        storage=home.storage,
        objects=home.objects,
        blocks=BlockReader(home.storage),
        refs=home.refs,
        store_lock=directory / layout.STORE_LOCK,
        lock_timeout_s=home.lock_timeout_s,
        effort=home.config.store.codec,
        grace_s=home.config.gc.grace,
        writing=home.writing,
    )


def ask_to_purge(
    store: ByteStore,
    models: Sequence[tuple[ObjectId, ObjectId]],
    *,
    where: str,
    who: str,
    reason: str,
    dry_run: bool,
) -> PurgeReport:
    """Have models (a commit and its snapshot each) purged at the other side of `store`.

    Raises RemoteRefused if it does not allow that, UsageError where nobody computes.
    """
    if not isinstance(store, Purging):
        raise UsageError(
            f"{where} cannot purge: nobody computes there",
            "purge here, push to an empty place, and remove the old one",
        )
    commits = tuple((bytes(commit), bytes(snapshot)) for commit, snapshot in models)
    asked = PurgeRequest(commits, who, reason, dry_run)
    reply = store.purge(msgspec.msgpack.encode(asked))
    report = wire.parse(reply, PurgeReport, "a report of a purge")
    return msgspec.structs.replace(report, where=where)


def carry_out(home: Home, request: bytes, progress: Progress = SILENT) -> bytes:
    """Do what somebody else asked, if the settings allow it; returns the report.

    Raises RemoteRefused, UsageError, and as `repository.purging.purge`.
    """
    if not home.config.receive.allow_purge:
        raise RemoteRefused(
            "this repository lets nobody purge from afar",
            "mp config receive.allow_purge true there allows it to whoever may push",
        )
    try:
        asked = msgspec.msgpack.decode(request, type=PurgeRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"a request that cannot be read: {error}") from error
    if any(len(each) != ID_BYTES for pair in asked.commits for each in pair):
        raise UsageError("a request that cannot be read: not ids")
    models = [(ObjectId(commit), ObjectId(snapshot)) for commit, snapshot in asked.commits]
    for commit, snapshot in models:
        if home.objects.has(commit) and home.objects.commit(commit).snapshot != snapshot:
            raise UsageError(f"commit {commit.hex()[:12]} holds another model")
    report = purge(
        place_of(home),
        Purge(
            models=models,
            signature=home.signature(),
            reason=asked.reason,
            who=asked.who,
            dry_run=asked.dry_run,
        ),
        progress,
    )
    return msgspec.msgpack.encode(report)
