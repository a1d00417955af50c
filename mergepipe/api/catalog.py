"""What the planner knows of a repository: revisions, profiles, and where blocks are."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from mergepipe.catalog.profiles import Profiles
from mergepipe.checkpoints.small_files import read_stored_file
from mergepipe.engine.measuring import Measuring
from mergepipe.errors import MissingObject
from mergepipe.executors.workforce import Workforce
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.merging import Profile
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import Options, stored_encodings
from mergepipe.packs.id_arrays import Ids
from mergepipe.packs.only_ways import OnlyWays, only_ways
from mergepipe.packs.storage import Storage
from mergepipe.planner.planner import Revision
from mergepipe.plans.profile_views import Cited


class RepositoryCatalog(Struct, frozen=True):
    """A `planner.Catalog` over one repository.

    commit_for    resolves a revision, or imports a path
    make_profile  makes the profile of (snapshot, base) that is not known yet
    keep          makes a snapshot of stored tensors known to `objects`, with other contents of
                  some of its files
    hold          has gc keep an object that only a plan names, until the merge is done
    workforce     who measures what no profile holds
    """

    storage: Storage
    objects: ObjectStore
    profiles: Profiles
    commit_for: Callable[[str], ObjectId]
    make_profile: Callable[[ObjectId, ObjectId], tuple[ObjectId, Profile]]
    keep: Callable[[Snapshot, Mapping[str, bytes]], ObjectId]
    hold: Callable[[ObjectId], object]
    workforce: Workforce = field(default_factory=Workforce)

    @property
    def measure(self) -> Measuring:
        """Measures what no profile holds."""
        return Measuring(self.storage, self.workforce)

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        """The bytes of a file that holds no tensors; None if the snapshot has none of this path."""
        return read_stored_file(snapshot, path, self.objects, BlockReader(self.storage))

    def revision(self, text: str, /) -> Revision:
        """The snapshots of a revision (or an imported path) and of what it was trained from."""
        identity = self.commit_for(text)
        commit = self.objects.commit(identity)
        under = commit.trained_from or commit.leans_on
        if commit.profile is not None and under is not None:
            self._recall(commit.profile, commit.snapshot, self.objects.commit(under).snapshot)
        trained = commit.trained_from
        if trained is not None:
            trained = self.commit_for(trained.hex())
        base = None if trained is None else self.objects.commit(trained).snapshot
        return Revision(
            label=text,
            commit=identity,
            snapshot=commit.snapshot,
            base_commit=trained,
            base_snapshot=base,
        )

    def profile(self, snapshot: ObjectId, base: ObjectId, /) -> Cited:
        """The profile of a pair; made by reading both where none is known."""
        return self.known_profile(snapshot, base) or self.make_profile(snapshot, base)

    def known_profile(self, snapshot: ObjectId, base: ObjectId) -> Cited:
        """The profile of a pair, if it was made before."""
        known = self.profiles.find(snapshot, base)
        if known is None:
            return None
        self.hold(known)
        try:
            return known, self.profiles.load(known)
        except MissingObject:  # a gc took it meanwhile
            return None

    def _recall(self, profile: ObjectId, snapshot: ObjectId, base: ObjectId) -> None:
        """Know the profile that a commit cites: one that was fetched, or from before a new index.

        Making it again would read both models, in a lazy clone from far away.
        """
        if self.profiles.find(snapshot, base) is None and self.objects.has(profile):
            with suppress(MissingObject):  # a gc took it meanwhile
                cited = self.profiles.load(profile)
                if (cited.snapshot, cited.base) == (snapshot, base):
                    self.profiles.remember(profile, snapshot, base)

    def encodings(self, blocks: Iterable[BlockId], /) -> Options:
        """Every encoding of blocks and of what they lean on."""
        return stored_encodings(self.storage, blocks)

    def only_ways(self, ids: Ids, /) -> OnlyWays:
        """The encoding of each block that has one, by the index."""
        return only_ways(self.storage, ids)


def looks_like_path(text: str) -> bool:
    """Whether a user surely means a path: `./x`, `/x`, `~/x`; other texts may be revisions."""
    return text.startswith(("./", "../", "/", "~/")) or text in (".", "..")


def as_path(text: str) -> Path:
    """The path a user typed, with `~` expanded."""
    return Path(text).expanduser()
