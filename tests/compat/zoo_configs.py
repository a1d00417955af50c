"""Configs over the zoo, drawn at random: a family, how it is stored, and a recipe.

Each is a function of its seed alone. Names of models are those of zoo_models.py, and
`base+lora`, whose adapter is drawn with the config.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.compat.random_configs import SPARSE, WEIGHTED, draw_slices
from tests.compat.zoo import FAMILIES, LAYERS, Family
from tests.compat.zoo_models import WORDS, Kind

FAMILY = ("math", "code", "chat")
# How many models besides the base; whether there is one: always, maybe, never, or in the list.
SHAPES = {
    "linear": (1, 3, "maybe"),
    "task_arithmetic": (1, 3, "always"),
    "ties": (1, 3, "always"),
    "slerp": (1, 1, "listed"),
    "passthrough": (1, 1, "never"),
    "breadcrumbs": (1, 2, "always"),
    "breadcrumbs_ties": (2, 3, "always"),
    "nuslerp": (2, 2, "never"),
    "karcher": (2, 3, "never"),
    "model_stock": (2, 3, "always"),
    "sce": (2, 3, "always"),
    "ram": (2, 3, "always"),
    "ramplus_tl": (2, 3, "always"),
    "nearswap": (1, 1, "always"),
}
OFTEN = ("linear", "task_arithmetic", "ties", "slerp", "passthrough")
WITH_ADAPTERS = ("linear", "task_arithmetic", "ties", "slerp", "passthrough")
FILTERS = (
    "self_attn", "mlp", "down_proj", "norm", "lm_head", "embed", "encoder", "decoder", "bias", "*",
)  # fmt: skip


@dataclass(frozen=True)
class ZooConfig:
    """A recipe of one or more documents, and what is known of it.

    shape     what it is a recipe of: models, slices, modules, stages, vocabularies
    adapters  name in the documents -> the model it is on, and the settings of its LoraConfig
    bare      adapters are named alone: each is what it changes of the base
    """

    seed: int
    kind: Kind
    shape: str
    documents: tuple[dict[str, Any], ...]
    adapters: Mapping[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    bare: bool = False

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind.family]

    @property
    def methods(self) -> set[str]:
        return {document["merge_method"] for document in self.documents}


def draw_from_zoo(seed: int) -> ZooConfig:
    """The config of a seed."""
    return _Draw(Random(seed * 7919 + 17)).config(seed)


def entries(chance: Random, method: str, names: list[str]) -> dict[str, Any]:
    """`models` and `parameters` of a recipe without layers: no gradients."""
    drawn = _Draw(chance, gradients=False)
    shared = drawn.shared(method)
    return {
        "models": [drawn.entry({"model": name}, method, name) for name in names],
        **({"parameters": shared} if shared else {}),
    }


class _Draw:
    def __init__(self, chance: Random, *, gradients: bool = True) -> None:
        self._chance, self._gradients = chance, gradients

    def config(self, seed: int) -> ZooConfig:
        chance = self._chance
        family = chance.choice(list(FAMILIES.values()))
        kind = Kind(
            family.name,
            chance.choice(("float32", "float32", "bfloat16", "bfloat16", "float16")),
            bool(family.tied) and chance.random() < 0.3,
            chance.choices(("one", "shards", "pickle"), (7, 2, 1))[0],
        )
        shapes = ["models", "models", "adapters", "adapters", "stages"]
        shapes += ["slices", "slices", "vocabularies"] if family.sliced else []
        shapes += ["modules", "modules"] if len(family.stacks) > 1 else []
        shape = chance.choice(shapes)
        adapters: dict[str, tuple[str, dict[str, Any]]] = {}
        if shape == "adapters":
            for k in range(chance.randint(1, 2)):
                on = chance.choice(("base", "base", "math"))
                adapters[f"{on}+lora{k}"] = (on, self._adapter(family))
        documents = self._documents(family, kind, shape, list(adapters))
        bare = documents[0]["merge_method"] in ("task_arithmetic", "ties")
        bare = bare and all(on == "base" for on, _ in adapters.values())
        return ZooConfig(
            seed,
            kind,
            shape,
            documents,
            adapters,
            bool(adapters) and bare and chance.random() < 0.5,
        )

    def _documents(
        self, family: Family, kind: Kind, shape: str, adapters: list[str]
    ) -> tuple[dict[str, Any], ...]:
        chance = self._chance
        if shape != "stages":
            return (self._document(family, kind, shape, adapters),)
        first = self._document(family, kind, "models", [])
        first["name"] = "first"
        second = self._document(family, kind, "models", [])
        taken = [entry for entry in second["models"] if entry["model"] != "base"]
        chance.choice(taken or second["models"])["model"] = "first"
        return first, second

    def _document(
        self, family: Family, kind: Kind, shape: str, adapters: list[str]
    ) -> dict[str, Any]:
        chance = self._chance
        method = chance.choice(OFTEN if chance.random() < 0.75 else sorted(SHAPES))
        if adapters:
            method = chance.choice(WITH_ADAPTERS)
        if shape == "vocabularies":
            method = chance.choice(("linear", "task_arithmetic", "ties"))
        least, most, needs_base = SHAPES[method]
        experts = chance.sample(FAMILY, chance.randint(least, most))
        for k, name in enumerate(adapters[: len(experts)]):
            experts[k] = name
        if shape == "models" and family.tied and not kind.untied and chance.random() < 0.2:
            experts[-1] = "own_head"
        if needs_base == "always" and family.prefix and not kind.untied and chance.random() < 0.3:
            experts[0] = "bare"
        if shape == "vocabularies":
            experts[-1] = chance.choice(list(WORDS))
        based = needs_base in ("always", "listed") or shape == "vocabularies"
        based = based or (needs_base == "maybe" and chance.random() < 0.4)
        document: dict[str, Any] = {"merge_method": method, **self._dtypes(kind)}
        if based:
            document["base_model"] = "base"
        listed = ["base", *experts] if needs_base in ("listed", "maybe") and based else experts
        if shape == "slices":
            if based and "base" not in listed:
                listed = ["base", *listed]
            document["slices"] = self._slices(method, listed, LAYERS)
        elif shape == "modules":
            if based and "base" not in listed:
                listed = ["base", *listed]
            document["modules"] = {
                module: {"slices": self._module(method, listed, _layers(family, module))}
                for module in family.stacks
            }
            for module in family.parts:
                whole = [self.entry({"model": name}, method, name) for name in listed]
                document["modules"][module] = {"models": whole}
        else:
            document["models"] = [self.entry({"model": name}, method, name) for name in listed]
        shared = self.shared(method)
        if shared:
            document["parameters"] = shared
        if shape == "vocabularies":
            document["tokenizer_source"] = chance.choice(("union", "base"))
        return document

    def _dtypes(self, kind: Kind) -> dict[str, str]:
        chance = self._chance
        if chance.random() < 0.1:
            return {}
        dtypes = {"dtype": kind.dtype}
        if chance.random() < 0.15:
            dtypes["dtype"] = "float32"
        if chance.random() < 0.15:
            dtypes["out_dtype"] = chance.choice(("float32", "bfloat16", "float16"))
        return dtypes

    def _slices(self, method: str, names: list[str], layers: int) -> list[dict[str, Any]]:
        return draw_slices(
            self._chance,
            names,
            layers,
            0.85,
            lambda source, name: self.entry(source, method, name),
        )

    def _module(self, method: str, names: list[str], layers: int) -> list[dict[str, Any]]:
        """Slices of one of several stacks: as it is, or stacked anew."""
        if self._chance.random() < 0.35:
            return self._slices(method, names, layers)
        whole = [
            self.entry({"model": name, "layer_range": [0, layers]}, method, name) for name in names
        ]
        return [{"sources": whole}]

    def entry(self, entry: dict[str, Any], method: str, name: str) -> dict[str, Any]:
        chance = self._chance
        own: dict[str, Any] = {}
        if method in WEIGHTED and (name != "base" or method == "linear"):
            own["weight"] = self._value(0.1, 1.2)
        if method in SPARSE and chance.random() < 0.9:
            own["density"] = self._value(0.2, 0.9)
        if method.startswith("breadcrumbs") and chance.random() < 0.5:
            own["gamma"] = round(chance.uniform(0.01, 0.08), 3)
        if method == "passthrough" and chance.random() < 0.6:
            own["scale"] = self._value(0.5, 1.5)
        return {**entry, "parameters": own} if own else entry

    def shared(self, method: str) -> dict[str, Any]:
        chance = self._chance
        shared: dict[str, Any] = {}
        if method == "slerp":
            shared["t"] = self._value(0.0, 1.0)
        if method == "nearswap":
            shared["t"] = round(chance.uniform(0.0005, 0.02), 5)
        if method in WEIGHTED - {"nuslerp"} and chance.random() < 0.4:
            shared["normalize"] = chance.random() < 0.5
        if method in SPARSE | {"task_arithmetic"} and chance.random() < 0.3:
            shared["lambda"] = round(chance.uniform(0.5, 1.5), 2)
        if method == "sce" and chance.random() < 0.7:
            shared["select_topk"] = round(chance.uniform(0.2, 1.0), 2)
        if method == "ramplus_tl":
            shared["r"] = round(chance.uniform(0.05, 0.3), 2)
        return shared

    def _value(self, low: float, high: float) -> object:
        """A number, a gradient over the layers, or values by filter with one for the rest."""
        chance = self._chance

        def number() -> float:
            return round(chance.uniform(low, high), 2)

        sort = chance.random()
        if sort < 0.55:
            return number()
        if sort < 0.75 and self._gradients:
            return [number() for _ in range(chance.randint(2, 4))]
        filters = [{"filter": name, "value": number()} for name in chance.sample(FILTERS, 2)]
        return [*filters, {"value": number()}]

    def _adapter(self, family: Family) -> dict[str, Any]:
        """Settings of a LoraConfig."""
        chance = self._chance
        targets = chance.sample(family.targets, chance.randint(1, len(family.targets)))
        settings: dict[str, Any] = {
            "r": chance.randint(1, 4),
            "lora_alpha": chance.randint(1, 8),
            "target_modules": targets,
            **family.lora,
        }
        options: list[tuple[float, Callable[[], dict[str, Any]]]] = [
            (0.3, lambda: {"use_rslora": True}),
            (0.3, lambda: {"rank_pattern": {targets[0]: chance.randint(1, 5)}}),
            (0.3, lambda: {"alpha_pattern": {targets[-1]: chance.randint(1, 9)}}),
            (0.2, lambda: {"bias": chance.choice(("all", "lora_only"))}),
            (0.15, lambda: {"init_lora_weights": False}),
            (0.05, lambda: {"use_dora": True}),
            (0.05, lambda: {"lora_bias": True}),
        ]
        for share, make in options:
            if chance.random() < share:
                settings |= make()
        if family.saved and chance.random() < 0.4:
            settings["modules_to_save"] = list(family.saved)
        if family.sliced and chance.random() < 0.2:
            settings["layers_to_transform"] = [chance.randrange(LAYERS)]
        if family.tied is False and family.words and chance.random() < 0.2:
            settings["target_modules"] = [*targets, "embed_tokens"]
        if settings.get("use_dora"):
            settings.pop("lora_bias", None)
        return settings


def _layers(family: Family, module: str) -> int:
    """How many layers a module has: two but for the first of the families' stacks."""
    return LAYERS if module == next(iter(family.stacks)) else 2
