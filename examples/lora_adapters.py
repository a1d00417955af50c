"""Adapters as experts: two LoRA adapters of one base, merged as the models they make.

python examples/lora_adapters.py [DIRECTORY]     (a throw-away one by default)

An adapter is stored as it is, a few megabytes; a merge reads it as low-rank differences from its
base, without ever writing the full model that it stands for. The files here are as peft writes
them.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mergepipe import Repository

WIDTH, RANK = 256, 8
RECIPE = """
merge_method: task_arithmetic
base_model: base
models:
  - model: base+polite
    parameters: {weight: 1.0}
  - model: base+brief
    parameters: {weight: 1.0}
dtype: float32
"""
TARGET = "model.layers.0.self_attn.q_proj"


def write_base(directory: Path) -> Path:
    """A model of one layer, with the config that says what it is."""
    source = np.random.default_rng(0)
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkvo"]
    tensors = {name: source.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in names}
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    return directory


def write_adapter(directory: Path, seed: int) -> Path:
    """A LoRA adapter as peft writes it."""
    source = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    tensors = {
        f"base_model.model.{TARGET}.lora_A.weight": source.standard_normal((RANK, WIDTH)),
        f"base_model.model.{TARGET}.lora_B.weight": source.standard_normal((WIDTH, RANK)) * 0.01,
    }
    save_file(
        {name: values.astype(np.float32) for name, values in tensors.items()},
        directory / "adapter_model.safetensors",
    )
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "base",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def main(where: Path) -> None:
    """Commit a base and two adapters, merge, and compare with the sum written out."""
    with Repository.init(where / "repository") as repo:
        repo.commit(write_base(where / "base"), branch="base")
        for seed, name in enumerate(("polite", "brief"), start=1):
            result = repo.commit(write_adapter(where / name, seed), branch=name, base="base")
            print(f"{name}: {result.stored_bytes:,} bytes stored")

        repo.merge_recipe(RECIPE, branch="both")
        merged = repo.tensor("both", f"{TARGET}.weight").numpy()

        expected = repo.tensor("base", f"{TARGET}.weight").numpy().astype(np.float64)
        for name in ("polite", "brief"):
            down = repo.tensor(name, f"base_model.model.{TARGET}.lora_A.weight").numpy()
            up = repo.tensor(name, f"base_model.model.{TARGET}.lora_B.weight").numpy()
            expected += 16 / RANK * up.astype(np.float64) @ down.astype(np.float64)
        print(f"largest difference from the sum in float64: {np.abs(merged - expected).max():.1e}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory))
