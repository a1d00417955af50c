"""All tensors of a merge's models that have a row for each token, brought into one vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mergepipe.checkpoints.embeddings import EmbeddingSink, Storing, TensorSource, lay_out
from mergepipe.checkpoints.row_maps import RowMap
from mergepipe.ids import ObjectId
from mergepipe.packs.blocks import BlockReader


@dataclass(frozen=True, slots=True)
class TokenTensors:
    """A model's tensors by name, and which of them have a row for each token.

    rows  of its input embeddings; None if it has none
    tied  the name of its input embeddings, where they are its output embeddings as well
    """

    tensors: Mapping[str, ObjectId]
    rows: int | None
    tied: str | None = None


@dataclass(frozen=True, slots=True)
class Relaid:
    """What was laid out.

    tensors     for each model the tensors that take the place of those of the same names; a model
                with tied embeddings gets a head of its own where another has one
    read_bytes  from storage, as stored
    new_blocks  that were not in the store
    """

    tensors: tuple[Mapping[str, ObjectId], ...]
    read_bytes: int
    new_blocks: int


def relay(
    models: Sequence[TokenTensors],
    maps: Sequence[RowMap | None],
    base: int | None,
    *,
    objects: TensorSource,
    reader: BlockReader,
    sink: EmbeddingSink,
    storing: Storing,
) -> Relaid:
    """Lay out every tensor with a row for each token; `maps` as `VocabularyPlan.maps` has them.

    The caller publishes the sink's transaction: until then the tensors cannot be read. Raises
    MergeInputError as `embeddings.lay_out` does.
    """
    found: list[dict[str, ObjectId]] = [{} for _ in models]
    read_bytes = new_blocks = 0
    for name in _names(models, objects) if any(maps) else ():
        ids = [_stored(model, name, objects) for model in models]
        untied = [identity is not None and name not in model.tensors
                  for model, identity in zip(models, ids, strict=True)]  # fmt: skip
        wanted = [None if identity is None else map_
                  for map_, identity in zip(maps, ids, strict=True)]  # fmt: skip
        laid = lay_out(
            name, wanted, ids, base, objects=objects, reader=reader, sink=sink, storing=storing
        )
        read_bytes += laid.read_bytes
        new_blocks += laid.new_blocks
        for own, made, head, identity in zip(found, laid.tensors, untied, ids, strict=True):
            if made is not None and made != identity:
                own[name] = made
            elif head and identity is not None:
                own[name] = identity
    return Relaid(tuple(found), read_bytes, new_blocks)


def is_token_tensor(name: str, shape: Sequence[int], rows: int | None) -> bool:
    """Whether a tensor has a row for each token, in a model whose embeddings have `rows` rows.

    It has as many rows and stands outside the numbered layers: embed_tokens, wte, lm_head and its
    bias, whatever the architecture calls them.
    """
    numbered = any(part.isdecimal() for part in name.split("."))
    return rows is not None and len(shape) > 0 and shape[0] == rows and not numbered


def _names(models: Sequence[TokenTensors], objects: TensorSource) -> list[str]:
    """The tensors that have a row for each token in any model, in the order of the models."""
    found: dict[str, None] = {}
    for model in models:
        for name, identity in model.tensors.items():
            if name not in found and is_token_tensor(
                name, objects.tensor(identity).shape, model.rows
            ):
                found[name] = None
    return list(found)


def _stored(model: TokenTensors, name: str, objects: TensorSource) -> ObjectId | None:
    """A model's tensor of a name: for a head that it lacks, the embeddings that it shares."""
    own = model.tensors.get(name)
    if own is not None or model.tied is None:
        return own
    tied = model.tensors[model.tied]
    # A bias is not shared.
    return tied if len(objects.tensor(tied).shape) > 1 and name.endswith(".weight") else None
