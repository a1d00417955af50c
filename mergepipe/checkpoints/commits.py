"""Committing files: sources to blocks, blocks to a snapshot, a snapshot to history."""

from collections.abc import Sequence

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.catalog.finiteness import Finiteness
from mergepipe.catalog.norms import Squares
from mergepipe.catalog.profiles import Profiles
from mergepipe.checkpoints.base_choice import BaseChoice
from mergepipe.checkpoints.delta_coding import IngestJob
from mergepipe.checkpoints.deltas import DeltaEncoder
from mergepipe.checkpoints.ingest import Ingest, Ingested, ingest
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.checkpoints.requests import CommitRequest, CommitResult
from mergepipe.errors import Corruption, NothingToCommit, RefMoved
from mergepipe.executors.workforce import Workforce
from mergepipe.formats.tree import SourceFile
from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.presence import Presence
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import Progress
from mergepipe.repository.config import Config
from mergepipe.repository.presence import without_lost
from mergepipe.repository.pruned import read_lines
from mergepipe.repository.refs import RefStore


class Committer:
    """Stores files as commits of one repository. The caller holds the store's lock, shared."""

    def __init__(
        self,
        *,
        storage: Storage,
        objects: ObjectStore,
        reader: BlockReader,
        refs: RefStore,
        profiles: Profiles,
        config: Config,
        workforce: Workforce,
        files: LocalByteStore,
    ) -> None:
        """`files`: the repository's, as workers on this machine's disks see them."""
        self._storage = storage
        self._objects = objects
        self._reader = reader
        self._refs = refs
        self._profiles = profiles
        self._config = config
        self._workforce = workforce
        self._files = files

    def commit(
        self, sources: Sequence[SourceFile], request: CommitRequest, progress: Progress
    ) -> CommitResult:
        """Store files as a commit on a branch.

        Raises NothingToCommit without files, and what `ingest` and `publish_commit` raise; the
        repository is then as it was.
        """
        if not sources and not request.kept_files:
            raise NothingToCommit(
                "there are no files to commit",
                "name the directory of a model that has some, and that .mpignore leaves some of",
            )
        choice = BaseChoice(self._objects, self._reader, self._refs, request)
        store = self._config.store
        presence = Presence(self._storage)
        encoder = DeltaEncoder(
            self._reader,
            presence,
            effort=store.codec,
            max_chain=store.max_chain,
            pair_up=choice.pair_up,
            before=choice.before,
            stored_as=choice.stored_as if self._workforce.is_elsewhere(writes=True) else None,
        )
        with Transaction(self._storage, presence=presence) as transaction:
            ingested = ingest(
                sources,
                transaction,
                encoder,
                Ingest(
                    self._workforce,
                    self._storage.store,
                    self._files,
                    transaction.holds,
                    IngestJob(store.codec),
                ),
                block_size=store.block_size,
                progress=progress,
                kept=request.kept_files,
            )
            trained = choice.trained_from
            leans_on, profile = self._lean(choice, ingested, encoder, transaction)

            def make(tip: ObjectId | None) -> Commit | None:
                if request.kept is not None and tip != request.kept.tip:
                    raise RefMoved("the branch moved while files were being stored")
                if tip is not None and self._holds(tip, ingested.snapshot, request.base):
                    return None
                return Commit(
                    snapshot=ingested.snapshot,
                    parents=() if tip is None else (tip,),
                    leans_on=leans_on,
                    author=request.who.author,
                    time=request.who.time,
                    utc_offset=request.who.utc_offset,
                    message=request.message,
                    profile=profile,
                    trained_from=trained,
                )

            why = "commit" if not request.message else f"commit: {request.message.splitlines()[0]}"
            published = publish_commit(
                transaction, self._refs, request.branch, make, who=request.who, why=why
            )
            stored, new = transaction.stored_bytes, transaction.new_blocks
        finiteness = Finiteness(self._storage, self._objects)
        counts = dict(zip(ingested.tensors, ingested.nonfinite, strict=True))
        known = self._known_counts(request, finiteness)
        if known is not None:
            finiteness.remember(ingested.snapshot, known | counts)
        squares = Squares(self._storage)
        of_new = dict(zip(ingested.tensors, ingested.squares, strict=True))
        of_kept = self._known_squares(request, squares)
        if of_kept is not None:
            squares.remember(ingested.snapshot, of_kept | of_new)
        if published.unchanged:
            kept = self._objects.commit(published.commit)
            leans_on, trained = kept.leans_on, kept.trained_from
        elif profile is not None and (under := trained or leans_on) is not None:
            snapshot = self._objects.commit(under).snapshot
            self._profiles.remember(profile, ingested.snapshot, snapshot)
        from mergepipe.catalog.likeness import suspects_of_commit  # numpy

        commit = self._objects.commit(published.commit)
        suspects = suspects_of_commit(commit, self._objects, self._profiles, squares)
        return CommitResult(
            commit=published.commit,
            snapshot=ingested.snapshot,
            branch=published.branch,
            base=leans_on,
            raw_bytes=ingested.raw_bytes,
            stored_bytes=stored,
            blocks=ingested.blocks,
            new_blocks=new,
            unchanged=published.unchanged,
            trained_from=trained,
            nonfinite=finiteness.named(ingested.snapshot) or (),
            suspects=suspects,
        )

    def _known_counts(
        self, request: CommitRequest, finiteness: Finiteness
    ) -> dict[ObjectId, int] | None:
        """Values of kept files that are not finite, by tensor; None: they were not counted yet."""
        if not request.kept_files or request.kept is None or request.kept.tip is None:
            return {}
        return finiteness.find(self._objects.commit(request.kept.tip).snapshot)

    def _known_squares(
        self, request: CommitRequest, squares: Squares
    ) -> dict[ObjectId, float] | None:
        """Of the tensors of kept files; None: nobody noted them."""
        if not request.kept_files or request.kept is None or request.kept.tip is None:
            return {}
        return squares.find(self._objects.commit(request.kept.tip).snapshot)

    def _holds(self, tip: ObjectId, snapshot: ObjectId, base: ObjectId | None) -> bool:
        """Whether a commit holds this model already, and says of it what is said now."""
        commit = self._objects.commit(tip)
        if commit.snapshot != snapshot or tip in read_lines(self._storage.store)[0]:
            return False
        return base in (None, tip, commit.trained_from)

    def _lean(
        self,
        choice: "BaseChoice",
        made: Ingested,
        encoder: DeltaEncoder,
        transaction: Transaction,
    ) -> tuple[ObjectId | None, ObjectId | None]:
        """What to lean on, and the profile against it, completed from stored blocks."""
        base = choice.base
        if base is None:
            return None, None
        if choice.keeps:
            return base, None  # of the whole model it is made when it is first needed
        commit = self._objects.commit(base)
        if commit.snapshot == made.snapshot:
            # A copy leans on what the original leans on. Its profile would be of another pair where
            # it was trained from something else.
            same = choice.trained_from == commit.trained_from
            return commit.leans_on, without_lost(self._objects, commit).profile if same else None
        if self._config.store.codec == "raw":
            return base, None  # speed was asked for: the profile is made when it is first needed
        missing = list(encoder.profile.missing())
        if missing:
            known = self._profiles.find(made.snapshot, commit.snapshot)
            if known is not None:
                return base, known
            places = [(tensor, index, made.block_ids[tensor][index]) for tensor, index in missing]
            try:
                self._profiles.fill(encoder.profile, places)
            except Corruption:
                return base, None  # the base is damaged; the profile is made when it is whole
        profile = encoder.profile.finish(made.snapshot, commit.snapshot, made.tensors)
        return base, transaction.add_object(encode(profile))
