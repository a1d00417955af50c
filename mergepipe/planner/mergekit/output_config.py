"""Configs of a stage's result: its layers as they were stacked, and a head or none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergepipe.formats.architecture import DEFAULT, TEXT, head_and_embeddings, read_architecture
from mergepipe.formats.config_json import amended, layer_count, predicting_layers
from mergepipe.formats.generation_layers import restacked_settings
from mergepipe.formats.layer_rules import Layer
from mergepipe.formats.restacking import LayerOrigin, has_part, restacked, restacked_part
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.mergekit.layer_places import Restack, check_places
from mergepipe.planner.mergekit.rows import Row
from mergepipe.planner.output_head import check_head

# The part that generates: the decoder of two sides, or the language model.
_GENERATING = ("decoder", TEXT, DEFAULT)


def output_config(
    reference: Inventory, rows: Sequence[Row], held: Mapping[str, Held]
) -> Mapping[str, Any] | None:
    """The reference's config with the layers of `rows` and the tensors of `held`.

    None where the reference has none. Raises MergeInputError, without a place: a key cannot say
    what the layers are, a head that the config speaks of is not there.
    """
    config = reference.config
    if config is None:
        return None
    stacks = _stacked(rows)
    text = _text_module(reference, config, stacks)
    for module, stack in stacks.items():
        restack = _restacking(reference, config, module, module == text)
        config = restack(stack.origins)
        check_places(reference, module, stack.origins, stack.keys, restack)
    output = read_architecture(held, None, "")
    head, _ = head_and_embeddings(output)
    shapes = {name: tensor.shape for name, tensor in held.items()}
    check_head(shapes, output, config, reference.label)
    if head is not None and reference.architecture.tied:
        # On top as well, where transformers looks first.
        config = amended(config, {"tie_word_embeddings": False})
        config["tie_word_embeddings"] = False
    return config


def output_generation(reference: Inventory, rows: Sequence[Row]) -> Mapping[str, Any] | None:
    """The reference's generation_config.json for the layers of `rows`; None where it has none.

    Raises MergeInputError, without a place: a key cannot say what the layers are.
    """
    stacks = _stacked(rows)
    module = next((name for name in _GENERATING if name in stacks), None)
    if reference.generation is None or module is None:
        return reference.generation
    layers = [
        Layer(inventory.generation or {}, layer, inventory.layers(module))
        for inventory, layer in stacks[module].layers
    ]
    return restacked_settings(reference.generation, layers, reference.layers(module))


def moved_layers(reference: Inventory, rows: Sequence[Row]) -> bool:
    """Whether layers of `rows` stand elsewhere than in the model whose files the reference has."""
    return reference.moved or any(
        [layer for _, layer in stack.layers] != list(range(reference.layers(module)))
        for module, stack in _stacked(rows).items()
    )


@dataclass(frozen=True, slots=True)
class _Stack:
    """Layers of a module, bottom first: model and number of each, and the tensors that it has."""

    layers: Sequence[tuple[Inventory, int]]
    keys: Sequence[frozenset[str]]

    @property
    def origins(self) -> Sequence[LayerOrigin]:
        """Where each comes from, by its config."""
        return [LayerOrigin(inventory.config or {}, layer) for inventory, layer in self.layers]


def _stacked(rows: Sequence[Row]) -> dict[str, _Stack]:
    """The layers of each module."""
    layers: dict[str, dict[int, tuple[tuple[Inventory, int], set[str]]]] = {}
    for row in rows:
        if row.layer >= 0:
            _, keys = layers.setdefault(row.module, {}).setdefault(row.layer, (row.origin, set()))
            keys.add(row.key)
    return {
        module: _Stack(
            [stack[number][0] for number in sorted(stack)],
            [frozenset(stack[number][1]) for number in sorted(stack)],
        )
        for module, stack in layers.items()
    }


def _restacking(
    reference: Inventory, config: Mapping[str, Any], module: str, is_text: bool
) -> Restack:
    """How the config gets other layers of a module."""

    def restack(origins: Sequence[LayerOrigin]) -> Mapping[str, Any]:
        if is_text:
            apart = reference.layers(module) == layer_count(config)
            return restacked(config, origins, predicting_apart=apart)
        if [origin.layer for origin in origins] == list(range(reference.layers(module))):
            return config
        return restacked_part(config, module, origins)

    return restack


def _text_module(
    reference: Inventory, config: Mapping[str, Any], modules: Iterable[str]
) -> str | None:
    """The module whose layers the config counts as those of its language model."""
    count = layer_count(config)
    if count is None:
        return None
    counts = (count, count + predicting_layers(config))
    fitting = [name for name in modules if reference.layers(name) in counts]
    language = [name for name in fitting if name in (DEFAULT, TEXT)]
    others = [name for name in fitting if not has_part(config, name)]
    return next(iter((*language, *others)), None)
