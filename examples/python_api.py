"""The Python API in a minute: two tiny models, a branch for each, and what differs.

python examples/python_api.py [DIRECTORY]     (a throw-away one by default)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mergepipe import Repository


def write_model(directory: Path, shift: float) -> Path:
    """A model of one file; a fine-tune is the same weights, `shift`ed a little in one tensor."""
    source = np.random.default_rng(0)
    embed = source.standard_normal((1024, 256)).astype(np.float32)
    head = source.standard_normal((256, 1024)).astype(np.float32)
    directory.mkdir(parents=True)
    save_file({"embed": embed, "head": head + np.float32(shift)}, directory / "model.safetensors")
    return directory


def main(where: Path) -> None:
    """Commit, compare, check out."""
    base = write_model(where / "base", 0.0)
    tuned = write_model(where / "tuned", 0.01)

    with Repository.init(where / "models") as repo:
        repo.commit(base, message="Base model")
        made = repo.commit(tuned, branch="tuned", base="main", message="A fine-tune")
        print(f"{made.new_blocks} of {made.blocks} blocks were new: {made.stored_bytes:,} bytes")

        for identity, commit in repo.log("tuned"):
            print(identity.hex()[:12], commit.message)

        for tensor in repo.diff("main", "tuned").tensors:
            print(f"{tensor.name}: {tensor.change}, relative L2 {tensor.relative_l2:.4f}")

        out = repo.checkout("tuned", to=where / "out")
        same = (out / "model.safetensors").read_bytes() == (
            tuned / "model.safetensors"
        ).read_bytes()
        print("bit for bit the same:", same)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory))
