"""A model as large as asked for, in shards, quickly: its size and layout are a checkpoint's.

python benchmarks/generate.py DIRECTORY SIZE [SEED]

Weights are bfloat16 with the exponents of a normal distribution and low bits drawn anew for every
tensor: no block repeats, and codecs find what they find in real weights.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mergepipe.sizes import parse_size

SHARD_BYTES = 256 << 20
HIDDEN = 2048
INNER = 5632
VOCABULARY = 8192
HEAD = 128
_POOL = 1 << 23  # elements; one draw of normal numbers serves all tensors
_LAYER = (
    ("self_attn.q_proj.weight", (HIDDEN, HIDDEN)),
    ("self_attn.k_proj.weight", (HIDDEN // 4, HIDDEN)),
    ("self_attn.v_proj.weight", (HIDDEN // 4, HIDDEN)),
    ("self_attn.o_proj.weight", (HIDDEN, HIDDEN)),
    ("mlp.gate_proj.weight", (INNER, HIDDEN)),
    ("mlp.up_proj.weight", (INNER, HIDDEN)),
    ("mlp.down_proj.weight", (HIDDEN, INNER)),
    ("input_layernorm.weight", (HIDDEN,)),
    ("post_attention_layernorm.weight", (HIDDEN,)),
)
_ENDS = (
    ("model.embed_tokens.weight", (VOCABULARY, HIDDEN)),
    ("model.norm.weight", (HIDDEN,)),
    ("lm_head.weight", (VOCABULARY, HIDDEN)),
)


def layer_count(size_bytes: int) -> int:
    """Layers until the model takes about `size_bytes` as bfloat16."""
    ends, layer = (2 * sum(int(np.prod(shape)) for _, shape in part) for part in (_ENDS, _LAYER))
    return max(1, round((size_bytes - ends) / layer))


def tensor_shapes(layers: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama's tensors."""
    inner = [
        (f"model.layers.{layer}.{name}", shape) for layer in range(layers) for name, shape in _LAYER
    ]
    return [_ENDS[0], *inner, *_ENDS[1:]]


def config(layers: int) -> str:
    """config.json, as transformers and merge tools read it."""
    return json.dumps(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_attention_heads": HIDDEN // HEAD,
            "num_key_value_heads": HIDDEN // 4 // HEAD,
            "num_hidden_layers": layers,
            "vocab_size": VOCABULARY,
            "torch_dtype": "bfloat16",
        },
        indent=2,
    )


def write_model(directory: Path, size_bytes: int, seed: int = 0) -> int:
    """Write a sharded checkpoint; returns the bytes it takes."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    pool = random.standard_normal(_POOL, dtype=np.float32)
    pool *= 0.02
    bits = (pool.view(np.uint32) >> 16).astype(np.uint16)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    held = 0
    layers = layer_count(size_bytes)
    for name, shape in tensor_shapes(layers):
        length = 2 * int(np.prod(shape))
        if shards[-1] and held + length > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append((name, shape))
        held += length
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / file, shard, bits, random)
        weight_map |= {name: file for name, _ in shard}
    index = {"metadata": {"total_size": size_bytes}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (directory / "config.json").write_text(config(layers))
    return sum(path.stat().st_size for path in directory.iterdir())


def _write_shard(
    path: Path,
    tensors: list[tuple[str, tuple[int, ...]]],
    pool: npt.NDArray[np.uint16],
    random: np.random.Generator,
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors:
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in tensors:
            left = int(np.prod(shape))
            while left:
                count = min(left, 1 << 22)
                start = int(random.integers(0, len(pool) - count + 1))
                noise = np.frombuffer(random.bytes(2 * count), np.uint16) & 0x7F
                file.write((pool[start : start + count] ^ noise).data)
                left -= count


if __name__ == "__main__":
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    print(write_model(Path(sys.argv[1]), parse_size(sys.argv[2]), seed))
