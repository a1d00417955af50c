"""Tiny models on disk, made with the safetensors library."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Tensors = Mapping[str, npt.NDArray[np.float32]]


def tensors(seed: int = 0, *, changed: float = 0.0) -> Tensors:
    """Three small tensors; `changed` is added to the first row of the last."""
    source = np.random.default_rng(seed)
    head = source.standard_normal((64, 32)).astype(np.float32)
    head[0] += changed
    return {
        "embed": source.standard_normal((128, 32)).astype(np.float32),
        "norm": source.standard_normal(32).astype(np.float32),
        "head": head,
    }


def write_model(directory: Path, content: Tensors | None = None) -> Path:
    """A model as Hugging Face saves it: config, weights, and a script beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"architectures": ["Tiny"]}))
    save_file(dict(content or tensors()), directory / "model.safetensors", {"format": "pt"})
    script = directory / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return directory


def write_sharded(directory: Path) -> Path:
    """A model in two shards with an index."""
    directory.mkdir(parents=True)
    shards = {"a.safetensors": ["embed"], "b.safetensors": ["norm", "head"]}
    content = tensors()
    for shard, names in shards.items():
        save_file({name: content[name] for name in names}, directory / shard)
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def raw_safetensors(path: Path, header: object, data: bytes) -> None:
    """A safetensors file of any header, however wrong."""
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def content_of(directory: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file below a directory but the repository: its bytes, and whether it may be run."""
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for path in directory.rglob("*")
        if path.is_file() and ".mergepipe" not in path.parts
    }
