"""Committing files: sources to blocks, blocks to a snapshot, a snapshot to history."""

from collections.abc import Iterator, Sequence

from mergepipe.catalog.finiteness import Finiteness
from mergepipe.catalog.pairing import BaseTensors
from mergepipe.catalog.pairs import Pair
from mergepipe.catalog.profiles import Profiles
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.checkpoints.bases import best_match, named_here, pair_all
from mergepipe.checkpoints.deltas import DeltaEncoder
from mergepipe.checkpoints.export import read_out
from mergepipe.checkpoints.ingest import Ingested, ingest
from mergepipe.checkpoints.layout import Layout
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.checkpoints.requests import CommitRequest, CommitResult
from mergepipe.errors import Corruption, NothingToCommit, RefMoved
from mergepipe.formats.model_card import CARD_BYTES, CARD_NAME, base_model_of
from mergepipe.formats.tree import SourceFile, read_start
from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.presence import Presence
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.parallel import core_count
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
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._reader = reader
        self._refs = refs
        self._profiles = profiles
        self._config = config

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
        choice = _BaseChoice(self._objects, self._reader, self._refs, request)
        store = self._config.store
        presence = Presence(self._storage)
        encoder = DeltaEncoder(
            self._reader,
            presence,
            effort=store.codec,
            max_chain=store.max_chain,
            pair_up=choice.pair_up,
        )
        with Transaction(self._storage, presence=presence) as transaction:
            ingested = ingest(
                sources,
                transaction,
                encoder,
                block_size=store.block_size,
                threads=core_count(self._config.core.threads),
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
        if published.unchanged:
            kept = self._objects.commit(published.commit)
            leans_on, trained = kept.leans_on, kept.trained_from
        elif profile is not None and (under := trained or leans_on) is not None:
            snapshot = self._objects.commit(under).snapshot
            self._profiles.remember(profile, ingested.snapshot, snapshot)
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
        )

    def _known_counts(
        self, request: CommitRequest, finiteness: Finiteness
    ) -> dict[ObjectId, int] | None:
        """Values of kept files that are not finite, by tensor; None: they were not counted yet."""
        if not request.kept_files or request.kept is None or request.kept.tip is None:
            return {}
        return finiteness.find(self._objects.commit(request.kept.tip).snapshot)

    def _holds(self, tip: ObjectId, snapshot: ObjectId, base: ObjectId | None) -> bool:
        """Whether a commit holds this model already, and says of it what is said now."""
        commit = self._objects.commit(tip)
        if commit.snapshot != snapshot or tip in read_lines(self._storage.store)[0]:
            return False
        return base in (None, tip, commit.trained_from)

    def _lean(
        self,
        choice: "_BaseChoice",
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


class _BaseChoice:
    """What a new model was trained from, and what its blocks lean on: two things.

    trained_from  as asked, else as the tip of its branch, else as its model card says; else None.
                  Likeness never decides it: of siblings without their base, one would be it
    base          what the blocks lean on: the same, else the tip, else what is most like it
    """

    def __init__(
        self, objects: ObjectStore, reader: BlockReader, refs: RefStore, request: CommitRequest
    ) -> None:
        self._objects = objects
        self._reader = reader
        self._refs = refs
        self._request = request
        self.base: ObjectId | None = None
        self.trained_from: ObjectId | None = None
        self.keeps = bool(request.kept_files)
        """Whether the new model is the old one but for some files: then it is near its base."""

    def pair_up(self, layout: Layout) -> Sequence[Pair | None]:
        """The pairs of a layout's tensors with the base's, once the base is chosen."""
        parent = self._parent()
        inherited = self._inherited(parent)
        named = self._request.base or inherited or self._carded(layout)
        if named is not None:
            pairs = self._pairs(layout, named)
            if self._request.base is not None or self._is_near(layout, pairs):
                self.trained_from = self.base = named
                return pairs
        if self.keeps:
            self.trained_from = inherited  # of the weights that stay, whatever comes beside them
        for base in self._stored_near(layout, parent):
            pairs = self._pairs(layout, base)
            if self._is_near(layout, pairs):
                self.base = base
                return pairs
        return [None] * len(layout.tensors)

    def _is_near(self, layout: Layout, pairs: Sequence[Pair | None]) -> bool:
        """Whether files with these pairs are to lean on a model.

        Where most of the model stays as it is, a config that has a counterpart says nothing of new
        weights; and files without weights come to lie near whatever is there.
        """
        if not self.keeps:
            return any(pairs)
        weights = [
            pair
            for tensor, pair in zip(layout.tensors, pairs, strict=True)
            if tensor.name is not None
        ]
        return any(weights) or not weights

    def _stored_near(self, layout: Layout, parent: ObjectId | None) -> Iterator[ObjectId]:
        """Commits to lean on where nobody named one, the likeliest first."""
        if parent is not None:
            yield parent
            if not self.keeps:
                return
            under = self._objects.commit(parent).leans_on
            if under is not None:  # what the shards lean on that came before this one
                yield under
        if (best := self._best(layout)) is not None:
            yield best

    def _pairs(self, layout: Layout, base: ObjectId) -> Sequence[Pair | None]:
        try:
            snapshot = self._objects.snapshot(self._objects.commit(base).snapshot)
            return pair_all(layout, BaseTensors(snapshot, self._objects))
        except Corruption:
            return [None] * len(layout.tensors)  # nothing new leans on a model that is damaged

    def _parent(self) -> ObjectId | None:
        head = self._refs.head()
        branch = self._request.branch or head.branch
        return head.commit if branch is None else self._refs.read(branch)

    def _inherited(self, parent: ObjectId | None) -> ObjectId | None:
        return None if parent is None else self._objects.commit(parent).trained_from

    def _carded(self, layout: Layout) -> ObjectId | None:
        """The commit that the model card names, if one name here stands for it."""
        start = self._card(layout)
        name = None if start is None else base_model_of(start)
        return None if name is None else named_here(name, self._refs, self._objects)

    def _card(self, layout: Layout) -> bytes | None:
        """The start of the model card, new or kept."""
        for file in layout.files:
            if file.source.path == CARD_NAME:
                return read_start(file.source, CARD_BYTES)
        for entry in self._request.kept_files:
            if entry.path == CARD_NAME:
                plan = plan_file(entry, self._objects)
                return bytes(next(read_out(plan, self._reader), b""))[:CARD_BYTES]
        return None

    def _best(self, layout: Layout) -> ObjectId | None:
        commits: dict[ObjectId, ObjectId] = {}  # one for each snapshot, however many refs it has
        for tip in dict.fromkeys(self._refs.list("refs/").values()):
            commits.setdefault(self._objects.commit(tip).snapshot, tip)
        candidates = [(tip, snapshot) for snapshot, tip in commits.items()]
        return best_match(layout, candidates, self._objects, self._reader)
