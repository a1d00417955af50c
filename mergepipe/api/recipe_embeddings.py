"""What a recipe's stages make of stored weights before they are merged, and its tokenizers.

Embeddings are laid out in the rows of one tokenizer, and adapters applied: into a sink once all
models are stored, and not at all while a recipe is only looked at.
"""

from collections.abc import Sequence

from mergepipe.api.opened import OpenRepository
from mergepipe.api.recipe_models import RecipeModels
from mergepipe.checkpoints.adapted_tensors import Adaptation, store_adapted
from mergepipe.checkpoints.derived import Storing
from mergepipe.dtypes import dtype_of
from mergepipe.ids import ObjectId, digest
from mergepipe.packs.sink import Sink
from mergepipe.values import count_nonfinite
from mergepipe.vocabularies import RowMap, StoredTokenizer, lay_out

_FORETOLD = ObjectId(digest(b""))


class ForetoldEmbeddings:
    """Of a recipe that is only looked at: tokenizers, and ids that nobody looks up."""

    looks = True

    def __init__(self, models: RecipeModels) -> None:
        self._models = models

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        """The tokenizer of a model. Raises MalformedFile."""
        return self._models.tokenizer(snapshot, label)

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """An id for each model whose rows would move."""
        return tuple(None if map_ is None else _FORETOLD for map_ in maps)

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        """An id that is the same for the same adaptation."""
        return ObjectId(digest(repr(adaptation).encode()))

    def nonfinite(self, tensor: ObjectId, /) -> int:
        """Nothing is known yet: 0."""
        return 0


class StoredEmbeddings:
    """Of a recipe whose models are all stored: what is made goes into a sink.

    read_bytes  what that read from storage
    """

    looks = False

    def __init__(self, repository: OpenRepository, models: RecipeModels, sink: Sink) -> None:
        self.read_bytes = 0
        self._repository = repository
        self._models = models
        self._sink = sink
        self._made_nonfinite: dict[ObjectId, int] = {}

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        """The tokenizer of a model. Raises MalformedFile."""
        return self._models.tokenizer(snapshot, label)

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """Stored tensors in new rows (vocabularies.embeddings.lay_out)."""
        store = self._repository.config.store
        laid_out = lay_out(
            name,
            maps,
            tensors,
            base,
            objects=self._repository.objects,
            reader=self._repository.blocks,
            sink=self._sink,
            storing=Storing(store.codec, store.max_chain, self._repository.threads),
        )
        self.read_bytes += laid_out.read_bytes
        return laid_out.tensors

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        """A stored tensor as an adapter has it (checkpoints.adapted_tensors.store_adapted)."""
        store = self._repository.config.store
        adapted, read_bytes, nonfinite = store_adapted(
            adaptation,
            objects=self._repository.objects,
            reader=self._repository.blocks,
            sink=self._sink,
            storing=Storing(store.codec, store.max_chain, self._repository.threads),
            block_limit=store.block_size,
        )
        self.read_bytes += read_bytes
        self._made_nonfinite[adapted] = nonfinite
        return adapted

    def nonfinite(self, tensor: ObjectId, /) -> int:
        """How many values of a tensor are infinite or NaN: as counted when made, or by reading."""
        known = self._made_nonfinite.get(tensor)
        if known is not None:
            return known
        stored = self._repository.objects.tensor(tensor)
        dtype, blocks = dtype_of(stored.dtype), tuple(stored.block_ids())
        return sum(count_nonfinite(dtype, raw) for raw in self._repository.blocks.read(blocks))
