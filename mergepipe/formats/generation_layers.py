"""generation_config.json of a model whose layers were moved: what names layers there follows them.

Whisper times words by heads of its decoder (`alignment_heads`, pairs of a layer and a head); drafts
end after so many layers (`assistant_early_exit`), contrastive decoding compares some
(`dola_layers`). Keys that nobody knows are taken for such by their names.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mergepipe.formats.config_json import LAYER_COUNTS, Config
from mergepipe.formats.layer_rules import Heads, Layer, Pinned, moved

GENERATION_CONFIG = "generation_config.json"
_RULES = (
    Heads(file=GENERATION_CONFIG),
    Pinned(
        pattern=re.compile("layer|exit"),
        apart=frozenset((*LAYER_COUNTS, "encoder_layers", "decoder_layers")),
        file=GENERATION_CONFIG,
    ),
)


def restacked_settings(
    settings: Mapping[str, Any], layers: Sequence[Layer], count: int
) -> Mapping[str, Any]:
    """Settings of generation for a model of these layers, bottom first.

    layers  of the part that generates; the `part` of each is its own model's settings
    count   how many the model of `settings` has

    Raises MergeInputError naming a key that cannot say what is needed.
    """
    if not moved(layers, count):
        return settings
    changed: Config = json.loads(json.dumps(settings))
    for rule in _RULES:
        rule.follow(changed, layers)
    for key in LAYER_COUNTS:
        if changed.get(key) == count:
            changed[key] = len(layers)
    return changed
