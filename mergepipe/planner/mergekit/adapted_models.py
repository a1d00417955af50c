"""What an adapter makes of a model: tensors with a low-rank change on them, or made of it first.

A plain LoRA stays factors until a block is merged. What is no sum with a low-rank change is a
tensor of its own, which is made once the recipe fits: DoRA, biases of factors, rows of tokens.
"""

from collections.abc import Iterator
from dataclasses import replace

from mergepipe.checkpoints.adapted_tensors import Adaptation, Lengths
from mergepipe.dtypes import dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.adapter_config import ADAPTER_CONFIG
from mergepipe.formats.adapters import (
    Adapter,
    BiasChange,
    LowRankChange,
    TrainedRows,
    read_adapter,
)
from mergepipe.formats.weight_files import TOP, sort_weight_files
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.merging import LowRank
from mergepipe.objects.records import Safetensors, Snapshot
from mergepipe.planner.adapter_directories import check_adapter
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.schema import ModelName
from mergepipe.planner.mergekit.shared_embeddings import set_apart, shared_head
from mergepipe.planner.mergekit.shelf import Shelf
from mergepipe.planner.mergekit.stage_vocabulary import Embeddings
from mergepipe.plans.left_out import Kind, LeftOut
from mergepipe.vocabularies import row_map


class AdaptedModels:
    """Reads adapters for models, each tensor that has to be made first made once.

    made      whether any had to be
    left_out  of the adapters' files, what is no part of them
    """

    def __init__(self, shelf: Shelf, embeddings: Embeddings) -> None:
        self.left_out: list[LeftOut] = []
        self._shelf = shelf
        self._embeddings = embeddings
        self._made: dict[Adaptation | tuple[object, ...], ObjectId] = {}

    @property
    def made(self) -> bool:
        """Whether tensors had to be made."""
        return bool(self._made)

    def changed(self, model: Inventory, name: ModelName) -> dict[str, Held]:
        """The tensors of a model that an adapter changes or replaces, with the change on them.

        Raises MergeInputError for an adapter that is none, or does not fit.
        """
        label = str(name)
        place, snapshot = self._shelf.snapshot(name)
        settings = self._shelf.read_file(snapshot, ADAPTER_CONFIG)
        if settings is None:
            raise MergeInputError(
                f"{quoted(label)} is no adapter: it has no {ADAPTER_CONFIG}",
                "model+adapter names a LoRA in the layout of PEFT",
            )
        check_adapter(snapshot, label)
        stored = dict(self._listed(snapshot, label))
        weights = dict(model.tensors)
        head = shared_head(model)
        if head is not None and model.tied_head is not None:
            weights[head] = model.tensors[model.tied_head]
        adapter = read_adapter(
            settings,
            {tensor: self._shelf.tensors[stored_as].shape for tensor, stored_as in stored.items()},
            {tensor: held.shape for tensor, held in weights.items()},
            label,
            model.config,
        )
        changing = _Changing(weights, stored, place, label, self)
        changed = changing.run(adapter)
        if head is not None and adapter.keeps_tied:
            changed.pop(head, None)
        elif head is not None and not self._tied_rows(model, adapter, head, label):
            set_apart(model, changed, head, label)
        return changed

    def make(self, label: str, name: str, adaptation: Adaptation) -> ObjectId:
        """A tensor `name` that has to be made for the adapter `label`, once.

        Raises MergeInputError for one with values that are not finite: of what is made here nobody
        knows it from when the models were committed.
        """
        adapted = self._made.get(adaptation)
        if adapted is None:
            adapted = self._made[adaptation] = self._embeddings.adapt(adaptation)
            self._check_finite(label, name, adapted)
        return adapted

    def with_rows(
        self, label: str, name: str, tensor: ObjectId, rows: ObjectId, places: tuple[int, ...]
    ) -> ObjectId:
        """A tensor with rows of another one at some places; as `make`."""
        key = tensor, rows, places
        adapted = self._made.get(key)
        if adapted is None:
            self._check_finite(label, name, rows)
            new = {place: number for number, place in enumerate(places)}
            count = self._shelf.tensors[tensor].shape[0]
            map_ = row_map([(1, new[row]) if row in new else (0, row) for row in range(count)])
            adapted, _ = self._embeddings.lay_out(name, [map_, None], [tensor, rows], None)
            assert adapted is not None
            self._made[key] = adapted
        return adapted

    def _check_finite(self, label: str, name: str, made: ObjectId) -> None:
        if count := self._embeddings.nonfinite(made):
            raise MergeInputError(
                f"the adapter {quoted(label)} makes {count:,} values of {quoted(name)} that are "
                "not finite (NaN or infinite)",
                "a DoRA has no direction to give to rows of zeros, and factors may overflow: mend "
                "the adapter, or merge another checkpoint of its training",
            )

    def dtype(self, identity: ObjectId) -> str:
        """What a stored tensor is in."""
        return self._shelf.tensors[identity].dtype

    def shape(self, identity: ObjectId) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        return self._shelf.tensors[identity].shape

    def _tied_rows(self, model: Inventory, adapter: Adapter, head: str, label: str) -> bool:
        """Whether rows of shared embeddings were trained for both uses, as PEFT does it."""
        embeddings = model.tied_head
        if embeddings not in adapter.rows:
            return False
        if head in adapter.changes or head in adapter.replaced:
            raise MergeInputError(
                f"the adapter {quoted(label)} changes {quoted(head)}, and rows of "
                f"{quoted(embeddings or '')}, which the model shares with it",
                "merge it into its model with peft (merge_and_unload), and commit the result",
            )
        return head not in adapter.rows

    def _listed(self, snapshot: Snapshot, label: str) -> Iterator[tuple[str, ObjectId]]:
        """The adapter's own tensors, and not those of checkpoints or adapters beside it."""
        held = {
            file.path: file.content.tensors
            for file in snapshot.files
            if isinstance(file.content, Safetensors)
        }
        by_component = sort_weight_files(
            {path: [entry.name for entry in entries] for path, entries in held.items()},
            {file.path for file in snapshot.files},
            lambda path: self._shelf.read_file(snapshot, path),
        )
        component_paths = by_component.components.get(TOP, ())
        for reason, paths in by_component.left_out_by_reason.items():
            self.left_out.append(LeftOut(Kind.WEIGHT_FILES, label, tuple(paths), reason))
        others = [
            path
            for path in held
            if path not in component_paths and path not in by_component.left_out
        ]
        if others:
            reason = "another adapter, or a model beside it"
            self.left_out.append(LeftOut(Kind.WEIGHT_FILES, label, tuple(others), reason))
        for path in component_paths:
            for entry in held[path]:
                yield entry.name, entry.tensor


class _Changing:
    """Tensors of one model being changed by one adapter.

    weights  of the model, a head that it shares among them
    stored   the adapter's own tensors, by name; `place` is the adapter's among the merge's models
    """

    def __init__(
        self,
        weights: dict[str, Held],
        stored: dict[str, ObjectId],
        place: int,
        label: str,
        maker: AdaptedModels,
    ) -> None:
        self._weights = weights
        self._stored = stored
        self._place = place
        self._label = label
        self._maker = maker
        self._changed: dict[str, Held] = {}

    def run(self, adapter: Adapter) -> dict[str, Held]:
        for tensor, replacement in adapter.replaced.items():
            identity = self._stored[replacement]
            dtype = dtype_of(self._maker.dtype(identity))
            shape = self._maker.shape(identity)
            self._changed[tensor] = Held(
                source=identity, like=identity, shape=shape, dtype=dtype, model=self._place
            )
        for tensor, change in adapter.changes.items():
            under = self._under(tensor)
            factors = LowRank(
                self._stored[change.up], self._stored[change.down], change.scale, change.transposed
            )
            if change.magnitude is None:
                result = replace(under, factors=factors, adapter=self._place)
            else:
                result = self._dora(tensor, under, factors, change, change.magnitude)
            self._changed[tensor] = result
        for tensor, bias in adapter.biases.items():
            self._changed[tensor] = self._bias(tensor, self._under(tensor), bias)
        for tensor, rows in adapter.rows.items():
            self._changed[tensor] = self._with_rows(tensor, self._under(tensor), rows)
        return self._changed

    def _under(self, tensor: str) -> Held:
        return self._changed.get(tensor, self._weights[tensor])

    def _dora(
        self, tensor: str, under: Held, factors: LowRank, change: LowRankChange, magnitude: str
    ) -> Held:
        lengths = Lengths(self._stored[magnitude], change.transposed)
        stored = self._stored_tensor(tensor, under)
        return self._made(tensor, under, Adaptation(stored, factors, lengths))

    def _bias(self, tensor: str, under: Held, bias: BiasChange) -> Held:
        added = self._stored[bias.name], bias.scale
        adaptation = Adaptation(self._stored_tensor(tensor, under), added=added)
        return self._made(tensor, under, adaptation)

    def _with_rows(self, tensor: str, under: Held, rows: TrainedRows) -> Held:
        stored = self._stored_tensor(tensor, under)
        adapted = self._maker.with_rows(
            self._label, tensor, stored, self._stored[rows.name], rows.places
        )
        return replace(under, source=adapted, model=self._place, adapter=self._place)

    def _made(self, tensor: str, under: Held, adaptation: Adaptation) -> Held:
        adapted = self._maker.make(self._label, tensor, adaptation)
        return replace(under, source=adapted, model=self._place, adapter=self._place)

    def _stored_tensor(self, tensor: str, under: Held) -> ObjectId:
        if isinstance(under.source, bytes) and under.factors is None:
            return under.source
        raise MergeInputError(
            f"the adapter {quoted(self._label)} makes {quoted(tensor)} anew (DoRA, biases, rows of "
            "tokens), and what it is laid on is the result of a stage",
            "commit that result first, and put the adapter on it",
        )
