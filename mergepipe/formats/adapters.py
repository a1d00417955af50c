"""LoRA adapters as PEFT saves them: what each of their tensors does to the model under them.

    adapter_config.json        rank, alpha, patterns, flags (adapter_config.py)
    adapter_model.safetensors  base_model.model.<module>.lora_A.weight (r x in), .lora_B.weight
                               (out x r), .lora_embedding_A (r x rows), .lora_embedding_B
                               (columns x r), of convolutions (r x in x kernel) and (out x r x
                               1...); whole tensors (`modules_to_save`, trained biases) under
                               their own names; .lora_magnitude_vector (DoRA), .lora_B.bias
                               (`lora_bias`), .token_adapter.trainable_tokens_delta (rows)

The change of a weight is scale * (B @ A), transposed for embeddings and for layers that keep their
weight as (in, out). scale is alpha / r, or alpha / sqrt(r) with `use_rslora`. Hu et al., "LoRA",
2021; Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023. Nothing here reads a weight.

Names are those of modules in memory, which the model's files may call otherwise
(weight_names.py). Which weights are (in, out) follows from the model's architecture: PEFT saves
one `fan_in_fan_out`, that of the module it wrapped last, and on loading goes by the module.
"""

from collections.abc import Iterable, Mapping
from math import prod, sqrt
from typing import Any

from msgspec import Struct, field

from mergepipe.errors import MergeInputError
from mergepipe.formats.adapter_config import ADAPTER_CONFIG, AdapterConfig, read_config
from mergepipe.formats.weight_names import Spelling, other_layout
from mergepipe.names import quoted

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# A module as it was before it was trained whole: saved with `bias: all`, and never used.
_ORIGINAL = ".original_module."
_PREFIX = "base_model.model."
_EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")
_LINEAR = (".lora_A.weight", ".lora_B.weight")
_MAGNITUDES = ("magnitude_vector", "magnitude_vector.weight")
_TOKENS = ".token_adapter.trainable_tokens_delta"
# Modules of class Conv1D, whose weights are (in, out), and the models that have them
# (transformers: gpt2, openai, decision_transformer, imagegpt, clvp).
_TURNED = frozenset(("c_attn", "q_attn", "c_proj", "c_fc"))
_TURNED_MODELS = frozenset(
    ("gpt2", "openai-gpt", "decision_transformer", "imagegpt", "clvp_decoder", "clvp")
)
# They make more of their input: what is wider than high is (in, out).
_WIDENING = ("c_attn.weight", "c_fc.weight")

Shape = tuple[int, ...]


class LowRankChange(Struct, frozen=True):
    """scale * up @ down, by the names of the adapter's tensors: up is (rows, r), down (r, columns).

    transposed  up and down were saved the other way round: the change is scale * (up @ down)^T
    magnitude   DoRA: the lengths that the changed weight's rows get; its columns, where transposed
    """

    up: str
    down: str
    scale: float
    transposed: bool = False
    magnitude: str | None = None


class BiasChange(Struct, frozen=True):
    """What is added to a bias: scale times a tensor of the adapter."""

    name: str
    scale: float


class TrainedRows(Struct, frozen=True):
    """Rows of embeddings that are the adapter's own: row k of its tensor stands at places[k]."""

    name: str
    places: tuple[int, ...]


class Adapter(Struct, frozen=True):
    """What an adapter does, by the names of the model's tensors.

    changes   low-rank changes; of what `replaced` puts there, where a tensor is in both
    replaced  tensors that are the adapter's own: name of the model's -> name of the adapter's
    keeps_tied  head and embeddings were trained as one, if the model shares them
    biases    changes of biases, and `rows` of embeddings, of what `replaced` puts there too
    """

    changes: Mapping[str, LowRankChange]
    replaced: Mapping[str, str]
    trained_on: str | None = None
    keeps_tied: bool = False
    biases: Mapping[str, BiasChange] = field(default_factory=dict)
    rows: Mapping[str, TrainedRows] = field(default_factory=dict)


def is_adapter(paths: Iterable[str]) -> bool:
    """Whether a directory with these files holds an adapter rather than a model."""
    return ADAPTER_CONFIG in set(paths)


def read_adapter(
    config: bytes,
    tensors: Mapping[str, Shape],
    model: Mapping[str, Shape],
    label: str,
    model_config: Mapping[str, Any] | None = None,
) -> Adapter:
    """What an adapter does to a model.

    tensors, model  names and shapes of the adapter's tensors and of the model's
    model           with the head, too, of a model that shares it with its embeddings
    model_config    config.json of the model, if it has one

    Raises MalformedFile for a config that is none, MergeInputError naming `label` and the tensor
    for kinds of adapter that are no plain LoRA, and where adapter and model do not fit.
    """
    return _Reading(read_config(config, label), tensors, model, label, model_config).run()


class _Reading:
    """An adapter being read for a model."""

    def __init__(
        self,
        settings: AdapterConfig,
        tensors: Mapping[str, Shape],
        model: Mapping[str, Shape],
        label: str,
        model_config: Mapping[str, Any] | None,
    ) -> None:
        self._settings = settings
        self._tensors = tensors
        self._model = model
        self._label = label
        self._spelling = Spelling(model)
        self._turned = _keeps_turned(model, model_config)

    def run(self) -> Adapter:
        changes: dict[str, LowRankChange] = {}
        replaced: dict[str, str] = {}
        biases: dict[str, BiasChange] = {}
        rows: dict[str, TrainedRows] = {}
        for name in sorted(self._tensors):
            if _ORIGINAL in name:
                continue
            module, down, up = _factor_names(name)
            if name.endswith(_TOKENS):
                of, trained = self._rows(name)
                rows[of] = trained
            elif self._is_part(name):
                continue  # it comes with its factors
            elif module is None:
                target = self._target(name)
                self._check_whole(name, target)
                assert target is not None
                replaced[target] = name
            elif name == down:
                target = self._target(f"{module}.weight")
                if target is None:
                    raise self._lacking(name, f"{module}.weight", "the model has no such weight")
                if up not in self._tensors:
                    raise self._misfit(name, f"{quoted(up)} is missing")
                if target in changes:
                    raise self._misfit(name, f"{quoted(target)} is changed twice")
                changes[target] = self._change(module, down, up, target)
                if self._settings.lora_bias:
                    bias, added = self._bias(module, up, changes[target].scale)
                    biases[bias] = added
            elif down not in self._tensors:
                raise self._misfit(name, f"{quoted(down)} is missing")
        both = sorted(rows.keys() & (changes.keys() | replaced.keys()))
        if both:
            raise self._misfit(rows[both[0]].name, f"{quoted(both[0])} is changed otherwise too")
        if not (changes or replaced or rows):
            raise MergeInputError(f"{quoted(self._label)} is an adapter that changes nothing")
        settings = self._settings
        return Adapter(
            changes=changes,
            replaced=replaced,
            trained_on=settings.base_model_name_or_path,
            keeps_tied=settings.ensure_weight_tying,
            biases=biases,
            rows=rows,
        )

    def _is_part(self, name: str) -> bool:
        """Whether a tensor is a factor's bias or a magnitude, in an adapter that has such."""
        stem, _, kind = name.rpartition(".lora_")
        if self._settings.use_dora and kind in _MAGNITUDES:
            down = next((a for a, _ in (_LINEAR, _EMBEDDING) if stem + a in self._tensors), None)
        elif self._settings.lora_bias and kind == "B.bias":
            down = _LINEAR[0] if stem + _LINEAR[0] in self._tensors else None
        else:
            return False
        if down is None:
            raise self._misfit(name, "its factors are missing")
        return True

    def _bias(self, module: str, up: str, scale: float) -> tuple[str, BiasChange]:
        name = up.removesuffix("weight") + "bias"
        target = self._target(f"{module}.bias")
        if name not in self._tensors:
            raise self._misfit(up, f"{quoted(name)} is missing, and the config has lora_bias")
        if target is None:
            raise self._misfit(name, "the model has no such bias to add it to")
        if self._tensors[name] != self._model[target]:
            raise self._misfit(
                name, f"its shape is {list(self._tensors[name])}, the model's "
                f"{list(self._model[target])}"
            )  # fmt: skip
        return target, BiasChange(name, scale)

    def _rows(self, name: str) -> tuple[str, TrainedRows]:
        """The embeddings that trained rows are of, and their places in it."""
        module = name.removesuffix(_TOKENS)
        target = self._target(f"{module}.weight")
        if target is None:
            raise self._lacking(name, f"{module}.weight", "the model has no such weight")
        places = self._settings.token_places(module.removeprefix(_PREFIX))
        shape, rows = self._tensors[name], self._model[target]
        if places is None or shape != (len(places), *rows[1:]):
            raise self._misfit(
                name, f"its shape is {list(shape)}, and the config names "
                f"{len(places or ())} tokens of {list(rows)}"
            )  # fmt: skip
        if any(not 0 <= place < rows[0] for place in places):
            raise self._misfit(name, f"it is of token {max(places)}, and there are {rows[0]} rows")
        return target, TrainedRows(name, tuple(places))

    def _magnitude(self, down: str, stem: str, count: int) -> str | None:
        """The lengths that DoRA gives a weight. Raises MergeInputError where they do not fit."""
        if not self._settings.use_dora:
            return None
        names = [f"{stem}.lora_{kind}" for kind in _MAGNITUDES]
        name = next((spelling for spelling in names if spelling in self._tensors), None)
        if name is None:
            raise self._misfit(down, f"{quoted(names[0])} is missing, and the config says DoRA")
        if prod(self._tensors[name]) != count:
            raise self._misfit(
                name, f"its shape is {list(self._tensors[name])}, and {count} are needed"
            )
        return name

    def _target(self, name: str) -> str | None:
        """The model's tensor that an adapter's tensor is about."""
        name = name.removeprefix(_PREFIX)
        for wrapper in (".modules_to_save.default", ".modules_to_save", ".base_layer"):
            name = name.replace(wrapper, "")
        return self._spelling.of(name)

    def _check_whole(self, name: str, target: str | None) -> None:
        if ".lora_" in name:
            raise self._misfit(name, "this is no factor of a plain LoRA")
        if target is None:
            raise self._lacking(name, name.removeprefix(_PREFIX), "the model has no such tensor")
        mine, theirs = self._tensors[name], self._model[target]
        if mine != theirs:
            raise self._misfit(name, f"its shape is {list(mine)}, the model's {list(theirs)}")

    def _change(self, module: str, down: str, up: str, target: str) -> LowRankChange:
        first, second, weight = self._tensors[down], self._tensors[up], self._model[target]
        rank = first[0] if first else 0
        fits = len(first) == len(second) == len(weight) >= 2
        if not fits or prod(second[1:]) != rank or second[1] != rank:
            raise self._misfit(
                down, f"{list(second)} times {list(first)} is no change of {list(weight)}"
            )
        if not rank:
            raise self._misfit(down, "its rank is 0")
        shape = (second[0], *first[1:])
        turned = shape[::-1] == weight and (shape != weight or self._is_turned(module, down))
        turned = turned and len(weight) == 2
        if not turned and shape != weight:
            raise self._misfit(
                down, f"it is a change of {list(shape)}, and the weight is {list(weight)}"
            )
        alpha = self._settings.alpha(module, self._label)
        scale = alpha / (sqrt(rank) if self._settings.use_rslora else rank)
        magnitude = self._magnitude(down, _stem(down), weight[1] if turned else weight[0])
        return LowRankChange(up, down, scale, turned, magnitude)

    def _is_turned(self, module: str, down: str) -> bool:
        """Whether a square weight is (in, out)."""
        if down.endswith(_EMBEDDING[0]):
            return True
        if self._turned is None:
            return self._settings.fan_in_fan_out
        return self._turned and module.rpartition(".")[2] in _TURNED

    def _lacking(self, tensor: str, target: str, problem: str) -> MergeInputError:
        """The error for a weight that the model does not have, or has in another layout."""
        layout = other_layout([target], list(self._model))
        if layout is None:
            return self._misfit(tensor, problem)
        what, apart = layout
        how = "one by one" if apart else "in one tensor"
        return MergeInputError(
            f"the adapter {quoted(self._label)} does not fit: tensor {quoted(tensor)}: the model "
            f"keeps {what} {how}",
            "merge it into its model with peft (merge_and_unload), and commit the result",
        )

    def _misfit(self, tensor: str, problem: str) -> MergeInputError:
        return MergeInputError(
            f"the adapter {quoted(self._label)} does not fit: tensor {quoted(tensor)}: {problem}",
            "name the model that it was trained on, as in model+adapter",
        )


def _keeps_turned(model: Mapping[str, Shape], config: Mapping[str, Any] | None) -> bool | None:
    """Whether a model has layers that keep their weight as (in, out); None: nothing tells."""
    kind = None if config is None else config.get("model_type")
    if isinstance(kind, str):
        return kind in _TURNED_MODELS
    wide = {
        shape[1] > shape[0]
        for name, shape in model.items()
        if name.endswith(_WIDENING) and len(shape) == 2 and shape[0] != shape[1]
    }
    return wide.pop() if len(wide) == 1 else None


def _factor_names(name: str) -> tuple[str | None, str, str]:
    """The module that a factor is about, and the names of its down and up factor."""
    for down, up in (_LINEAR, _EMBEDDING):
        for suffix in (down, up):
            if name.endswith(suffix):
                stem = name.removesuffix(suffix)
                return stem.removeprefix(_PREFIX), stem + down, stem + up
    return None, "", ""


def _stem(down: str) -> str:
    """A module as the adapter's names begin."""
    return down.removesuffix(_LINEAR[0]).removesuffix(_EMBEDDING[0])
