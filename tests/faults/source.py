"""A repository that has something new to push again and again: small, delta-coded, with history."""

import shutil
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.transfer.source import Source
from tests.repository.checkpoints import bf16, new_repository, write_model

BLOCK_BYTES = 8 << 10
PACK_BYTES = 24 << 10
_SHAPE = (40, 512)


class Models:
    """A base of 240 KB, and fine-tunes of it that lie in a handful of wire packs each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.repo = new_repository(folder, BLOCK_BYTES, "auto")
        self._scratch = folder.parent / f"{folder.name}-models"
        self.base = {
            f"layer.{number}": self.chance.normal(scale=0.02, size=_SHAPE).astype(np.float32)
            for number in range(6)
        }
        self.count = 0
        self._write("main", self.base)
        self.root = self.repo.resolve("main")

    def tune(self, branch: str = "main", layers: int = 4) -> ObjectId:
        """One more fine-tune of the base on a branch; most layers move."""
        moving = set(self.chance.choice(len(self.base), layers, replace=False))
        tensors = {
            name: value + (self.chance.normal(scale=1e-3, size=_SHAPE) if at in moving else 0)
            for at, (name, value) in enumerate(self.base.items())
        }
        return self._write(branch, tensors)

    def branch_off(self, branch: str, layers: int = 4) -> ObjectId:
        """A fine-tune on a new branch, which begins where main began."""
        self.repo.branch(branch, self.root.hex())
        return self.tune(branch, layers)

    def close(self) -> None:
        """Close the repository."""
        self.repo.close()

    def _write(self, branch: str, tensors: dict[str, np.ndarray]) -> ObjectId:
        self.count += 1
        raws = {name: bf16(value.astype(np.float32)) for name, value in tensors.items()}
        note = f'{{"count": {self.count}}}'
        path = write_model(self._scratch / str(self.count), raws, config_json=note)
        base = self.root.hex() if self.count > 1 else None
        made = self.repo.commit(path, message=str(self.count), branch=branch, base=base)
        shutil.rmtree(path)
        return made.commit


def source_of(repo: Repository) -> Source:
    """What pushes, in small packs."""
    return Source(
        repo.storage,
        repo.objects,
        repo.blocks,
        effort=repo.config.store.codec,
        pack_bytes=PACK_BYTES,
    )
