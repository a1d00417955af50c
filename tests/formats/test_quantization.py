"""Quantized checkpoints are known by their tensors, whatever their config says."""

from collections.abc import Mapping
from typing import Any

import pytest

from mergepipe.dtypes import dtype_of
from mergepipe.errors import MergeInputError
from mergepipe.formats.quantization import read_quantization, refuse_codes, scale_blocks

P = "model.layers.0.mlp.down_proj"
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def outline(tensors: Tensors) -> dict[str, Any]:
    return {name: (dtype_of(dtype), shape) for name, (dtype, shape) in tensors.items()}


# The layouts that transformers' quantizers (and ModelOpt, MLX) write, each with what tells.
CODED: dict[str, Tensors] = {
    "gptq": {f"{P}.g_idx": ("I32", (64,)), f"{P}.qweight": ("I32", (8, 64)),
             f"{P}.qzeros": ("I32", (1, 8)), f"{P}.scales": ("F16", (1, 64))},
    "awq": {f"{P}.qweight": ("I32", (64, 8)), f"{P}.qzeros": ("I32", (1, 8)),
            f"{P}.scales": ("F16", (1, 64))},
    "bitsandbytes 4 bits": {f"{P}.weight": ("U8", (1024, 1)), f"{P}.weight.absmax": ("U8", (32,)),
                            f"{P}.weight.quant_map": ("F32", (16,)),
                            f"{P}.weight.quant_state.bitsandbytes__nf4": ("U8", (90,))},
    "bitsandbytes 8 bits": {f"{P}.weight": ("I8", (32, 64)), f"{P}.SCB": ("F32", (32,)),
                            f"{P}.weight_format": ("U8", ())},
    "hqq": {f"{P}.W_q": ("U8", (16, 64)), f"{P}.scale": ("F16", (32, 1)),
            f"{P}.zero": ("F16", (32, 1))},
    "packed int4": {f"{P}.weight_packed": ("I32", (32, 8)), f"{P}.weight_scale": ("BF16", (32, 1)),
                    f"{P}.weight_shape": ("I64", (2,))},
    "int8": {f"{P}.weight": ("I8", (32, 64)), f"{P}.weight_scale": ("BF16", (32, 1))},
    "sparse": {f"{P}.bitmask": ("U8", (32, 8)), f"{P}.compressed": ("BF16", (1024,))},
    "mxfp4": {f"{P}_blocks": ("U8", (2, 32, 2, 16)), f"{P}_scales": ("U8", (2, 32, 2))},
    "nvfp4": {f"{P}.weight": ("U8", (32, 32)), f"{P}.weight_scale": ("F8_E4M3", (32, 4)),
              f"{P}.weight_scale_2": ("F32", ())},
    "quanto": {f"{P}.weight._data": ("I8", (32, 64)), f"{P}.weight._scale": ("BF16", (32, 1))},
    "eetq": {f"{P}.weight": ("I8", (64, 32)), f"{P}.weight_scales": ("F16", (32,))},
    "aqlm": {f"{P}.codes": ("I16", (32, 8, 1)), f"{P}.codebooks": ("F16", (1, 256, 1, 8)),
             f"{P}.scales": ("F16", (32, 1, 1, 1))},
    "vptq": {f"{P}.centroids.weight": ("F16", (1, 2048)), f"{P}.indices": ("I32", (1, 8, 4))},
    "spqr": {f"{P}.dense_weights": ("I64", (64,)), f"{P}.col_vals": ("I32", (9,))},
    "torchao": {f"{P}._weight_qdata": ("I8", (32, 64)), f"{P}._weight_scale": ("F32", (32,))},
    "bitnet": {f"{P}.weight": ("U8", (8, 64)), f"{P}.weight_scale": ("BF16", (1,))},
    "higgs": {f"{P}.weight": ("I16", (32, 8)), f"{P}.scales": ("F16", (32, 1)),
              f"{P}.tables2": ("F32", (16, 16))},
    "fp_quant": {f"{P}.qweight": ("U8", (32, 32)), f"{P}.scales": ("U8", (32, 2))},
    "metal": {f"{P}.weight": ("U32", (32, 8)), f"{P}.scales": ("F16", (32, 1)),
              f"{P}.qbiases": ("F16", (32, 1))},
    "mlx": {f"{P}.weight": ("U32", (32, 8)), f"{P}.scales": ("F16", (32, 1)),
            f"{P}.biases": ("F16", (32, 1))},
    "quip": {f"{P}.Qidxs": ("I64", (32, 8)), f"{P}.SU": ("F16", (64,)), f"{P}.SV": ("F16", (32,))},
    "exl2": {f"{P}.q_weight": ("I32", (8, 64)), f"{P}.q_scale": ("I32", (4, 8)),
             f"{P}.q_groups": ("I16", (8,)), f"{P}.q_invperm": ("I16", (64,))},
    "exl3": {f"{P}.suh": ("F16", (64,)), f"{P}.trellis": ("I16", (4, 2, 64))},
    "marlin": {f"{P}.B": ("I32", (4, 64)), f"{P}.s": ("F16", (1, 32))},
    "table": {f"{P}.lookup_table": ("F16", (32, 16)), f"{P}.weight_idx": ("U8", (8, 32))},
    "codes in a row": {f"{P}.weight": ("I8", (2048,)), f"{P}.scales": ("F16", (32,))},
    "fp8 of torchao": {f"{P}.weight_qdata": ("F8_E4M3", (32, 64)),
                       f"{P}.weight_scale": ("F32", (32, 1))},
    "smoothed fp8": {f"{P}.weight": ("F8_E4M3", (32, 64)), f"{P}.weight_scale": ("F32", ()),
                     f"{P}.pre_quant_scale": ("F32", (64,))},
    "fp8 between rotations": {f"{P}.weight": ("F8_E4M3", (32, 64)),
                              f"{P}.weight_scale": ("F32", ()),
                              f"{P}.weight_in.weight": ("F32", (64, 64))},
    "fp8 with two scales": {f"{P}.weight": ("F8_E4M3", (32, 64)), f"{P}.scale": ("F32", ()),
                            f"{P}.weight_scale_inv": ("F32", (2, 4))},
    "fp8 with an unknown scale": {f"{P}.weight": ("F8_E4M3", (32, 64)),
                                  f"{P}.weight_scaling": ("F32", (32, 1))},
    "experts in fp8 with zeros": {"m.experts.up": ("F8_E4M3", (2, 32, 64)),
                                  "m.experts.up_scale": ("F32", (2, 32, 1)),
                                  "m.experts.up_zero": ("F32", (2, 32, 1))},
    "floats with scales": {f"{P}.weight": ("BF16", (32, 64)), f"{P}.weight_scale": ("BF16", (1,))},
    "fp8 whose scale is nowhere": {f"{P}.weight": ("F8_E4M3", (32, 64))},
    "fp8 whose scale does not fit": {f"{P}.weight": ("F8_E4M3", (32, 64)),
                                     f"{P}.weight_scale": ("F32", (5, 3))},
}  # fmt: skip


@pytest.mark.parametrize("layout", CODED)
def test_codes_are_refused(layout: str) -> None:
    config = {"quantization_config": {"quant_method": layout}}
    with pytest.raises(MergeInputError, match=f"'m' is quantized \\({layout}\\): 'm"):
        refuse_codes(outline({"norm.weight": ("BF16", (32,)), **CODED[layout]}), config, "m")
    found = read_quantization(outline(CODED[layout]), config)
    assert found is not None
    assert found.scales is None
    if "nowhere" not in layout:
        assert read_quantization(outline(CODED[layout]), None) is not None


@pytest.mark.parametrize(
    ("scale", "shape", "block"),
    [
        ("weight_scale_inv", (2, 4), [16, 16]),  # DeepSeek-V3's blocks
        ("weight_scale", (32, 1), None),  # a row: fbgemm, compressed-tensors
        ("weight_scale", (32,), None),
        ("weight_scale", (1,), None),  # a tensor: ModelOpt, compressed-tensors
        ("weight_scale", (), None),
        ("qscale_weight", (), None),  # Mistral
        ("scale", (2, 4), [16, 16]),
        ("scale_weight", (), None),  # ComfyUI
    ],
)
def test_8_bit_floats_with_their_scales(
    scale: str, shape: tuple[int, ...], block: list[int] | None
) -> None:
    tensors: Tensors = {
        f"{P}.weight": ("F8_E4M3", (32, 64)), f"{P}.{scale}": ("F32", shape),
        f"{P}.input_scale": ("F32", ()), "norm.weight": ("BF16", (32,)),
        f"{P}.bias": ("BF16", (32,)), f"{P}_norm.weight": ("BF16", (32,)),
    }  # fmt: skip
    settings = {"quant_method": "fp8", "weight_block_size": block}
    configs: tuple[dict | None, ...] = (
        {"quantization_config": settings}, {"text_config": {}}, None,
    )  # fmt: skip
    for config in configs:
        found = read_quantization(outline(tensors), config)
        assert found is not None
        assert found.scales == {f"{P}.weight": f"{P}.{scale}"}
        assert found.beside(outline(tensors)) == {f"{P}.input_scale", f"{P}.{scale}"}


def test_rotated_weights_are_refused() -> None:
    """Transforms of compressed-tensors: the other half of the rotation is computed at run time."""
    tensors = outline({f"{P}.weight": ("F8_E4M3", (32, 64)), f"{P}.weight_scale": ("F32", ())})
    settings = {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {}}}
    with pytest.raises(MergeInputError, match="is quantized"):
        refuse_codes(tensors, {"quantization_config": settings}, "m")
    found = read_quantization(tensors, {"quantization_config": settings})
    assert found is not None
    assert found.scales is None


def test_how_many_elements_share_a_scale() -> None:
    assert scale_blocks((256, 300), (2, 3), None) == (128, 128)
    assert scale_blocks((32, 64), (2, 4), (16, 16)) == (16, 16)
    assert scale_blocks((8, 64, 32), (8, 1, 32), None) == (1, 64, 1)  # fbgemm's experts
    assert scale_blocks((8, 64, 32), (8, 4, 2), (16, 16)) == (1, 16, 16)
    assert scale_blocks((32, 64), (5, 4), None) is None


def test_whole_weights_are_no_codes() -> None:
    whole: Tensors = {
        "model.embed.weight": ("BF16", (32, 64)), "embeddings.position_ids": ("I64", (1, 512)),
        "h.0.attn.bias": ("BOOL", (1, 1, 8, 8)), "layer.gamma.scale": ("F32", (64,)),
        "bn.num_batches_tracked": ("I64", ()), "relative_position_index": ("I32", (49, 49)),
        "h.0.attn.mask": ("BOOL", (8, 8)), "mlp.gate.weight": ("BF16", (4, 32)),
        "mlp.gate.tid2eid": ("I32", (100, 2)), "position_ids": ("I32", (1, 512)),
    }  # fmt: skip
    # A model that was trained from a quantized one keeps its config.
    for config in (None, {"quantization_config": {"quant_method": "bitsandbytes"}}):
        assert read_quantization(outline(whole), config) is None
