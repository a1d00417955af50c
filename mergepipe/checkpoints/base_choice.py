"""Which model a new one was trained from, and which its blocks lean on, where nobody says so."""

import contextlib
from collections.abc import Iterator, Sequence

from mergepipe.catalog.pairing import BaseTensors
from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.checkpoints.bases import best_match, named_here, pair_all
from mergepipe.checkpoints.export import read_out
from mergepipe.checkpoints.layout import Layout
from mergepipe.checkpoints.requests import CommitRequest
from mergepipe.errors import Corruption
from mergepipe.formats.model_card import CARD_BYTES, CARD_NAME, base_model_of
from mergepipe.formats.tree import read_start
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.records import Safetensors, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.repository.refs import RefStore


class BaseChoice:
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

    def before(self, layout: Layout) -> Sequence[Pair | None]:
        """The pairs with the version before, the branch's tip, where that is not the base itself.

        None for a model that nobody said what it was trained from: nothing reads it coarsely.
        """
        parent = self._parent()
        if parent is None or self.trained_from is None or self.base in (None, parent):
            return [None] * len(layout.tensors)
        return self._pairs(layout, parent)

    def stored_as(self, layout: Layout) -> Sequence[tuple[tuple[BlockId, ...], ...]]:
        """Blocks of each tensor as the base and the branch's tip have it, to be asked after."""
        commits = dict.fromkeys(one for one in (self.base, self._parent()) if one is not None)
        candidates: list[list[tuple[BlockId, ...]]] = [[] for _ in layout.tensors]
        for commit in commits:
            with contextlib.suppress(Corruption):
                snapshot = self._objects.snapshot(self._objects.commit(commit).snapshot)
                known = _tensors_of(snapshot)
                for number, tensor in enumerate(layout.tensors):
                    path = layout.files[tensor.file].source.path
                    identity = known.get((path, tensor.name))
                    if identity is not None:
                        candidates[number].append(tuple(self._objects.tensor(identity).block_ids()))
        return [tuple(dict.fromkeys(blocks)) for blocks in candidates]

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


def _tensors_of(snapshot: Snapshot) -> dict[tuple[str, str | None], ObjectId]:
    """Tensors by path and name; a header, or a file that holds none, has no name."""
    known: dict[tuple[str, str | None], ObjectId] = {
        (file.path, entry.name): entry.tensor for file, entry in snapshot.named_tensors()
    }
    for file in snapshot.files:
        content = file.content
        whole = content.header if isinstance(content, Safetensors) else content.data
        known[file.path, None] = ObjectId(whole)
    return known
