"""Which layer a tensor belongs to, from tensor names and config.json alone.

There is no table of architectures. Nearly all call their layers `<stack>.<number>.<rest>`
(`model.layers.3.mlp.up_proj.weight`, `transformer.h.0.ln_1.bias`, `bert.encoder.layer.1...`,
`language_model.model.layers.7...`), so stacks are read off the names and compared with the layer
count of the config. A model with one stack has one module, `default`; one with several has
`text_decoder`, `vision_tower`, and so on, and what belongs to none is a module by itself. Names
without any stack are a model too: it merges by names.
"""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.errors import MergeInputError
from mergepipe.formats.config_json import layer_count, predicting_layers
from mergepipe.formats.tied_embeddings import tied
from mergepipe.names import quoted

DEFAULT = "default"
TEXT, VISION, AUDIO = "text_decoder", "vision_tower", "audio_tower"
# Modules that recipes of mergekit may name, which otherwise are a part of another.
_WITHIN = {
    "multi_modal_projector": (VISION, re.compile(r"(^|[._])merger([._]|$)")),
    "norm": (TEXT, re.compile(r"(^|\.)norm\.(weight|bias)$")),
}
# The last norm of a language model, beside its list of layers.
_NORM = re.compile(r"(norm\w*|\w*_norm|\w*layernorm|ln_f|final_layer_?norm)\.(weight|bias)")

_NUMBERED = re.compile(r"(?P<stack>.*?[^.])\.(?P<layer>0|[1-9]\d{0,5})\.(?P<rest>.+)", re.DOTALL)
_WORDS = re.compile(r"[._]")
# What people call the list of layers. Other numbered things (`mm_projector.0`) are no stack.
_LISTS = frozenset(
    ("layers", "layer", "h", "block", "blocks", "resblocks", "decoder_layers", "encoder_layers")
)
_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = (
    *("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    *("tok_embeddings.weight", "shared.weight"),
)
_HEAD_BIASES = ("lm_head.bias", "embed_out.bias")
# Parts of the names of what is used before the layers: embeddings of any kind.
_BEFORE = frozenset(
    (
        *("embed", "embedding", "embeddings", "emb", "wte", "wpe", "patch", "rotary", "shared"),
        # The convolutions of a speech encoder, and the norm before a vision tower.
        *("pos", "position", "positional", "tok", "conv1", "conv2", "pre"),
    )
)
_PARTS = (
    (VISION, re.compile(r"(^|[._])(vision|visual|vit|image|img)", re.IGNORECASE)),
    (AUDIO, re.compile(r"(^|[._])(audio|speech|sound)", re.IGNORECASE)),
    ("encoder", re.compile(r"(^|\.)encoder(\.|$)")),
    ("decoder", re.compile(r"(^|\.)decoder(\.|$)")),
)


class Section(IntEnum):
    """Where in its module a tensor is used."""

    BEFORE = 0
    LAYER = 1
    AFTER = 2


class Spot(Struct, frozen=True):
    """A tensor's place: its module, where in that, and which layer.

    key  what it is called in every layer: the rest of its name; outside of layers all of it
    """

    module: str
    section: Section
    key: str
    layer: int = -1


class Stack(Struct, frozen=True):
    """Numbered layers: `<prefix>.<number>.<rest>`."""

    prefix: str
    layers: int

    def name(self, layer: int, rest: str) -> str:
        """A tensor's name in one of the layers."""
        return f"{self.prefix}.{layer}.{rest}"


class Architecture(Struct, frozen=True):
    """A model's modules, in the order of their first tensor, and every tensor's place in them.

    stacks  module -> its layers; modules without layers are not in it
    spots   tensor name -> place
    tied    the output embeddings are the input embeddings, if there are none of their own
    """

    modules: tuple[str, ...]
    stacks: Mapping[str, Stack]
    spots: Mapping[str, Spot]
    tied: bool

    def layers(self, module: str) -> int:
        """How many layers a module has."""
        stack = self.stacks.get(module)
        return 0 if stack is None else stack.layers


def read_architecture(
    names: Iterable[str], config: Mapping[str, Any] | None, label: str
) -> Architecture:
    """The places of a model's tensors. `config` is its config.json, if it has one.

    Raises MergeInputError naming `label` where names and config disagree on the number of layers.
    """
    listed = list(names)
    expected = None if config is None else layer_count(config)
    stacks = _stacks(listed, expected)
    modules = _modules(stacks, expected)
    spots: dict[str, Spot] = {}
    for name in listed:
        spots[name] = _spot(name, modules)
    more = 0 if config is None else predicting_layers(config)
    counts = set(stacks.values())
    if expected is not None and stacks and counts.isdisjoint((expected, expected + more)):
        largest = max(stacks, key=lambda prefix: stacks[prefix])
        raise MergeInputError(
            f"config.json of {quoted(label)} says {expected} layers, its tensors "
            f"{quoted(largest)} have {stacks[largest]}",
            "are all of its files there?",
        )
    return Architecture(
        tuple(dict.fromkeys(spot.module for spot in spots.values())),
        {modules[prefix]: Stack(prefix, count) for prefix, count in stacks.items()},
        spots,
        tied=config is None or tied(config),
    )


def with_modules(architecture: Architecture, named: Iterable[str]) -> Architecture:
    """The same with parts as modules of their own, where a recipe names them as such.

    In mergekit the projector of Qwen2-VL is one; here it is of the vision tower unless named.
    """
    spots = dict(architecture.spots)
    for module in named:
        if module in architecture.modules or module not in _WITHIN:
            continue
        whole, part = _WITHIN[module]
        for name, spot in spots.items():
            if spot.module == whole and spot.section is not Section.LAYER and part.search(name):
                spots[name] = replace(spot, module=module)
    modules = tuple(dict.fromkeys(spot.module for spot in spots.values()))
    return replace(architecture, modules=modules, spots=spots)


def may_be_empty(module: str) -> bool:
    """Whether a module may be named that a model has no tensors of."""
    return module in _WITHIN


def head_and_embeddings(architecture: Architecture) -> tuple[str | None, str | None]:
    """The names of a model's output and input embeddings; None for one that is not there."""
    outside = [
        name for name, spot in architecture.spots.items() if spot.section is not Section.LAYER
    ]
    heads = [name for name in outside if _ends(name, _HEADS)]
    inputs = [name for name in outside if _ends(name, _EMBEDDINGS)]
    return (heads[0] if len(heads) == 1 else None), (inputs[0] if len(inputs) == 1 else None)


def is_head(name: str) -> bool:
    """Whether a tensor is output embeddings, by its name."""
    return _ends(name, _HEADS)


def is_vocabulary(name: str) -> bool:
    """Whether the rows of a tensor are tokens, by its name."""
    return _ends(name, (*_HEADS, *_EMBEDDINGS, *_HEAD_BIASES))


def _ends(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith("." + ending) for ending in endings)


def _stacks(names: Iterable[str], expected: int | None) -> dict[str, int]:
    """Prefix -> number of layers, for every list of layers."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            numbers.setdefault(match["stack"], set()).add(int(match["layer"]))
    stacks: dict[str, int] = {}
    for prefix, layers in numbers.items():
        whole = layers == set(range(len(layers)))
        listed = prefix.rpartition(".")[2] in _LISTS
        if whole and (listed or len(layers) == expected):
            stacks[prefix] = len(layers)
    # In an order of their own: that of the names changes with the files they are kept in.
    return dict(sorted(stacks.items()))


def _modules(stacks: Mapping[str, int], expected: int | None) -> dict[str, str]:
    """Prefix of a stack -> name of its module."""
    if len(stacks) < 2:
        return dict.fromkeys(stacks, DEFAULT)
    modules: dict[str, str] = {}
    for prefix in stacks:
        kind = next((name for name, pattern in _PARTS if pattern.search(prefix)), None)
        modules[prefix] = prefix if kind is None or kind in modules.values() else kind
    # The language model is the one that nothing else says it is not; the config's count decides.
    texts = [prefix for prefix, name in modules.items() if name == prefix]
    texts = [prefix for prefix in texts if stacks[prefix] == expected] or texts
    if texts:
        modules[texts[0]] = TEXT
    return modules


def _spot(name: str, modules: Mapping[str, str]) -> Spot:
    match = _NUMBERED.fullmatch(name)
    if match is not None and match["stack"] in modules:
        return Spot(modules[match["stack"]], Section.LAYER, match["rest"], int(match["layer"]))
    before = not _ends(name, (*_HEADS, *_HEAD_BIASES)) and _BEFORE & set(_WORDS.split(name))
    section = Section.BEFORE if before else Section.AFTER
    return Spot(_module_outside(name, modules), section, name)


def _module_outside(name: str, modules: Mapping[str, str]) -> str:
    """The module of a tensor outside of layers: the one whose stack shares most of its name."""
    if len(modules) < 2:
        return DEFAULT
    parts = _components(name)
    shared = {prefix: _shared(parts, _components(prefix)) for prefix in modules}
    most = max(shared.values())
    if most:
        return modules[max(shared, key=lambda prefix: shared[prefix])]
    text = next((prefix for prefix, module in modules.items() if module == TEXT), None)
    beside = "" if text is None else text[: text.rfind(".") + 1]
    if name.startswith(beside) and _NORM.fullmatch(name[len(beside) :]):
        return TEXT if text is not None else next(iter(modules.values()))
    if _ends(name, (*_HEADS, *_EMBEDDINGS, *_HEAD_BIASES)) or len(parts) < 2:
        return TEXT if TEXT in modules.values() else next(iter(modules.values()))
    return parts[0]


def _components(name: str) -> list[str]:
    # `model.` is what everything of a model is in, and so says nothing.
    return name.removeprefix("model.").split(".")


def _shared(one: list[str], other: list[str]) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
