"""A model that is one large bfloat16 matrix and a vector: a base, or a fine-tune of it.

python benchmarks/generate_matrix.py DIRECTORY SIZE [SEED]

Seed 0 is the base; any other one changes every weight of it a little. Written in pieces, so that
the size does not matter.
"""

import json
import sys
from pathlib import Path

import numpy as np

from mergepipe.sizes import parse_size

COLUMNS = 8192
_PIECE_ROWS = 1024


def write_matrix(directory: Path, size_bytes: int, seed: int = 0) -> None:
    """Write `model.safetensors` and a config."""
    directory.mkdir(parents=True)
    rows = max(1, size_bytes // (2 * COLUMNS))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 2 * rows * COLUMNS
    header["layer.weight"] = {"dtype": "BF16", "shape": [rows, COLUMNS], "data_offsets": [0, end]}
    header["norm.weight"] = {
        "dtype": "BF16",
        "shape": [COLUMNS],
        "data_offsets": [end, end + 2 * COLUMNS],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece, first in enumerate(range(0, rows, _PIECE_ROWS)):
            count = min(_PIECE_ROWS, rows - first)
            file.write(_weights((count, COLUMNS), 0.02, seed, piece))
        file.write(_weights((COLUMNS,), 0.02, seed, 1 << 20))
    (directory / "config.json").write_text('{"architectures": ["Matrix"]}\n')


def _weights(shape: tuple[int, ...], size: float, seed: int, piece: int) -> bytes:
    values = np.random.default_rng((0, piece)).standard_normal(shape, np.float32) * size
    if seed:
        own = np.random.default_rng((seed, piece))
        values += own.standard_normal(shape, np.float32) * (size / 16)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


if __name__ == "__main__":
    write_matrix(
        Path(sys.argv[1]), parse_size(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 0
    )
