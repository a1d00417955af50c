"""A family as wide, and of as many experts, as asked for, of the values of a small real one.

    python benchmarks/widen.py FAMILY DIRECTORY TIMES [EXPERTS]

Every matrix becomes TIMES x TIMES copies of itself (embeddings: TIMES side by side), each with rows
and columns in another order and signs flipped, the same way in the base and in every expert. So a
weight and its change are those of real training, tensor by tensor, and no block repeats. Experts
beyond those of the family change by parts of what two of them change by. What such a model says is
nothing: it measures what models take, not what they know.
"""

import itertools
import json
import shutil
import sys
from pathlib import Path
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file

_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
_BY_VOCABULARY = ("embed_tokens", "lm_head")
_PARTS = 0.7, 0.4  # of the changes of two experts, in one that is blended of them
_FILE = "model.safetensors"


def widen(family: Path, out: Path, times: int, experts: int | None = None) -> None:
    """Write the base and `experts` (None: all) of a family to the new directory `out`."""
    own = [path.name for path in sorted(family.glob("expert-*"))]
    for name in ("base", *own[:experts]):
        _widen_model(family / name, out / name, times)
    pairs = itertools.cycle(itertools.permutations(own, 2))
    for number in range(len(own), len(own) if experts is None else experts):
        _blend(out, next(pairs), out / f"expert-{number:02}")


def _widen_model(source: Path, target: Path, times: int) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
    config = json.loads((source / "config.json").read_text())
    for name in _WIDTHS:
        config[name] *= times
    (target / "config.json").write_text(json.dumps(config, indent=2))
    tensors = load_file(source / _FILE)
    wide = {name: _widened(name, values, times) for name, values in tensors.items()}
    save_file(wide, target / _FILE, {"format": "pt"})


def _widened(name: str, values: torch.Tensor, times: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(crc32(name.encode()))
    if values.dim() == 1:
        return torch.cat([_shuffled(values[None], chance)[0] for _ in range(times)])
    down = 1 if any(part in name for part in _BY_VOCABULARY) else times
    rows = [
        torch.cat([_shuffled(values, chance) for _ in range(times)], dim=1) for _ in range(down)
    ]
    return torch.cat(rows).contiguous()


def _shuffled(values: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Rows and columns in another order, some of them with the other sign."""
    for dimension, size in enumerate(values.shape):
        order = torch.randperm(size, generator=chance)
        shape = [size if place == dimension else 1 for place in range(values.dim())]
        signs = torch.randint(2, shape, generator=chance) * 2 - 1
        values = values.index_select(dimension, order) * signs.to(values.dtype)
    return values


def _blend(models: Path, pair: tuple[str, str], target: Path) -> None:
    shutil.copytree(models / "base", target)
    base = load_file(models / "base" / _FILE)
    tuned = [load_file(models / name / _FILE) for name in pair]
    blended = {}
    for name, values in base.items():
        start = values.float()
        parts = zip(_PARTS, tuned, strict=True)
        change = sum(part * (own[name].float() - start) for part, own in parts)
        blended[name] = (start + change).to(values.dtype).contiguous()
    save_file(blended, target / _FILE, {"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    widen(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
