"""A base and three fine-tunes, made up: bfloat16 weights, and small changes to most of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mergepipe.dtypes import BF16
from mergepipe.formats.safetensors import build_header

Values: TypeAlias = npt.NDArray[np.float64]

EXPERTS = ("code", "math", "prose")
TENSORS = 32
SHAPE = (1024, 1024)
MODEL_MIB = TENSORS * 2


def write_family(folder: Path) -> None:
    """Write every model to a directory of its own."""
    random = np.random.default_rng(16)
    base = {
        f"layers.{number:02}.weight": random.normal(0, 0.02, SHAPE) for number in range(TENSORS)
    }
    _write(folder / "base", base)
    for name in EXPERTS:
        changes = {key: random.normal(0, 2e-4, SHAPE) for key in base}
        _write(folder / name, {key: value + changes[key] for key, value in base.items()})


def _write(folder: Path, values: Mapping[str, Values]) -> None:
    folder.mkdir(parents=True)
    header = build_header([(name, BF16, SHAPE) for name in values], {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        for value in values.values():
            # bfloat16 is the upper half of float32.
            file.write((value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes())
