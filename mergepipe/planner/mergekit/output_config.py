"""config.json of a stage's result: its layers as they were stacked, and a head or none."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mergepipe.formats.architecture import DEFAULT, TEXT, head_and_embeddings, read_architecture
from mergepipe.formats.config_json import amended, layer_count, predicting_layers
from mergepipe.formats.restacking import LayerOrigin, has_part, restacked, restacked_part
from mergepipe.planner.mergekit.alignment import Row
from mergepipe.planner.mergekit.inventory import Held, Inventory
from mergepipe.planner.output_head import check_head


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
    for module, origins in stacks.items():
        config = _with_layers(reference, config, module, origins, text)
    output = read_architecture(held, None, "")
    head, _ = head_and_embeddings(output)
    shapes = {name: one.shape for name, one in held.items()}
    check_head(shapes, output, config, reference.label)
    if head is not None and reference.architecture.tied:
        # On top as well, where transformers looks first.
        config = amended(config, {"tie_word_embeddings": False})
        config["tie_word_embeddings"] = False
    return config


def _stacked(rows: Sequence[Row]) -> dict[str, list[LayerOrigin]]:
    """Module -> where its layers come from, bottom first."""
    stacked: dict[str, dict[int, LayerOrigin]] = {}
    for row in rows:
        inventory, layer = row.origin
        if row.layer >= 0:
            origins = stacked.setdefault(row.module, {})
            origins.setdefault(row.layer, LayerOrigin(inventory.config or {}, layer))
    return {
        module: [origins[number] for number in sorted(origins)]
        for module, origins in stacked.items()
    }


def _with_layers(
    reference: Inventory,
    config: Mapping[str, Any],
    module: str,
    origins: Sequence[LayerOrigin],
    text: str | None,
) -> Mapping[str, Any]:
    if module == text:
        return restacked(config, origins)
    if [origin.layer for origin in origins] == list(range(reference.layers(module))):
        return config
    return restacked_part(config, module, origins)


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
