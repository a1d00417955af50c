"""What a purge did, as one record: what is shown, signed and sent by a remote."""

import msgspec


class PurgedCommit(msgspec.Struct, frozen=True):
    """A commit whose model was purged; its place in history stays. Ids in hex."""

    commit: str
    snapshot: str
    message: str


class MovedRef(msgspec.Struct, frozen=True):
    """A ref that stood at a purged commit. `new` None: it was removed."""

    name: str
    old: str
    new: str | None


class SharedBlocks(msgspec.Struct, frozen=True):
    """A model that is kept, and so keeps blocks that it has in common with the purged ones."""

    commit: str
    snapshot: str
    message: str
    merged: bool
    blocks: int
    raw_bytes: int


class PurgeReport(msgspec.Struct, frozen=True):
    """One repository's part. Sizes in bytes, times in Unix seconds, ids in hex.

    where            the directory, or the remote's name and URL
    blocks, raw_bytes            of the models, shared ones included
    own_blocks, own_raw_bytes    that no model which is kept holds: gone
    own_stored_bytes             what records of these took in packs
    own_block_ids                them by id, sorted
    packs                        that held any, and are gone: rewritten without them, or removed
    reencoded_blocks, reencoded_bytes  blocks of kept models that leaned on them, stored again
    profiles, runs, leftovers    statistics, notes of merges, and packs beside the store, removed
    shared                       who keeps other blocks of the models
    merges                       commits made of the models: their manifests keep its ids
    worktree                     its files lie beside the repository still
    remotes                      that had it when they were last seen, and were not asked
    """

    where: str
    time: int
    who: str
    reason: str
    dry_run: bool
    commits: tuple[PurgedCommit, ...]
    refs: tuple[MovedRef, ...]
    tensors: int
    blocks: int
    raw_bytes: int
    own_blocks: int
    own_raw_bytes: int
    own_stored_bytes: int
    own_block_ids: tuple[str, ...]
    packs: tuple[str, ...]
    reencoded_blocks: int
    reencoded_bytes: int
    freed_bytes: int
    profiles: tuple[str, ...]
    runs: tuple[str, ...]
    leftovers: tuple[str, ...]
    shared: tuple[SharedBlocks, ...]
    merges: tuple[PurgedCommit, ...]
    worktree: bool
    remotes: tuple[str, ...]


class PurgeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What another repository is asked to purge: commits, and the snapshot of each."""

    commits: tuple[tuple[bytes, bytes], ...]
    who: str
    reason: str
    dry_run: bool
