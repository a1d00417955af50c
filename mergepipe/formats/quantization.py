"""Quantized checkpoints: recognised by their tensors, and 8-bit floats turned into what they mean.

A quantized checkpoint holds codes, and numbers beside them that say what the codes mean. Merging
either as if it were a weight gives a model that is wrong and looks right. What tells them is the
tensors, never the config alone: a config may keep its `quantization_config` over whole weights.

Layouts: those that the quantizers of transformers 5 write or read, and those of MLX, ModelOpt and
ComfyUI. 8-bit floats are weights but for a factor per tensor, row, column or block of both
(DeepSeek-V3's report, section 3.3; `Fp8Dequantize` of transformers), so they can be merged exactly.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from msgspec import Struct

from mergepipe.dtypes import DType, Kind
from mergepipe.errors import MergeInputError
from mergepipe.formats.buffers import is_buffer
from mergepipe.names import quoted

Outline = Mapping[str, tuple[DType, tuple[int, ...]]]
"""A model's tensors: dtype and shape by name."""

QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")
FLOATS = frozenset({"F8_E4M3", "F8_E5M2"})
_SCALE_DTYPES = frozenset({"F32", "BF16", "F16", "F8_E8M0", "U8"})
_DEFAULT_BLOCK = 128  # DeepSeek-V3's, and the default of transformers' FineGrainedFP8Config
# What the scale of `x.weight` is called beside it, and of a parameter by another name.
_WEIGHT_SCALES = (
    *("weight_scale_inv", "weight_scale", "scale", "qscale_weight", "scale_weight"),
)  # fmt: skip
_SCALES = ("_scale_inv", "_scale")
# Of activations and caches: they are no part of what the weights mean.
_BESIDE = (
    *("input_scale", "activation_scale", "output_scale", "input_scale_ub", "qscale_act"),
    *("scale_input", "k_scale", "v_scale", "q_scale", "prob_scale", "scaled_fp8"),
)
# Endings that no weight has; the quantizer that writes them.
_SIGNS = (
    ("GPTQ or AWQ", (".qweight", ".qzeros", ".g_idx")),
    ("bitsandbytes", (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB",
                      ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4",
                      ".weight_format")),
    ("HQQ or SINQ", (".W_q",)),
    ("compressed-tensors", (".weight_packed", ".weight_shape", ".weight_zero_point", ".bitmask",
                            ".weight_global_scale", ".weight_g_idx")),
    ("ModelOpt", (".weight_scale_2", ".pre_quant_scale")),
    ("quanto", (".weight._data", ".weight._scale")),
    ("AQLM", (".codebooks",)),
    ("VPTQ", (".centroids.weight", ".res_centroids.weight", ".outlier_centroids.weight")),
    ("SpQR", (".dense_weights", ".col_vals", ".row_offsets", ".in_perm")),
    ("TorchAO", ("weight_qdata", "weight_scale_and_zero", "_weight_zero_point")),
    ("QuIP#", (".Qidxs", ".SU", ".SV")),
    ("EXL2 or EXL3", (".q_weight", ".q_invperm", ".trellis", ".suh", ".svh")),
    ("HIGGS", (".tables2",)),
    ("FP-Quant", (".dqweight", ".forward_hadamard_matrix")),
    ("MXFP4", ("_blocks",)),
    ("Metal", (".qbiases",)),
    ("EETQ", (".weight_scales",)),
    ("Gemma", (".embedding_quantized",)),
    ("block FP8", ("_scale_inv",)),
    ("Quark", (".weight_quantizer.scale",)),
    ("GGUF", (".qweight_type",)),
)  # fmt: skip
_CODES = frozenset({Kind.INTEGER, Kind.UNSIGNED})
# Beside a weight, they say that it means more than its numbers, whatever its dtype.
_WEIGHT_CODES = ("weight_scale", "weight_scale_inv")
# A config's words for weights that are rotated: what undoes it is not in them (compressed-tensors).
_ROTATIONS = ("transform_config", "rotation_config", "hadamard")


class Quantization(Struct, frozen=True):
    """How a model is quantized.

    method  of which quantizer, in the words of the config or of the tensors' names
    shown   the first tensor that shows it
    scales  the names of 8-bit floats -> of their scales (None: they are what they say); None where
            any of the weights is more than that
    block   rows and columns that share a scale, where the config says so
    """

    method: str
    shown: str
    scales: Mapping[str, str | None] | None
    block: tuple[int, int] | None = None

    def beside(self, outline: Outline) -> frozenset[str]:
        """The tensors that go away once the weights are what they mean."""
        used = {name for name in (self.scales or {}).values() if name is not None}
        return frozenset(
            used | {name for name in outline if _is_of_activations(name)} - set(self.scales or {})
        )


def _is_of_activations(name: str) -> bool:
    """Whether this is a scale of what goes through a layer, not of its weights."""
    last = name.rpartition(".")[2]
    return last in _BESIDE or last.endswith(("_input_scale", "_activation_scale", "_cache_scale"))


def read_quantization(outline: Outline, config: Mapping[str, Any] | None) -> Quantization | None:
    """How a model is quantized, from its tensors; the config names the method. None: it is not."""
    settings = _settings(config)
    modules = _modules(outline)
    shown, named = _shown(outline, modules)
    if shown is None:
        return None
    method = named if settings is None else _method(settings, named)
    block = _block(settings)
    try:
        scales = _scales(outline, modules, block, settings)
    except _NotFloats:
        return Quantization(method, shown, None)
    return Quantization(method, shown, scales, block)


def unquantized(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says nothing of quantization, in any of its parts."""
    return {
        key: unquantized(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in QUANTIZATION_KEYS
    }


def whole_by_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a model whose weights are whole, without the codes that it speaks of.

    None where it speaks of none. What was trained from a quantized model keeps such a config, and
    libraries then look for codes, or make up the scales that they do not find. BitNet's weights
    are whole, and are rounded as they are used.
    """
    settings = _settings(config)
    if settings is None or _method(settings, "") == "bitnet":
        return None
    return unquantized(config)


def refuse_codes(outline: Outline, config: Mapping[str, Any] | None, label: str) -> None:
    """Raise MergeInputError, naming method and tensor, for a model whose weights are codes."""
    quantization = read_quantization(outline, config)
    if quantization is None:
        return
    raise MergeInputError(
        f"{quoted(label)} is quantized ({quantization.method}): {quoted(quantization.shown)} holds "
        "codes, not weights",
        "merge the models that were quantized, and quantize the result; or load it with "
        "transformers, call model.dequantize(), save it, and merge that",
    )


def scale_blocks(
    shape: tuple[int, ...], scale: tuple[int, ...], block: tuple[int, int] | None
) -> tuple[int, ...] | None:
    """How many elements share a scale, along each dimension of a weight; None: it does not fit.

    One scale, one for each row (`[rows]` or `[rows, 1]`), column or matrix, or one for each block.
    """
    if prod(scale) == 1:
        return shape
    if len(scale) == 1 and len(shape) == 2 and scale[0] == shape[0]:
        return (1, shape[1])
    if len(scale) != len(shape):
        return None
    sizes = []
    for place, (length, count) in enumerate(zip(shape, scale, strict=True), 2 - len(shape)):
        given = [block[place]] if block is not None and place >= 0 else []
        size = _block_size(length, count, given)
        if size is None:
            return None
        sizes.append(size)
    return tuple(sizes)


def _block_size(length: int, count: int, given: list[int]) -> int | None:
    if count == 1:
        return length
    if count == length:
        return 1
    for size in (*given, _DEFAULT_BLOCK):
        if -(-length // size) == count:
            return size
    return length // count if count and length % count == 0 else None


class _NotFloats(Exception):
    """Some codes are more than 8-bit floats with scales."""


def _settings(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a config says of quantization: its own, or that of a part."""
    if config is None:
        return None
    for home in (config, *(part for part in config.values() if isinstance(part, dict))):
        for key in QUANTIZATION_KEYS:
            if isinstance(home.get(key), dict):
                settings: Mapping[str, Any] = home[key]
                return settings
    return None


def _method(settings: Mapping[str, Any], named: str) -> str:
    given = settings.get("quant_method") or settings.get("quant_algo")
    return given if isinstance(given, str) and given else named


def _block(settings: Mapping[str, Any] | None) -> tuple[int, int] | None:
    size = None if settings is None else settings.get("weight_block_size")
    if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
        return size[0], size[1]
    return None


def _modules(outline: Outline) -> dict[str, list[str]]:
    """The tensors right in each module: the last parts of their names."""
    modules: dict[str, list[str]] = {}
    for name in outline:
        stem, _, last = name.rpartition(".")
        modules.setdefault(stem, []).append(last)
    return modules


def _shown(outline: Outline, modules: Mapping[str, list[str]]) -> tuple[str | None, str]:
    """The first tensor that is no weight but part of a code, and what writes such a one."""
    for name, (dtype, shape) in outline.items():
        for method, endings in _SIGNS:
            if name.endswith(endings) and _is_sign(name, outline):
                return name, method
        if dtype.kind is Kind.FLOAT and dtype.bits <= 8:
            return name, f"{dtype.bits}-bit floats"
        stem, _, last = name.rpartition(".")
        if last in _WEIGHT_CODES and "weight" in modules[stem]:
            return name, "weights with scales"
        if _packed(name, dtype, shape, modules[stem]):
            return name, f"{dtype} codes"
    return None, ""


def _packed(name: str, dtype: DType, shape: tuple[int, ...], beside: list[str]) -> bool:
    """Whether integers are the codes of weights: they are the weight, or there is no other.

    Tables of numbers that a model looks up stand beside a weight, and so do indices and masks that
    follow from its config.
    """
    if dtype.kind not in _CODES or dtype.bits >= 64 or prod(shape) <= 1:
        return False
    if name.endswith((".weight", "_proj")):
        return True
    return len(shape) >= 2 and not is_buffer(name, shape) and "weight" not in beside


def _is_sign(name: str, outline: Outline) -> bool:
    """Some endings tell only beside another tensor."""
    if name.endswith("_blocks"):
        return name.removesuffix("_blocks") + "_scales" in outline
    return True


def _scales(
    outline: Outline,
    modules: Mapping[str, list[str]],
    block: tuple[int, int] | None,
    settings: Mapping[str, Any] | None,
) -> dict[str, str | None]:
    """The scale of every 8-bit float. Raises _NotFloats where anything is coded otherwise."""
    if settings is not None and any(settings.get(key) for key in _ROTATIONS):
        raise _NotFloats
    scales: dict[str, str | None] = {}
    for name, (dtype, shape) in outline.items():
        if dtype.name in FLOATS and not _is_of_activations(name):
            scales[name] = _scale(name, shape, outline, block, settings)
    used = set(scales.values())
    for name, (dtype, shape) in outline.items():
        if name in scales or name in used or _is_of_activations(name):
            continue
        odd = dtype.kind is Kind.FLOAT and dtype.bits <= 8
        packed = _packed(name, dtype, shape, modules[name.rpartition(".")[0]])
        if odd or packed or any(name.endswith(endings) for _, endings in _SIGNS):
            raise _NotFloats
    if not scales:
        raise _NotFloats
    _refuse_companions(outline, scales)
    return scales


def _refuse_companions(outline: Outline, scales: Mapping[str, str | None]) -> None:
    """Raise _NotFloats where something beside or below a weight may say more of its numbers."""
    known = {*scales, *scales.values()}
    modules = {name.removesuffix(".weight") for name in scales}
    for name in outline:
        if name in known or _is_of_activations(name):
            continue
        for cut in (place for place, letter in enumerate(name) if letter in "._"):
            owners = modules if name[cut] == "." else scales
            if name[:cut] in owners and name[cut + 1 :] != "bias":
                raise _NotFloats


def _scale(
    name: str,
    shape: tuple[int, ...],
    outline: Outline,
    block: tuple[int, int] | None,
    settings: Mapping[str, Any] | None,
) -> str | None:
    stem, _, last = name.rpartition(".")
    names = [name + ending for ending in _SCALES]
    if last == "weight":
        names += [f"{stem}.{spelling}" if stem else spelling for spelling in _WEIGHT_SCALES]
    for spelling in names:
        if spelling not in outline:
            continue
        dtype, of = outline[spelling]
        if dtype.name not in _SCALE_DTYPES or scale_blocks(shape, of, block) is None:
            raise _NotFloats
        return spelling
    if settings is not None:
        raise _NotFloats  # its scales are somewhere else, or missing
    return None
