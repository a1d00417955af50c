"""Configs drawn at random over the schema: what nobody thought of comparing.

Each is a function of its seed alone. Methods with random masks are left to test_compat.py, which
compares their statistics. Some configs are wrong on purpose: then both programs have to refuse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.compat.models import LAYERS

FAMILY = ("math", "code", "chat")
WITH_WORDS = ("words", "other_words")
# What a method needs: how many models besides the base, whether it takes or has to have a base.
SHAPES: dict[str, tuple[int, int, str]] = {
    "linear": (1, 3, "maybe"),
    "task_arithmetic": (1, 3, "always"),
    "ties": (1, 3, "always"),
    "breadcrumbs": (1, 3, "always"),
    "breadcrumbs_ties": (1, 3, "always"),
    "slerp": (1, 1, "listed"),
    "nuslerp": (2, 2, "maybe"),
    "multislerp": (2, 3, "maybe"),
    "karcher": (2, 3, "never"),
    "model_stock": (2, 3, "always"),
    "sce": (2, 3, "always"),
    "ram": (2, 3, "always"),
    "ramplus_tl": (2, 3, "always"),
    "nearswap": (1, 1, "always"),
    "passthrough": (1, 1, "never"),
}
WEIGHTED = {"linear", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "nuslerp"}
WEIGHTED |= {"multislerp"}
SPARSE = {"ties", "breadcrumbs", "breadcrumbs_ties"}
FILTERS = ("self_attn", "mlp", "down_proj", "layernorm", "lm_head", "embed_tokens", "*")


@dataclass(frozen=True)
class RandomConfig:
    """A config whose models are names of tests/compat/models.py, and what is known of it."""

    seed: int
    method: str
    dtype: str
    document: dict[str, Any]
    vocabulary: bool

    def with_paths(self, paths: dict[str, str], dtype: str | None = None) -> dict[str, Any]:
        """The document with paths for names, and another dtype if one is given."""
        filled: dict[str, Any] = _filled(self.document, paths)
        if dtype is not None:
            filled["dtype"] = dtype
            if dtype != self.dtype:
                filled["out_dtype"] = self.dtype
        return filled


def draw(seed: int) -> RandomConfig:
    """The config of a seed."""
    chance = Random(seed)
    method = chance.choice(sorted(SHAPES))
    dtype = chance.choice(("float32", "float32", "bfloat16"))
    least, most, needs_base = SHAPES[method]
    experts = chance.sample(FAMILY, chance.randint(least, most))
    words = chance.random() < 0.15 and method in ("linear", "task_arithmetic", "ties")
    if words:
        experts[-1] = chance.choice(WITH_WORDS)
    if chance.random() < 0.03:  # a model too many or too few
        experts = experts[:-1] or [*experts, "chat"]
    base = needs_base in ("always", "listed") or (needs_base == "maybe" and chance.random() < 0.4)
    document: dict[str, Any] = {"merge_method": method, "dtype": dtype}
    if base:
        document["base_model"] = "base"
    listed = ["base", *experts] if needs_base == "listed" else experts
    if method == "linear" and base:
        listed = ["base", *experts]
    if not words and chance.random() < 0.35:
        if base and listed[0] != "base" and chance.random() < 0.95:
            listed = ["base", *listed]  # a base has to be among the sources of a slice
        document["slices"] = draw_slices(
            chance,
            listed,
            LAYERS,
            0.8,
            lambda source, name: _with_parameters(source, _own(chance, method, name)),
        )
    else:
        document["models"] = [
            _with_parameters({"model": name}, _own(chance, method, name)) for name in listed
        ]
    shared = _shared(chance, method)
    if shared:
        document["parameters"] = shared
    if words:
        document["tokenizer_source"] = chance.choice(("union", "base"))
        document["base_model"] = "base"
        if method == "linear" and "models" in document and not base:
            document["models"].insert(0, {"model": "base", "parameters": {"weight": 0.5}})
    return RandomConfig(seed, method, dtype, document, words)


def draw_slices(
    chance: Random,
    names: list[str],
    layers: int,
    steady: float,
    entry: Callable[[dict[str, Any], str], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Up to three slices of these models, `entry` of each source and name.

    steady  how often a model gives the same layers as the slice's others
    """
    slices = []
    for _ in range(chance.randint(1, 3)):
        count = chance.randint(1, layers)
        begin = chance.randint(0, layers - count)
        sources = []
        for name in names:
            at = begin if chance.random() < steady else chance.randint(0, layers - count)
            sources.append(entry({"model": name, "layer_range": [at, at + count]}, name))
        slices.append({"sources": sources})
    return slices


def _with_parameters(entry: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "parameters": parameters} if parameters else entry


def _own(chance: Random, method: str, name: str) -> dict[str, Any]:
    """Parameters of one model."""
    own: dict[str, Any] = {}
    if method in WEIGHTED and (name != "base" or method == "linear"):
        own["weight"] = _value(chance, 0.1, 1.2)
    if method in SPARSE and chance.random() < 0.9:
        own["density"] = _value(chance, 0.2, 0.9)
    if method.startswith("breadcrumbs") and chance.random() < 0.5:
        own["gamma"] = round(chance.uniform(0.01, 0.08), 3)
    if method == "passthrough" and chance.random() < 0.6:
        own["scale"] = _value(chance, 0.5, 1.5)
    return own


def _shared(chance: Random, method: str) -> dict[str, Any]:
    """Parameters of the whole merge."""
    shared: dict[str, Any] = {}
    if method == "slerp":
        shared["t"] = _value(chance, 0.0, 1.0)
    if method == "nearswap":
        shared["t"] = round(chance.uniform(0.0005, 0.02), 5)
    if method in WEIGHTED - {"nuslerp", "multislerp"} and chance.random() < 0.4:
        shared["normalize"] = chance.random() < 0.5
    if method in SPARSE | {"task_arithmetic"} and chance.random() < 0.3:
        shared["lambda"] = round(chance.uniform(0.5, 1.5), 2)
    if method == "sce" and chance.random() < 0.7:
        shared["select_topk"] = round(chance.uniform(0.2, 1.0), 2)
    if method == "model_stock" and chance.random() < 0.4:
        shared["filter_wise"] = True
    if method == "ramplus_tl":
        shared["r"] = round(chance.uniform(0.05, 0.3), 2)
    if method == "nuslerp" and chance.random() < 0.5:
        shared["nuslerp_flatten"] = False
        shared["nuslerp_row_wise"] = chance.random() < 0.5
    return shared


def _value(chance: Random, low: float, high: float) -> object:
    """A number, a gradient over the layers, or values by filter that end with one for the rest."""

    def number() -> float:
        return round(chance.uniform(low, high), 2)

    kind = chance.random()
    if kind < 0.55:
        return number()
    if kind < 0.75:
        return [number() for _ in range(chance.randint(2, 5))]
    filters = [{"filter": name, "value": number()} for name in chance.sample(FILTERS, 2)]
    return [*filters, {"value": number()}]


def _filled(value: Any, paths: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: paths[inner] if key in ("model", "base_model") else _filled(inner, paths)
            for key, inner in value.items()
        }
    return [_filled(inner, paths) for inner in value] if isinstance(value, list) else value
