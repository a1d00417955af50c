"""Which layers have experts, as the keys of a config.json say it: each family in its own way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergepipe.formats.layer_rules import First, Layer, Numbers, Rule, inexpressible, whole

_DENSE_FIRST = ("first_k_dense_replace", "num_dense_layers", "n_dense_layers", "num_hash_layers")


@dataclass(frozen=True, slots=True)
class DenseFirst(Rule):
    """DeepSeek's experts: not in the first layers, above those in every so many (or as listed)."""

    keys: tuple[str, ...] = ("moe_layer_freq", *_DENSE_FIRST)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        given = [key for key in _DENSE_FIRST if type(part.get(key)) is int]
        every = part.get("moe_layer_freq")
        if isinstance(every, list) or (type(every) is int and every > 1):
            self._sparse(part, given[0] if given else None, layers)
        else:
            First(tuple(given)).follow(part, layers)

    def _sparse(self, part: dict[str, Any], key: str | None, layers: Sequence[Layer]) -> None:
        sparse = [self._is_sparse(layer, key) for layer in layers]
        every = part["moe_layer_freq"]
        dense = sparse.index(True) if True in sparse else len(sparse)
        if isinstance(every, list):
            part["moe_layer_freq"] = [int(is_sparse) for is_sparse in sparse]
            if key is not None:
                part[key] = min(dense, part[key])
            return
        # As many dense layers as there are, or fewer: those below the next multiple are dense too.
        for first in range(dense + 1) if key is not None else (0,):
            said = [place >= first and place % every == 0 for place in range(len(sparse))]
            if said == sparse:
                if key is not None:
                    part[key] = first
                return
        wrong = [
            place >= dense and is_sparse != (place % every == 0)
            for place, is_sparse in enumerate(sparse)
        ]
        raise inexpressible("moe_layer_freq", wrong.index(True) if True in wrong else dense)

    def _is_sparse(self, layer: Layer, key: str | None) -> bool:
        every = layer.part.get("moe_layer_freq", 1)
        first = 0 if key is None else whole(layer.part, key, 0)
        if isinstance(every, list):
            listed = layer.number < len(every) and bool(every[layer.number])
            return layer.number >= first and listed
        return layer.number >= first and (type(every) is not int or layer.number % every == 0)


@dataclass(frozen=True, slots=True)
class SparseSteps(Rule):
    """Qwen's experts: in every so many layers, but for some; said by the exceptions alone."""

    keys: tuple[str, ...] = ("decoder_sparse_step", "mlp_only_layers")

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        if part.get("is_encoder_decoder") or all(key not in part for key in self.keys):
            return
        dense = [self._is_dense(layer) for layer in layers]
        step = whole(part, "decoder_sparse_step", 1)
        only = Numbers(self.keys).of(part, "mlp_only_layers")
        said = [
            place in only or not step or bool((place + 1) % step) for place in range(len(dense))
        ]
        numbers = [place for place, is_dense in enumerate(dense) if is_dense]
        if said == dense and all(number < len(dense) for number in only):
            return
        if "decoder_sparse_step" in part:
            part["decoder_sparse_step"] = 1
        part["mlp_only_layers"] = numbers

    def _is_dense(self, layer: Layer) -> bool:
        step = whole(layer.part, "decoder_sparse_step", 1)
        only = Numbers(self.keys).of(layer.part, "mlp_only_layers")
        return layer.number in only or not step or bool((layer.number + 1) % step)


@dataclass(frozen=True, slots=True)
class Interleaved(Rule):
    """Llama 4's experts: in every so many layers, unless a list of their numbers is given."""

    keys: tuple[str, ...] = ("interleave_moe_layer_step",)

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        step = part.get(self.keys[0])
        if type(step) is not int or step < 1 or isinstance(part.get("moe_layers"), list):
            return
        numbers = [place for place, layer in enumerate(layers) if self._is_sparse(layer, step)]
        if numbers != list(range(step - 1, len(layers), step)):
            part["moe_layers"] = numbers

    def _is_sparse(self, layer: Layer, step: int) -> bool:
        listed = layer.part.get("moe_layers")
        if isinstance(listed, list):
            return layer.number in listed
        return (layer.number + 1) % max(whole(layer.part, self.keys[0], step), 1) == 0


@dataclass(frozen=True, slots=True)
class Between(Rule):
    """Ernie's experts: every so many layers from a first one to a last (-1: the last of all)."""

    keys: tuple[str, ...] = ("moe_layer_interval", "moe_layer_start_index", "moe_layer_end_index")

    def _bring(self, part: dict[str, Any], layers: Sequence[Layer]) -> None:
        if "moe_layer_start_index" not in part:
            return
        sparse = [self._is_sparse(layer) for layer in layers]
        places = [place for place, is_sparse in enumerate(sparse) if is_sparse]
        first, last = (places[0], places[-1]) if places else (len(sparse), len(sparse) - 1)
        every = max(whole(part, self.keys[0], 1), 1)
        said = [(place + 1) % every == 0 and first <= place <= last for place in range(len(sparse))]
        if said != sparse:
            wrong = (place for place, is_sparse in enumerate(sparse) if is_sparse != said[place])
            raise inexpressible(self.keys[0] if every > 1 else self.keys[1], next(wrong))
        part[self.keys[1]] = first
        end = part.get(self.keys[2], -1)
        part[self.keys[2]] = -1 if end == -1 and last == len(sparse) - 1 else last

    def _is_sparse(self, layer: Layer) -> bool:
        every = max(whole(layer.part, self.keys[0], 1), 1)
        last = whole(layer.part, self.keys[2], -1)
        last = layer.count - 1 if last == -1 else last
        first = whole(layer.part, self.keys[1], 0)
        return first <= layer.number <= last and (layer.number + 1) % every == 0
