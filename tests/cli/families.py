"""A base and fine-tunes of it, as checkpoints that can be merged."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

# Arguments of plan and merge.
TIES = ["math", "code", "--base", "base", "--density", "0.5"]
SHAPES = {"embed": (256, 96), "layer.w": (192, 128), "norm": (96,), "layer.v": (96, 160)}
CHANGED = {"embed", "layer.w", "layer.v"}
"""Tensors that fine-tunes change."""


def write_family(
    directory: Path, names: tuple[str, ...] = ("math", "code"), dtype: torch.dtype = torch.bfloat16
) -> dict[str, Path]:
    """`base` and a fine-tune for each name, each in a directory of its own."""
    source = np.random.default_rng(0)
    base = {name: source.normal(0, 0.1, shape) for name, shape in SHAPES.items()}
    found = {"base": _write(directory / "base", base, dtype)}
    for seed, name in enumerate(names, 1):
        own = np.random.default_rng(seed)
        tuned = {
            key: value + own.normal(0, 0.01, value.shape) if key in CHANGED else value
            for key, value in base.items()
        }
        found[name] = _write(directory / name, tuned, dtype)
    return found


def _write(directory: Path, values: dict[str, np.ndarray], dtype: torch.dtype) -> Path:
    directory.mkdir(parents=True)
    tensors = {name: torch.from_numpy(value).to(dtype) for name, value in values.items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps({"architectures": ["Tiny"]}))
    return directory
