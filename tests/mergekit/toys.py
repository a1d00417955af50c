"""Toy models as recipes name them: real objects on a shelf, no weights at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mergepipe.checkpoints.adapted_tensors import Adaptation
from mergepipe.dtypes import byte_length, dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.tokenizer_names import is_tokenizer_file
from mergepipe.ids import ObjectId, digest, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import (
    Blob,
    FileEntry,
    Record,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.planner.mergekit.expand import expand
from mergepipe.planner.mergekit.expanded import Expanded
from mergepipe.planner.mergekit.reading import read_recipe
from mergepipe.vocabularies.row_maps import RowMap
from mergepipe.vocabularies.stored_tokenizer import StoredTokenizer
from mergepipe.vocabularies.tokenizer_reading import read_vocabulary

Shapes = Mapping[str, Sequence[int]]


def llama(layers: int = 4, vocabulary: int = 32, hidden: int = 8, *, head: bool = True) -> Shapes:
    """The tensors of a tiny Llama, in the order in which transformers writes them."""
    shapes: dict[str, Sequence[int]] = {"lm_head.weight": (vocabulary, hidden)} if head else {}
    shapes["model.embed_tokens.weight"] = (vocabulary, hidden)
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes[f"{stem}.input_layernorm.weight"] = (hidden,)
        shapes[f"{stem}.mlp.up_proj.weight"] = (2 * hidden, hidden)
        shapes[f"{stem}.self_attn.q_proj.weight"] = (hidden, hidden)
    shapes["model.norm.weight"] = (hidden,)
    return shapes


def llama_config(layers: int = 4, **more: object) -> dict[str, object]:
    return {"model_type": "llama", "num_hidden_layers": layers, "tie_word_embeddings": False} | more


@dataclass
class Toys:
    """Models by name: a `ModelSource` and the objects behind it."""

    objects: dict[ObjectId, Record] = field(default_factory=dict)
    named: dict[str, ObjectId] = field(default_factory=dict)
    files: dict[ObjectId, dict[str, bytes]] = field(default_factory=dict)

    def put(self, record: Record) -> ObjectId:
        identity = object_id(encode(record))
        self.objects[identity] = record
        return identity

    def add(
        self,
        name: str,
        shapes: Shapes,
        config: object = None,
        dtype: str | Mapping[str, str] = "F32",
        same: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        weights: str = "model.safetensors",
    ) -> ObjectId:
        """A model whose tensors are its own, but for those in `same` (name -> model)."""
        entries = []
        for tensor, shape in shapes.items():
            owner = (same or {}).get(tensor, name)
            kind = dtype if isinstance(dtype, str) else dtype.get(tensor, "F32")
            size = byte_length(dtype_of(kind), tuple(shape))
            blocks = digest(f"{owner}:{tensor}".encode()) if size else b""
            identity = self.put(Tensor(kind, tuple(shape), max(1, size), blocks))
            entries.append(TensorEntry(tensor, identity))
        header = self.put(Tensor("U8", (8,), 8, digest(name.encode())))
        held = dict(files or {})
        if config is not None:
            held["config.json"] = json.dumps(config).encode()
        blobs = [
            FileEntry(path, False, len(data), Blob(self.put(Tensor("U8", (len(data),), 1, b""))))
            for path, data in held.items()
        ]
        model = FileEntry(weights, False, 8, Safetensors(header, tuple(entries)))
        snapshot = self.put(Snapshot((*blobs, model)))
        self.named[name] = snapshot
        self.files[snapshot] = held
        return snapshot

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        found = self.objects[identity]
        assert isinstance(found, Snapshot)
        return found

    def tensor(self, identity: ObjectId, /) -> Tensor:
        found = self.objects[identity]
        assert isinstance(found, Tensor)
        return found

    def find(self, path: str, revision: str | None, /) -> ObjectId:
        if path not in self.named:
            raise MergeInputError(f"no model is called {path!r}", "name a revision or a path")
        return self.named[path]

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        return self.files[object_id(encode(snapshot))].get(path)

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        files = {
            path: data for path, data in self.files[snapshot].items() if is_tokenizer_file(path)
        }
        return StoredTokenizer(files, read_vocabulary(files, label))

    @property
    def looks(self) -> bool:
        return False

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """Tensors of the right shapes, whose weights nobody computed."""
        return tuple(
            None
            if map_ is None or old is None
            else self.put(Tensor("F32", (map_.count, *self.tensor(old).shape[1:]), 8, old))
            for map_, old in zip(maps, tensors, strict=True)
        )

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        old = self.tensor(adaptation.tensor)
        return self.put(Tensor("F32", old.shape, 8, adaptation.tensor))

    def nonfinite(self, tensor: ObjectId, /) -> int:
        return 0

    def owner(self, identity: object) -> str:
        """The model and tensor that a stored tensor was added as."""
        for name, snapshot in self.named.items():
            for file in self.snapshot(snapshot).files:
                if isinstance(file.content, Safetensors):
                    for entry in file.content.tensors:
                        if entry.tensor == identity:
                            return f"{name}:{entry.name}"
        return "nobody"

    def expand(self, text: str, **options: Any) -> Expanded:
        return expand(read_recipe(text, "r.yml"), self, self, self, **options)


def family(layers: int = 4) -> Toys:
    """a, b, c and base, all alike."""
    toys = Toys()
    for name in ("a", "b", "c", "base"):
        toys.add(name, llama(layers), llama_config(layers))
    return toys
