"""The vocabulary of a stage: its models' embeddings, brought into the rows of one tokenizer.

Done per stage, before its rows are lined up: what comes out are inventories whose embeddings have
the output's rows, as stored tensors like any other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mergepipe.checkpoints.adapted_tensors import Adaptation
from mergepipe.errors import MergeInputError
from mergepipe.formats.architecture import Section, head_and_embeddings, is_head
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.planner.lines import Made
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.schema import (
    ModelName,
    Stage,
    TokenizerChoice,
    TokenSourceKind,
    Vocabulary,
)
from mergepipe.planner.mergekit.schema import TokenSource as NamedSource
from mergepipe.planner.mergekit.shared_embeddings import with_tensors
from mergepipe.vocabularies import (
    ZERO,
    From,
    ModelVocabulary,
    RowMap,
    StoredTokenizer,
    TokenOf,
    TokenRule,
    TokenSource,
    VocabularyPlan,
    VocabularyRequest,
    Zeros,
    plan_vocabulary,
)

_OTHER_ROWS = re.compile("norm|position|wpe|token_type", re.IGNORECASE)


class Embeddings(Protocol):
    """Reads tokenizers, lays embeddings out anew and stores what adapters make.

    looks  nothing is laid out yet: what stages make can still be stored before it is
    """

    @property
    def looks(self) -> bool:
        """Whether a recipe is only looked at."""
        ...

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        """The tokenizer of a stored model."""
        ...

    def lay_out(
        self,
        name: str,
        maps: Sequence[RowMap | None],
        tensors: Sequence[ObjectId | None],
        base: int | None,
        /,
    ) -> tuple[ObjectId | None, ...]:
        """A tensor of several models in new rows (vocabularies.embeddings.lay_out).

        Whoever only looks whether a recipe fits gives any ids: they are not looked at.
        """
        ...

    def adapt(self, adaptation: Adaptation, /) -> ObjectId:
        """What an adapter makes of a stored tensor (checkpoints.adapted_tensors); as above."""
        ...

    def nonfinite(self, tensor: ObjectId, /) -> int:
        """How many values of a stored or made tensor are infinite or NaN; 0 for who only looks."""
        ...


@dataclass(frozen=True, slots=True)
class StageVocabulary:
    """A stage's models with the rows of its output, and what the output knows.

    origin  the model whose tokenizer it is, extended or not
    apart   earlier stages whose results' rows would have to be moved, by name
    """

    inventories: Mapping[ModelName, Inventory]
    plan: VocabularyPlan
    tokenizer: StoredTokenizer
    origin: ModelName
    apart: tuple[str, ...] = ()


def bring_together(
    stage: Stage,
    inventories: Mapping[ModelName, Inventory],
    lenders: Mapping[ModelName, Inventory],
    tokenizers: Mapping[str, StoredTokenizer],
    embeddings: Embeddings,
) -> StageVocabulary:
    """A stage's models in the rows of one vocabulary.

    inventories  of the models that are merged, the base among them
    lenders      of those that only give a tokenizer, or single tokens
    tokenizers   by the labels of the inventories

    Raises MergeInputError: vocabularies that differ where nothing is said of them, tokens that
    nobody has, results of stages that would have to be laid out.
    """
    everyone = {**inventories, **lenders}
    places = {name: place for place, name in enumerate(everyone)}
    models = [
        ModelVocabulary(
            inventory.label,
            tokenizers[inventory.label].vocabulary,
            None if inventory.changes_only else _rows(inventory),
            tokenizers[inventory.label].files,
            name in inventories,
        )
        for name, inventory in everyone.items()
    ]
    base = None if stage.base is None else places[stage.base]
    plan = plan_vocabulary(_request(stage, places), models, base)
    tokenizer = StoredTokenizer(
        models[plan.origin].files if plan.files is None else plan.files, plan.vocabulary
    )
    apart: tuple[str, ...] = ()
    if plan.lays_out:
        apart = _made_of_stages(everyone)
        if apart and not embeddings.looks:
            raise MergeInputError(
                f"{quoted(apart[0])} is made by a stage, and its embeddings would have to be laid "
                "out anew",
                "give that stage the tokenizer setting, so that its result has the vocabulary",
            )
        inventories = _laid_out(list(everyone.items()), inventories, plan, base, embeddings)
    return StageVocabulary(inventories, plan, tokenizer, list(everyone)[plan.origin], apart)


def _made_of_stages(everyone: Mapping[ModelName, Inventory]) -> tuple[str, ...]:
    """The stages that made embeddings which take part in laying out."""
    return tuple(
        dict.fromkeys(
            name.path
            for name, inventory in everyone.items()
            for tensor in _vocabulary_tensors(inventory)
            if isinstance(inventory.tensors[tensor].source, Made)
        )
    )


def lending(stage: Stage) -> tuple[ModelName, ...]:
    """Models that a stage only takes a tokenizer or single tokens from."""
    choice = stage.tokenizer
    if choice is None:
        return ()
    named = [rule.source.model for rule in choice.tokens if rule.source is not None]
    if isinstance(choice.source, ModelName):
        named.append(choice.source)
    merged = stage.models
    return tuple(dict.fromkeys(name for name in named if name is not None and name not in merged))


def _request(stage: Stage, places: Mapping[ModelName, int]) -> VocabularyRequest:
    choice = stage.tokenizer
    if choice is None:
        return VocabularyRequest(template=stage.chat_template)
    tokens = {
        rule.token: TokenRule(_source(rule.source, places), rule.force)
        for rule in choice.tokens
        if rule.source is not None
    }
    return VocabularyRequest(
        _whose(choice, places), tokens, choice.pad_to_multiple_of or 1, stage.chat_template
    )


def _whose(choice: TokenizerChoice, places: Mapping[ModelName, int]) -> From | int:
    if isinstance(choice.source, Vocabulary):
        return From(choice.source.value)
    return places[choice.source]


def _source(source: NamedSource, places: Mapping[ModelName, int]) -> TokenSource:
    if source.kind is TokenSourceKind.ZERO or source.model is None:
        return Zeros()
    # A token by its text beats its number, as both may be given.
    row = source.token_id if source.token is None else None
    return TokenOf(places[source.model], source.token, row)


def _rows(inventory: Inventory) -> int | None:
    _, name = head_and_embeddings(inventory.architecture)
    held = None if name is None else inventory.tensors.get(name)
    return held.shape[0] if held is not None and held.shape else None


def _laid_out(
    everyone: Sequence[tuple[ModelName, Inventory]],
    merged: Mapping[ModelName, Inventory],
    plan: VocabularyPlan,
    base: int | None,
    embeddings: Embeddings,
) -> Mapping[ModelName, Inventory]:
    """The merged models with their embeddings in the rows of `plan`."""
    names = dict.fromkeys(
        name for _, inventory in everyone for name in _vocabulary_tensors(inventory)
    )
    heads = {inventory.head for inventory in merged.values()}
    changed: dict[ModelName, dict[str, Held]] = {name: {} for name in merged}
    for name in names:
        held = [_held(inventory, name) for _, inventory in everyone]
        maps = [
            map_
            if model in merged
            and (name in inventory.tensors or (name in heads and _parts(number, inventory, map_)))
            else None
            for number, ((model, inventory), map_) in enumerate(
                zip(everyone, plan.maps, strict=True)
            )
        ]
        for (_, inventory), tensor, map_ in zip(everyone, held, maps, strict=True):
            if map_ is not None and tensor is not None:
                _check_movable(inventory, name, tensor)
        stored = [
            tensor.source if tensor is not None and isinstance(tensor.source, bytes) else None
            for tensor in held
        ]
        laid_out = embeddings.lay_out(name, maps, stored, base)
        for (model, _), tensor, map_, identity in zip(everyone, held, maps, laid_out, strict=True):
            if map_ is not None and tensor is not None and identity is not None:
                changed[model][name] = replace(
                    tensor, source=identity, like=identity, shape=(map_.count, *tensor.shape[1:])
                )
    return {name: with_tensors(inventory, changed[name]) for name, inventory in merged.items()}


def _vocabulary_tensors(inventory: Inventory) -> list[str]:
    """Tensors with a row for each token: outside of layers, and as many rows as embeddings."""
    rows = _rows(inventory)
    return [
        name
        for name, held in inventory.tensors.items()
        if inventory.architecture.spots[name].section is not Section.LAYER
        and held.shape[:1] == (rows,)
        # Norms and positions may happen to be as many as there are tokens.
        and not _OTHER_ROWS.search(name)
    ]


def _held(inventory: Inventory, name: str) -> Held | None:
    """A model's tensor; of a head that it shares with its embeddings, these."""
    if name not in inventory.tensors and is_head(name):
        return inventory.tensors.get(inventory.tied_head or "")
    return inventory.tensors.get(name)


def _parts(number: int, inventory: Inventory, map_: RowMap | None) -> bool:
    """Whether shared embeddings get rows of other models, of which the head gets those of heads."""
    if map_ is None or inventory.tied_head is None:
        return False
    return not set(map_.models) <= {number, ZERO}


def _check_movable(inventory: Inventory, name: str, held: Held) -> None:
    if held.factors is not None or held.adapter >= 0:
        raise MergeInputError(
            f"the adapter of {quoted(inventory.label)} changes {quoted(name)}, whose rows would "
            "have to be moved",
            "merge the adapter first, and commit the result",
        )
