"""Fine-tunes of a generated model: every weight moved a little, or only a share of them.

python benchmarks/generate_tuned.py BASE DIRECTORY SEED [SHARE [TENSORS]]

d is normal with a hundredth of the weights' spread (2e-4 for 0.02), rounded to bfloat16. SHARE of
the weights get it (1: a dense fine-tune); with TENSORS below 1, only that share of the tensors
change.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SPREAD = np.float32(2e-4)
_CHUNK = 1 << 22


def tune(base: Path, out: Path, seed: int, share: float = 1.0, tensors: float = 1.0) -> None:
    """Write a fine-tune of the checkpoint `base` to the new directory `out`."""
    out.mkdir(parents=True)
    random = np.random.default_rng([seed, 1])
    pool = random.standard_normal(1 << 23, dtype=np.float32) * _SPREAD
    for source in sorted(base.iterdir()):
        if source.suffix == ".safetensors":
            _tune_file(source, out / source.name, pool, random, share, tensors)
        else:
            shutil.copyfile(source, out / source.name)


def _tune_file(
    source: Path,
    target: Path,
    pool: npt.NDArray[np.float32],
    random: np.random.Generator,
    share: float,
    tensors: float,
) -> None:
    data = np.fromfile(source, np.uint8)
    length = int(data[:8].view("<u8")[0])
    header = json.loads(data[8 : 8 + length].tobytes())
    for name, entry in header.items():
        if name == "__metadata__" or random.random() >= tensors:
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        weights = data[begin:end].view(np.uint16)
        for at in range(0, len(weights), _CHUNK):
            part = weights[at : at + _CHUNK]
            start = int(random.integers(0, len(pool) - len(part) + 1))
            change = pool[start : start + len(part)]
            if share < 1:
                change = change * (random.random(len(part), dtype=np.float32) < share)
            part[:] = _rounded((part.astype(np.uint32) << 16).view(np.float32) + change)
    data.tofile(target)


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """float32 to bfloat16, to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> 16).astype(
        np.uint16
    )


if __name__ == "__main__":
    numbers = [float(text) for text in sys.argv[4:6]]
    tune(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *numbers)
