"""An open repository: its parts, its settings, and who acts in it."""

import datetime
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from mergepipe.api import settings
from mergepipe.api.identity import AUTHOR, check_author, identity
from mergepipe.api.workers import Workers
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.closing import Closing
from mergepipe.errors import (
    Corruption,
    DamagedConfig,
    MergepipeError,
    MissingObject,
    RevisionNotFound,
    UnsafeRepository,
    UsageError,
)
from mergepipe.ids import ObjectId, shown
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.index import Index
from mergepipe.packs.storage import Storage
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import config as configuration
from mergepipe.repository import (
    config_edits,
    config_values,
    layout,
    leases,
    locks,
    patience,
    relocation,
    revisions,
)
from mergepipe.repository.absent import DEEPEN, AbsentCommits, read_absent
from mergepipe.repository.dates import Clock
from mergepipe.repository.hooks import Hooks
from mergepipe.repository.operations import OperationLog
from mergepipe.repository.ownership import check_user
from mergepipe.repository.presence import has_snapshot, without_lost
from mergepipe.repository.pruned import read_lines
from mergepipe.repository.reflog import Reflog, Signature
from mergepipe.repository.refs import RefStore
from mergepipe.repository.tombstones import Tombstone, purged_error, read_stones

if TYPE_CHECKING:
    # What reads and writes checkpoints is loaded when it is needed: `mp log` answers at once.
    from mergepipe.catalog.finiteness import Finiteness
    from mergepipe.catalog.profiles import Profiles
    from mergepipe.catalog.suspects import Suspect
    from mergepipe.checkpoints.commits import Committer
    from mergepipe.checkpoints.worktree import Worktree
    from mergepipe.engine.transactions import Transactions
    from mergepipe.executors.segments import Executor, Place
    from mergepipe.executors.workforce import Workforce
    from mergepipe.transfer.credentials import Credentials
    from mergepipe.transfer.urls import RemoteUrl

_MOST_HOPS = 4

CredentialsFor: TypeAlias = "Callable[[Path], Credentials]"
"""Who we are to remotes, given the repository's directory; asked for when a remote is."""
Identity: TypeAlias = str | Signature | Callable[[str], Signature]
"""Who acts: by name, always the same, or as a function of the configured author says each time."""


class OpenRepository(Closing):
    """What every operation on a repository needs; `Repository` adds the operations."""

    def __init__(
        self,
        directory: Path,
        *,
        who: Identity | None = None,
        credentials: "CredentialsFor | None" = None,
        hops: int = 0,
    ) -> None:
        """`who` acts: `Ada <ada@example.org>` or `Ada`, as a person writes it. Raises UsageError.

        `credentials`: for a lazy clone's remote. `hops`: repositories behind which this one is.

        The remote of a lazy clone may be a lazy clone, but not for ever.
        """
        check_who(who)
        layout.check(directory)
        self.directory = directory
        self.config_damage: DamagedConfig | None = None
        """Why the settings are the defaults, and nothing is stored."""
        try:
            self.config = configuration.load(directory / layout.CONFIG)
        except DamagedConfig as error:  # no reason not to read models
            self.config, self.config_damage = configuration.Config(), error
        self.who = who
        self.credentials = credentials
        self._hops = hops
        self.workers = Workers(lambda: self.config.core)
        self._held: dict[ObjectId, leases.HeldLease] = {}
        self.local = LocalByteStore(directory)
        self.storage = self._open_storage(Index.of(directory, layout.INDEX))
        self.store = self.storage.store
        self.objects = ObjectStore(self.storage, absent=AbsentCommits(self.store))
        self.blocks = BlockReader(self.storage, self.explain_loss)
        self.refs = RefStore(
            self.store,
            lock=directory / layout.LOCK,
            lock_timeout_s=self.lock_timeout_s,
            reflog=Reflog(directory / layout.LOGS),
            guard=lambda: self.guard(),
        )
        self.operations = OperationLog(self.local)
        self.refs.operations = self.operations
        self.guard: Callable[[], None] = lambda: None
        """Asked before anything is written; it raises if it is not to be."""
        self.command = "python"
        """What runs, as leases and the log of operations call it."""
        self.environment: Mapping[str, str] | None = None
        """What hooks get; None: this process's."""
        self.imported_bytes = 0
        """Read to import experts given as paths, since the repository was opened."""
        self.profile_bytes = 0
        """Read to make profiles that were missing, since the repository was opened."""

    @classmethod
    def open(
        cls,
        path: str | Path = ".",
        *,
        who: Identity | None = None,
        credentials: "CredentialsFor | None" = None,
        any_owner: bool = False,
    ) -> Self:
        """The repository of `path` or of its nearest parent that has one. Raises NoRepository.

        `credentials` says who we are to the remote of a lazy clone, when it is asked. Another
        user's is read, and not written (UnsafeRepository), unless it is safe by MP_SAFE_DIRECTORY
        or the user's settings, or with `any_owner`.
        """
        opened = cls(layout.find(Path(path)), who=who, credentials=credentials)
        if not any_owner:
            opened.guard = lambda: check_user(opened.directory, os.environ)
        return opened

    @classmethod
    def init(
        cls,
        path: str | Path = ".",
        *,
        template: Path | None = None,
        block_size: int | None = None,
        shared: str | None = None,
        packs: Path | None = None,
        index: Path | None = None,
        who: Identity | None = None,
    ) -> Self:
        """Make a repository in `path`. `block_size` in bytes.

        `shared`: all of a unix group may write there; its name, or `group` for that of `path`.
        `packs`, `index`: directories of another disk where these are. Raises UsageError,
        ConfigError.
        """
        check_who(who)
        elsewhere = {relocation.PACKS: packs, relocation.INDEX: index}
        for target in elsewhere.values():
            if target is not None:
                relocation.check_target(Path(path).absolute() / layout.DIRECTORY, target)
        directory = layout.initialise(Path(path), template, block_size, shared)
        for setting, target in elsewhere.items():
            if target is not None:
                relocation.relocate(directory, setting, target)
        return cls(directory, who=who)

    def close(self) -> None:
        """Release files and workers, and what unfinished work left behind."""
        self.workers.close()
        for lease in self._held.values():
            lease.close()
        self._held.clear()
        self.storage.close()

    def _open_storage(self, index: Index) -> Storage:
        """The files of the repository; of a lazy clone, with what its remote has."""
        lazy = self.lazy_remote
        if lazy is None or self._hops > _MOST_HOPS:
            return Storage(self.local, index)
        from mergepipe.lazy.store import LazyByteStore

        store = LazyByteStore(self.local, self.open_lazy_remote, lazy)
        return Storage(store, index, promises=store)

    def open_lazy_remote(self) -> ByteStore:
        """The byte store that this clone leans on. Raises as `open_url`."""
        from mergepipe.transfer.credentials import Credentials

        name, url = self.remote_called(self.lazy_remote)
        given = Credentials() if self.credentials is None else self.credentials(self.directory)
        return open_url(url, given, name, who=self.who, hops=self._hops + 1)

    @property
    def lazy_remote(self) -> str | None:
        """The remote that this clone leans on, if it is lazy."""
        return next((name for name, settings in self.config.remote.items() if settings.lazy), None)

    def remote_called(self, wanted: str | None) -> "tuple[str, RemoteUrl]":
        """Name (empty if given as a URL) and URL of a remote; None: origin. Raises UsageError."""
        from mergepipe.transfer.remotes import find_remote

        # Relative paths begin in the folder that has `.mergepipe` in it.
        return find_remote(self.config.remote, wanted, self.directory.parent)

    @cached_property
    def worktree(self) -> "Worktree":
        """The model beside `.mergepipe`."""
        from mergepipe.checkpoints.worktree import Worktree

        return Worktree(self.directory, self.store)

    @property
    def finiteness(self) -> "Finiteness":
        """What is known of values that are not finite."""
        from mergepipe.catalog.finiteness import Finiteness

        return Finiteness(self.storage, self.objects)

    def suspects_of(self, commit: ObjectId) -> "tuple[Suspect, ...]":
        """Tensors of a commit's model that look wrong, as far as no weight is read for it."""
        from mergepipe.catalog.likeness import suspects_of_commit
        from mergepipe.catalog.norms import Squares

        record = self.objects.commit(commit)
        return suspects_of_commit(record, self.objects, self.profiles(), Squares(self.storage))

    @property
    def threads(self) -> int:
        """Threads that work on blocks."""
        return self.workers.threads

    @property
    def executor(self) -> "Executor":
        """Who does the work: as `on` says, else as the setting `core.executor` does."""
        return self.workers.executor

    @property
    def workforce(self) -> "Workforce":
        """Who does the work, and where others find the store."""
        from mergepipe.executors.workforce import Workforce

        return Workforce(self.executor, self.place)

    def on(self, executor: "str | Executor | None") -> "AbstractContextManager[Executor]":
        """Work there meanwhile: `threads`, `processes:N`, `ray` or `ray://HOST:PORT`.

        Workers start once for all that is done inside, and end with it; an executor that is given
        as such stays its owner's. None: whom the setting `core.executor` names. Raises UsageError.
        """
        return self.workers.on(executor)

    def place(self, writes: bool) -> "Place | None":
        """Where other processes find the repository's store; None: only here can it be read.

        A lazy clone's is read at its remote, and not written.
        """
        from mergepipe.executors.places import FilesPlace

        if self.store is not self.local:
            from mergepipe.engine.shared_places import reading_place

            if writes or self.lazy_remote is None:
                return None
            return reading_place(self.remote_called(self.lazy_remote)[1])
        path = str(self.directory.resolve())
        return FilesPlace(path, self.local.session) if writes else FilesPlace(path)

    def signature(self) -> Signature:
        """Who acts now: as given to `open`, else as `mp` takes it (docs/cli.md, MP_AUTHOR).

        Raises UsageError for a date in the environment that is none.
        """
        if isinstance(self.who, Signature):
            return self.who
        if isinstance(self.who, str):
            return identity({**os.environ, AUTHOR: self.who})("")
        if self.who is not None:
            return self.who(self.config.user.author)
        return identity(os.environ)(self.config.user.author)

    @property
    def hooks(self) -> Hooks:
        """The user's own programs that have a say in what changes here."""
        environment = os.environ if self.environment is None else self.environment
        return Hooks(self.directory, self.config.hooks.enabled, environment)

    def clock(self) -> Clock:
        """What `yesterday` is measured from."""
        who = self.signature()
        return Clock(who.time, who.utc_offset)

    def configure(self, key: str, value: str | None) -> None:
        """Set `key` in `config.toml` as `value` says, or with None back to its default.

        Raises ConfigError, UsageError (a URL that no remote can have), Locked.
        """
        if value is not None and key.startswith("remote.") and key.endswith(".url"):
            from mergepipe.transfer.remotes import check_remote_url

            check_remote_url(value)
        self.edit_config(
            lambda text: (
                config_edits.without_value(text, key)
                if value is None
                else config_edits.with_value(text, key, value)
            )
        )
        if key == "core.shared":
            settings.share(self.directory, self.config.core.shared == config_values.SHARED)

    def elsewhere(self) -> dict[str, str]:
        """Directories of other disks that hold packs and index, by setting; empty for neither."""
        return settings.elsewhere(self.directory)

    @staticmethod
    def relocate(
        path: str | Path,
        setting: str,
        target: str | Path | None,
        *,
        progress: Progress = SILENT,
    ) -> None:
        """Have packs (`store.packs`) or index (`store.index`) in a directory of another disk.

        Of the repository that `open` would find, which nobody may have open to write. None: in the
        repository's own directory again. Raises as `repository.relocation.relocate`.
        """
        settings.relocate(Path(path), setting, None if target is None else Path(target), progress)

    def edit_config(self, edit: Callable[[str], str]) -> None:
        """Replace the text of `config.toml` by what `edit` makes of it. Raises ConfigError."""
        path = self.directory / layout.CONFIG
        with self.refs.locked():
            text = configuration.read_text(path)
            self.store.put(layout.CONFIG, edit(config_edits.with_format(text)).encode())
            self.config = configuration.load(path)

    def resolve(self, revision: str) -> ObjectId:
        """The commit a revision names. Raises RevisionNotFound (Purged), AmbiguousRevision."""
        try:
            return shown(revisions.resolve(revision, self.refs, self.objects, clock=self.clock()))
        except revisions.HistoryEnds as error:
            if not read_absent(self.store):
                raise
            raise revisions.HistoryEnds(
                error.message, f"this clone is shallow, and history goes on elsewhere: {DEEPEN}"
            ) from None
        except RevisionNotFound:
            # Its place in history may be gone, too; what was said of it stays.
            stone = read_stones(self.store)[0].with_prefix(revision)
            if stone is None:
                raise
            raise purged_error(stone) from None

    def commit_of(self, revision: str) -> tuple[ObjectId, Commit]:
        """The commit a revision names, with its id."""
        identity = self.resolve(revision)
        return identity, self.objects.commit(identity)

    def author_of(self, commit: str) -> str:
        """Who made the commit of an id in hex; nothing for one that is not here."""
        with suppress(Corruption, ValueError):
            return self.objects.commit(ObjectId(bytes.fromhex(commit))).author
        return ""

    def model_of(self, revision: str) -> tuple[ObjectId, Commit]:
        """`commit_of`, for who wants its model. Raises RevisionNotFound for one that was pruned."""
        identity = self.resolve(revision)
        return identity, self.model_at(identity, revision)

    def model_at(self, identity: ObjectId, name: str = "") -> Commit:
        """The same by id, which messages call `name`. Raises Purged, RevisionNotFound."""
        commit = self.objects.commit(identity)
        called = identity.hex()[:12] if name in ("", identity.hex()) else name
        self.refuse_purged(identity, f"the model of {called}")
        if self.was_pruned(identity) and not has_snapshot(self.storage, commit.snapshot):
            raise self.pruned_error(identity, f"the model of {called}")
        return commit

    def merge_of(self, revision: str) -> tuple[Commit, ObjectId | None]:
        """A revision's commit and its manifest, if it is a merge; raises as `model_of`."""
        identity, commit = self.model_of(revision)
        if self.was_pruned(identity):
            kept = without_lost(self.objects, commit)
            if kept.manifest != commit.manifest:
                raise self.pruned_error(identity, f"what {revision} was merged of")
        return commit, commit.manifest

    def to_copy(self, revision: str) -> tuple[ObjectId, Commit]:
        """`model_of`, for a new commit of the same model: it names only what is here."""
        identity, commit = self.model_of(revision)
        return identity, without_lost(self.objects, commit) if self.was_pruned(identity) else commit

    def has_model(self, identity: ObjectId) -> bool:
        """Whether a commit's model is kept here, or at least there still."""
        if self.tombstone_of(identity) is not None:
            return False
        return not self.was_pruned(identity) or has_snapshot(
            self.storage, self.objects.commit(identity).snapshot
        )

    def tombstone_of(self, identity: ObjectId) -> Tombstone | None:
        """What is said of a commit whose model was purged, under this or another commit."""
        stones = read_stones(self.store)[0]
        return stones.of(identity, self.objects.commit(identity).snapshot) if stones else None

    def refuse_purged(self, identity: ObjectId, what: str) -> None:
        """Raise Purged for a commit whose model was purged; `what` names it."""
        stone = self.tombstone_of(identity)
        if stone is not None:
            raise purged_error(stone, what)

    def was_pruned(self, identity: ObjectId) -> bool:
        """Whether the repository says that it does not keep a commit's model."""
        return identity in read_lines(self.store)[0]

    def pruned_error(self, identity: ObjectId, what: str) -> RevisionNotFound:
        """What to tell of a commit that was pruned."""
        when = read_lines(self.store)[0].times.get(identity, 0)
        with suppress(OverflowError, ValueError, OSError):  # a damaged clock's time
            day = datetime.datetime.fromtimestamp(when, datetime.UTC).date()
            what = f"{what} was pruned on {day}"
        return RevisionNotFound(
            f"{what}: its place in history is here, its weights are not",
            "a remote that keeps them has them: mp clone it elsewhere; mp log shows the rest",
        )

    def explain_loss(self, error: MissingObject) -> MergepipeError:
        """What to tell of a block that is nowhere; `Repository` asks a lazy clone's remote."""
        return error

    def profiles(self) -> "Profiles":
        """The statistics of pairs of snapshots."""
        from mergepipe.catalog.profiles import Profiles

        return Profiles(self.storage, self.objects, self.blocks, self.workforce)

    def committer(self) -> "Committer":
        """What stores files as commits; `writing` must be held meanwhile."""
        from mergepipe.checkpoints.commits import Committer

        return Committer(
            storage=self.storage,
            objects=self.objects,
            reader=self.blocks,
            refs=self.refs,
            profiles=self.profiles(),
            config=self.config,
            workforce=self.workforce,
            files=self.local,
        )

    @property
    def lock_timeout_s(self) -> float:
        """How long to wait for other processes. Raises UsageError for an environment that errs."""
        return patience.lock_timeout_s(self.config, os.environ)

    @property
    def transactions(self) -> "Transactions":
        """How an `Engine` writes and publishes here."""
        from mergepipe.engine.transactions import Transactions

        return Transactions(
            files=self.local,
            storage=self.storage,
            objects=self.objects,
            refs=self.refs,
            store_lock=self.directory / layout.STORE_LOCK,
            lock_timeout_s=self.lock_timeout_s,
            signature=self.signature,
            guard=self.guard,
            lease=self.lease,
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off gc while blocks are written that nothing names yet.

        Raises DamagedConfig: blocks cut by other settings would be no other's again.
        """
        if self.config_damage is not None:
            raise self.config_damage
        self.guard()
        self.local.remove_dead_sessions()
        lock = self.directory / layout.STORE_LOCK
        with (
            locks.acquire(lock, shared=True, timeout_s=self.lock_timeout_s),
            self.lease(),
        ):
            yield

    def lease(self, *needs: ObjectId) -> leases.HeldLease:
        """Tell others that we work here, and gc to keep the commits that are read meanwhile."""
        try:
            self.guard()
        except UnsafeRepository:  # nothing is written there
            return leases.HeldLease()
        return leases.take(self.directory, self.command, time.time(), needs)

    def hold(self, identity: ObjectId) -> None:
        """Have gc keep an object that nothing names yet, a plan's, until this is closed.

        Waits for a gc that runs, which has asked already what is needed. Nothing is held where
        nothing may be written. Raises Locked.
        """
        if identity not in self._held:
            with suppress(UnsafeRepository, DamagedConfig), self.writing():
                self._held[identity] = self.lease(identity)

    def let_go(self, identities: Iterable[ObjectId]) -> None:
        """Take back `hold`: a commit names what these are needed for, and gc goes by that.

        Else a process that merges every day would keep the statistics of all its days.
        """
        for each in identities:
            lease = self._held.pop(each, None)
            if lease is not None:
                lease.close()


def check_who(who: object) -> None:
    """Raise UsageError for what says of nobody who acts, before anything is done in its name."""
    if who is None or callable(who):
        return
    author = who.author if isinstance(who, Signature) else who
    if not isinstance(author, str):
        raise UsageError(
            f"who acts is given as text, not as {type(author).__name__}",
            'who="Ada Lovelace <ada@example.org>", or "Ada" alone',
        )
    check_author(author)


def open_url(
    url: "RemoteUrl",
    credentials: "Credentials",
    name: str = "",
    *,
    who: Identity | None = None,
    hops: int = 0,
) -> ByteStore:
    """The byte store at a URL; `who` signs what is pushed to a repository of this machine."""
    from mergepipe.transfer.connect import connect

    def open_home(path: Path) -> OpenRepository:
        theirs = credentials.abroad()
        home = OpenRepository(path, who=who, credentials=lambda _: theirs, hops=hops)
        # Whose URL it is, the user's or one that a config brought, cannot be told here.
        home.guard = lambda: check_user(home.directory, os.environ)
        return home

    return connect(url, credentials, name, open_home=open_home)
