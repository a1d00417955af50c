"""What a merge writes beside its tensors: config, shards, model card."""

import json
from typing import Any

import pytest

from mergepipe.errors import MalformedFile, MergeInputError, UsageError
from mergepipe.formats.config_json import (
    amended,
    dump_config,
    layer_count,
    parse_config,
)
from mergepipe.formats.model_card import Card, CardInput, model_card
from mergepipe.formats.restacking import LayerOrigin, restacked, restacked_part
from mergepipe.formats.shards import cut_into_shards, shard_index


def stacked(config: dict[str, Any], layers: list[int]) -> dict[str, Any]:
    return restacked(config, [LayerOrigin(config, layer) for layer in layers])


def test_lists_by_layer_follow_their_layers() -> None:
    config = {
        "architectures": ["A", "B", "C"],
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "linear_attention"],
        "eos_token_id": [1, 2, 3],
        "no_rope_layers": [1, 1, 0],
    }
    found = stacked(config, [0, 2, 1, 2])
    assert found["num_hidden_layers"] == 4
    assert found["layer_types"] == [
        "full_attention",
        "linear_attention",
        "sliding_attention",
        "linear_attention",
    ]
    assert found["no_rope_layers"] == [1, 0, 1, 0]
    assert found["eos_token_id"] == [1, 2, 3]
    assert found["architectures"] == ["A", "B", "C"]
    assert config["num_hidden_layers"] == 3


def test_a_layer_brings_its_own_models_entry() -> None:
    first = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    second = {"num_hidden_layers": 3, "layer_types": ["sliding_attention"] * 3}
    found = restacked(first, [LayerOrigin(first, 0), LayerOrigin(second, 2)])
    assert found["layer_types"] == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("config", "layers", "kinds"),
    [
        ({"model_type": "gemma2"}, [0, 1, 1, 2], "sffs"),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 2}, [1, 0, 0], "fss"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 2},
            [3, 0, 1, 2],
            "sffs",
        ),
    ],
)
def test_what_a_layers_number_implied_is_written_down(
    config: dict[str, Any], layers: list[int], kinds: str
) -> None:
    found = stacked({"num_hidden_layers": 4, **config}, layers)
    assert "".join(kind[0] for kind in found["layer_types"]) == kinds


def test_the_same_stack_is_the_same_config() -> None:
    config = {"model_type": "gemma2", "num_hidden_layers": 2}
    assert stacked(config, [0, 1]) == config


def test_a_language_model_inside() -> None:
    config = {"text_config": {"num_hidden_layers": 2, "vocab_size": 9}, "vocab_size": 9}
    assert layer_count(config) == 2
    found = stacked(config, [0, 1, 1])
    assert found["text_config"]["num_hidden_layers"] == 3
    assert amended(config, {"vocab_size": 10}) == {
        "text_config": {"num_hidden_layers": 2, "vocab_size": 10},
        "vocab_size": 10,
    }


def test_changes_and_dtype() -> None:
    config = {"num_hidden_layers": 1, "torch_dtype": "float32", "pad_token_id": 0}
    found = amended(config, {"pad_token_id": 3, "vocab_size": 7}, "BF16")
    assert found == {
        "num_hidden_layers": 1,
        "torch_dtype": "bfloat16",
        "pad_token_id": 3,
        "vocab_size": 7,
    }
    assert parse_config(dump_config(found)) == found


def test_configs_that_are_none() -> None:
    for bad in (b"", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedFile):
            parse_config(bad)
    with pytest.raises(MergeInputError):
        stacked({}, [0])


@pytest.mark.parametrize(
    ("keys", "layers", "expected"),
    [
        ({"mlp_only_layers": [0, 2]}, [2, 3, 0], {"mlp_only_layers": [0, 2]}),
        # As many numbers as layers are numbers still.
        ({"mlp_only_layers": [0, 1, 2, 3]}, [1, 3], {"mlp_only_layers": [0, 1]}),
        ({"first_k_dense_replace": 2}, [0, 1, 1, 3], {"first_k_dense_replace": 3}),
        ({"first_k_dense_replace": 2}, [2, 3], {"first_k_dense_replace": 0}),
        (
            {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
            [1, 2, 3, 1],
            {"decoder_sparse_step": 1, "mlp_only_layers": [1, 2]},
        ),
        ({"no_rope_layer_interval": 2}, [1, 1, 2], {"no_rope_layers": [0, 0, 1]}),
        ({"no_rope_layers": [1, 0, 1, 0]}, [1, 1, 2], {"no_rope_layers": [0, 0, 1]}),
        ({"attn_layer_period": 2}, [0, 1, 0, 1], {"attn_layer_period": 2}),
        ({"num_kv_shared_layers": 0}, [3, 3], {"num_kv_shared_layers": 0}),
        ({"num_kv_shared_layers": 2}, [0, 1, 2], {"num_kv_shared_layers": 1}),
        (
            {"out_indices": [4], "out_features": ["stage4"], "stage_names": list("01234")},
            [0, 1, 1, 2, 3],
            {"out_indices": [5], "out_features": ["stage5"]},
        ),
        (
            {"moe_layer_freq": 2, "first_k_dense_replace": 1},
            [0, 1, 2],
            {"first_k_dense_replace": 1},
        ),
        ({"moe_layer_freq": [0, 1, 1, 0]}, [0, 2, 3, 3], {"moe_layer_freq": [0, 1, 0, 0]}),
        ({"moe_layers_enum": "1,3"}, [1, 2, 3], {"moe_layers_enum": "0,2"}),
        ({"interleave_moe_layer_step": 2}, [1, 1, 2], {"moe_layers": [0, 1]}),
        ({"kv_source_layers": [0, 0, 2, 2]}, [0, 2, 3], {"kv_source_layers": [0, 1, 1]}),
        ({"block_types": ["r", "a"]}, [1, 1, 2], {"block_types": ["a", "a", "r"]}),
        ({"scale_depth": 1.0}, [0], {"scale_depth": 0.5}),
        (
            {"linear_attn_config": {"kda_layers": [1, 4]}},
            [3, 1],
            {"linear_attn_config": {"kda_layers": [1]}},
        ),
        ({"hybrid_override_pattern": "M-M*"}, [3, 0, 1], {"hybrid_override_pattern": "*M-"}),
        ({"per_layer": {"mlp": [1, 2, 3, 4]}}, [3, 3], {"per_layer": {"mlp": [4, 4]}}),
        ({"pruned_heads": {"1": [0], "3": [1]}}, [3, 1], {"pruned_heads": {"0": [1], "1": [0]}}),
        (
            {"layer_types": ["a", "b", "c", "d", "p"], "num_nextn_predict_layers": 1},
            [3, 0],
            {"layer_types": ["d", "a"], "num_nextn_predict_layers": 0},
        ),
    ],
)
def test_keys_that_number_layers_follow_them(
    keys: dict[str, object], layers: list[int], expected: dict[str, object]
) -> None:
    found = stacked({"model_type": "x", "num_hidden_layers": 4, **keys}, layers)
    assert found["num_hidden_layers"] == len(layers)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("keys", "layers"),
    [
        ({"first_k_dense_replace": 1}, [1, 0, 2]),
        ({"attn_layer_period": 2}, [0, 2, 3]),
        ({"moe_layer_freq": 2}, [1, 2]),
        ({"num_kv_shared_layers": 2}, [0, 2, 3]),
        ({"out_indices": [2, 4]}, [0, 0, 1]),
        ({"kv_source_layers": [0, 0, 2, 2]}, [1, 2, 3]),
        ({"indexer_types": ["full", "shared", "full", "shared"]}, [0, 1, 3]),
        ({"scale_attn_by_inverse_layer_idx": True}, [1, 0]),
        ({"hidden_size_per_layer_input": 8}, [0, 1, 2]),
        ({"num_mem_blocks": 2}, [0, 1, 2]),
        ({"layer_group_size": 2}, [0, 2]),
    ],
)
def test_keys_that_cannot_follow_are_named(keys: dict[str, object], layers: list[int]) -> None:
    with pytest.raises(MergeInputError, match=next(iter(keys))):
        stacked({"model_type": "x", "num_hidden_layers": 4, **keys}, layers)


@pytest.mark.parametrize(
    ("config", "module", "expected"),
    [
        ({"num_layers": 2}, "encoder", {"num_layers": 3, "num_decoder_layers": 2}),
        ({"num_layers": 2, "num_decoder_layers": 2}, "decoder", {"num_decoder_layers": 3}),
        ({"decoder_layers": 2, "num_hidden_layers": 2}, "decoder", {"num_hidden_layers": 2}),
        ({"vision_config": {"depth": 2}}, "vision_tower", {"vision_config": {"depth": 3}}),
    ],
)
def test_other_parts_count_their_layers(
    config: dict[str, object], module: str, expected: dict[str, object]
) -> None:
    found = restacked_part(config, module, [LayerOrigin(config, layer) for layer in (0, 1, 1)])
    assert {key: found[key] for key in expected} == expected
    with pytest.raises(MergeInputError, match=r"'bridge'"):
        restacked_part(config, "bridge", [])


def test_predicting_layers_that_stand_apart_stay() -> None:
    config = {"num_hidden_layers": 4, "mtp_num_hidden_layers": 1}
    origins = [LayerOrigin(config, layer) for layer in (0, 1, 1)]
    assert restacked(config, origins, predicting_apart=True)["mtp_num_hidden_layers"] == 1
    assert restacked(config, origins)["mtp_num_hidden_layers"] == 0


def test_transformers_takes_a_restacked_config() -> None:
    transformers = pytest.importorskip("transformers")
    for kind in ("LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config", "Gemma3TextConfig"):
        config = json.loads(getattr(transformers, kind)(num_hidden_layers=4).to_json_string(False))
        found = stacked(config, [0, 1, 2, 1, 2, 3])
        loaded = getattr(transformers, kind)(**found)
        assert loaded.num_hidden_layers == 6
        assert len(getattr(loaded, "layer_types", None) or [0] * 6) == 6


def test_shards() -> None:
    one = cut_into_shards([10, 20], 1 << 16)
    assert [(shard.path, shard.tensors) for shard in one] == [("model.safetensors", (0, 1))]
    size = 1 << 16
    many = cut_into_shards([size // 2, size // 2, 1, 3 * size, 5], size)
    assert [shard.tensors for shard in many] == [(0, 1), (2,), (3,), (4,)]
    assert many[1].path == "model-00002-of-00004.safetensors"
    index = json.loads(shard_index(many, list("abcde"), 99))
    assert index["metadata"] == {"total_size": 99}
    assert index["weight_map"]["d"] == "model-00003-of-00004.safetensors"
    assert cut_into_shards([], size)[0].tensors == ()
    with pytest.raises(UsageError):
        cut_into_shards([1], 10)


def test_a_card_cannot_be_broken_out_of() -> None:
    import yaml

    evil = 'x"\n---\n# <b>|`'
    card = model_card(
        Card(
            "merged",
            ("ties", "linear"),
            (CardInput(evil, "base", "ab" * 32), CardInput("math", "expert", None)),
            "raw:10%",
            "models:\n```\n",
        )
    ).decode()
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["base_model"] == [evil, "math"]
    assert "````yaml\nmodels:" in body
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert "`ties`, then `linear`" in body
